from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.demo import Demo, Progress, StepError, call, main, shorten
from tests.test_visualization.pictures import check_picture

ROOT = Path(__file__).resolve().parents[2]
LINE = (
    '11/22 06:40:25 - mmengine - INFO - Iter(train) [  50/2500]  base_lr: 2.0000e-03 lr: 2.0e-03  '
    'eta: 0:01:10  time: 0.0551  data_time: 0.0012  loss: 3.9581  loss_kpt: 3.9581  '
    'acc_pose: 0.2031  simcc_ratio: 0.7101'
)


def test_fast_demo_from_end_to_end(tmp_path, capfd):
    """``make demo`` in small, as a process of its own and from an unrelated folder."""
    env = {**os.environ, 'PYTHONPATH': str(ROOT)}
    command = [sys.executable, '-m', 'benchmarks.demo', '--fast']
    folders = ['--data', str(tmp_path / 'data'), '--out', str(tmp_path / 'out')]
    done = subprocess.run(
        [*command, *folders],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    screen = done.stdout
    assert [int(step) for step in re.findall(r'^\[(\d)/3\]', screen, re.MULTILINE)] == [1, 2, 3]
    assert re.search(r'^Iter\(train\) \[20/20\]  eta: 0:00:00  loss: \d', screen, re.MULTILINE)
    for name in ('predictions', 'simcc', 'curves'):
        check_picture(tmp_path / 'out' / 'pictures_fast' / f'{name}.png')
        assert f'out/pictures_fast/{name}.png' in screen
    for metric in (r'PCK@\.05', r'PCK@\.02', 'AP'):
        assert re.search(rf'^  {metric} +\d\.\d\d\d   val, iteration 20$', screen, re.MULTILINE)
    log = Path(tmp_path, re.search(r'^  log +(\S+)', screen, re.MULTILINE).group(1))
    assert 'Iter(train)' in log.read_text()
    assert 'Iter(val)' in log.read_text()
    assert re.search(r'mim test mmpose \S+simcc_mini\S+ --checkpoint \S+iter_20\.pth', screen)

    # A finished demo trains nothing.
    before = log.stat().st_mtime_ns
    Demo(tmp_path / 'data', tmp_path / 'out', fast=True).train()
    assert 'trained before' in capfd.readouterr().out
    assert log.stat().st_mtime_ns == before


def test_screen_shows_progress_and_errors_only():
    assert shorten(LINE.split(' - ')[-1]) == (
        'Iter(train) [  50/2500]  eta: 0:01:10  loss: 3.9581  simcc_ratio: 0.7101'
    )
    keep = Progress()
    assert keep(LINE).startswith('Iter(train) [  50/2500]  eta: 0:01:10')
    assert keep('11/22 06:40:25 - mmengine - INFO - Config:') == ''
    assert keep('val_dataloader = dict(batch_size=50)') == ''
    assert keep('11/22 06:40:25 - mmengine - INFO - resumed epoch: 0, iter: 10').startswith('resu')
    assert keep('Traceback (most recent call last):')
    assert keep('  File "train.py", line 1') == '  File "train.py", line 1'


def test_val_line_keeps_the_main_metrics():
    line = (
        'Iter(val) [8/8]    coco/AP: 0.1121  coco/AP .5: 0.4  coco/AP (M): -1.0000  '
        'coco/AR: 0.2  pck@.05/PCK: 0.4228  pck@.02/PCK: 0.1036  data_time: 0.0311  time: 0.0476'
    )
    assert shorten(line) == (
        'Iter(val) [8/8]  coco/AP: 0.1121  pck@.05/PCK: 0.4228  pck@.02/PCK: 0.1036'
    )


def test_failing_command_names_cause_and_log(tmp_path):
    script = 'print("first"); raise SystemExit("disk on fire")'
    with pytest.raises(StepError) as caught:
        call([sys.executable, '-c', script], tmp_path / 'deep' / 'a.log', os.environ)
    assert caught.value.why == ('the command must exit with status 0, got 1 after: disk on fire')
    text = caught.value.text('step 2 of 3, training')
    assert text.splitlines()[0] == 'demo stopped in step 2 of 3, training'
    assert str(tmp_path / 'deep' / 'a.log') in text
    assert 'first' in (tmp_path / 'deep' / 'a.log').read_text()


def test_missing_command_points_to_the_setup(tmp_path):
    with pytest.raises(StepError, match='must start, got No such file') as caught:
        call([str(tmp_path / 'mim'), 'train'], tmp_path / 'a.log', os.environ)
    assert 'make setup' in caught.value.do


def test_interruption_stops_the_child(tmp_path):
    script = 'import os, time; print(os.getpid(), flush=True); time.sleep(600)'
    pids = []

    def interrupt(line):
        pids.append(int(line))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        call([sys.executable, '-c', script], tmp_path / 'a.log', os.environ, keep=interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_folder_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / 'data').write_text('a file, not a folder')
    arguments = ['--fast', '--data', str(tmp_path / 'data'), '--out', str(tmp_path / 'out')]
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert 'demo stopped in step 1 of 3, data' in error
    assert 'out_dir must be a folder' in error
