from __future__ import annotations

import io
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scripts import faults, runner


@pytest.fixture
def screen():
    return runner.Screen('[1/2]', io.StringIO())


def python(code):
    return [sys.executable, '-c', code]


def test_output_is_returned_and_logged(tmp_path, screen):
    log = tmp_path / 'step.log'
    assert runner.run('say', python('print("hello")'), log, screen) == 'hello\n'
    text = log.read_text()
    assert 'hello\nexit status 0\n' in text
    assert text.startswith(f'$ {sys.executable} -c ')


def test_failure_carries_cause_and_log(tmp_path, screen):
    code = 'import sys; print("[Errno 28] No space left on device"); sys.exit(2)'
    with pytest.raises(faults.SetupError) as failed:
        runner.run('install x', python(code), tmp_path / 'x.log', screen)
    assert (failed.value.why, failed.value.todo) == faults.DISK_FULL
    assert failed.value.log == str(tmp_path / 'x.log')


def test_missing_command_is_explained(tmp_path, screen):
    with pytest.raises(faults.SetupError) as failed:
        runner.run('compile', ['/nowhere/g++'], tmp_path / 'x.log', screen)
    assert (failed.value.why, failed.value.todo) == faults.NO_COMPILER


def test_settings_that_install_elsewhere_are_not_passed_on(monkeypatch):
    monkeypatch.setenv('PIP_TARGET', '/elsewhere')
    monkeypatch.setenv('PYTHONPATH', '/elsewhere')
    monkeypatch.setenv('PIP_INDEX_URL', 'kept')
    env = runner.child_environment({'CXX': 'g++'})
    assert not {'PIP_TARGET', 'PYTHONPATH'} & env.keys()
    assert (env['PIP_INDEX_URL'], env['CXX']) == ('kept', 'g++')


def test_interruption_ends_grandchildren_too(tmp_path, screen, monkeypatch):
    pid_file = tmp_path / 'pid'
    grandchild = f'import os, time; open({str(pid_file)!r}, "w").write(str(os.getpid()))'
    code = (
        'import subprocess, sys\n'
        f'subprocess.Popen([sys.executable, "-c", {grandchild + "; time.sleep(60)"!r}])\n'
        'print("started", flush=True)\n'
        'import time; time.sleep(60)\n'
    )

    def interrupt(line):
        while not (pid_file.exists() and pid_file.read_text()):
            time.sleep(0.05)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runner.run('wait', python(code), tmp_path / 'x.log', screen, progress=interrupt)
    pid = int(pid_file.read_text())
    deadline = time.monotonic() + 10
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(pid)


def is_running(pid):
    try:
        state = Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != 'Z'


def test_pip_progress_names_the_file_and_its_megabytes():
    progress = runner.PipProgress()
    assert progress('Collecting torch==2.12.1 (from -r x)\n') == 'Collecting torch==2.12.1'
    line = '  Downloading https://index/torch-2.12.1-cp311-cp311-linux_x86_64.whl (820 MB)\n'
    assert progress(line) == 'Downloading torch-2.12.1'
    assert progress('Progress 52428800 of 104857600\n') == 'Downloading torch-2.12.1 50 of 100 MB'
    installing = 'Installing, number of packages: 3'
    assert progress('Installing collected packages: a, b, c\n') == installing
    assert progress('a line that says nothing\n') == installing


def test_ninja_progress_estimates_the_time_left():
    times = iter([0.0, 10.0, 90.0])
    progress = runner.NinjaProgress(now=lambda: next(times))
    assert progress('running build_ext\n') == 'preparing'
    assert progress('[1/10] c++ a.cpp\n') == '[1/10] files compiled'
    # One file in 10 s after the first, eight are left; then nine files in 90 s, none left.
    assert progress('[2/10] c++ b.cpp\n') == '[2/10] files compiled, about 1:20 left'
    assert progress('[10/10] c++ j.cpp\n') == '[10/10] files compiled, about 0:00 left'


def test_status_in_a_log_is_a_line_now_and_then(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(runner.time, 'monotonic', lambda: now[0])
    screen = runner.Screen('[1/2]', io.StringIO())
    for now[0] in (101.0, 121.0, 122.0, 142.0):
        screen.status('working')
    assert screen.stream.getvalue() == '[1/2] 0:21 working\n[1/2] 0:42 working\n'


def test_stop_of_a_process_that_is_gone_is_quiet():
    child = subprocess.Popen(python('pass'), start_new_session=True)
    child.wait()
    assert runner.stop(child) is None
    assert not Path(f'/proc/{child.pid}').exists()
