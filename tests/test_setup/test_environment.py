from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import compiler, environment, faults, mmcv_build
from scripts.environment import Environment, Step

ROOT = Path(environment.__file__).parent.parent


@pytest.fixture
def checkout(tmp_path):
    shutil.copytree(ROOT / 'requirements', tmp_path / 'requirements')
    shutil.copy(ROOT / 'setup.py', tmp_path)
    env = Environment(tmp_path)
    env.state.mkdir(parents=True)
    return env


def keys(env):
    return {step.name: step.key for step in env.steps(dev=True)}


def test_steps_come_in_an_order_in_which_each_finds_what_it_needs(checkout):
    names = [step.name for step in checkout.steps(dev=True)]
    order = ['venv', 'build', 'torch', 'runtime', 'mmcv', 'hosts', 'dev', 'package', 'check']
    assert names == order
    assert [step.name for step in checkout.steps(dev=False)] == [n for n in order if n != 'dev']


def test_another_torch_repeats_torch_mmcv_and_the_check_only(checkout):
    before = keys(checkout)
    path = checkout.root / 'requirements' / 'torch.txt'
    path.write_text(path.read_text().replace('torch==2.12.1', 'torch==2.13.0'))
    after = keys(checkout)
    assert {name for name in before if before[name] != after[name]} == {'torch', 'mmcv', 'check'}


def test_another_comment_repeats_nothing(checkout):
    before = keys(checkout)
    path = checkout.root / 'requirements' / 'torch.txt'
    path.write_text('# an explanation\n' + path.read_text())
    assert keys(checkout) == before


def test_dev_tools_do_not_make_the_rest_out_of_date(checkout):
    without = {step.name: step.key for step in checkout.steps(dev=False)}
    assert {name: key for name, key in keys(checkout).items() if name != 'dev'} == without


def test_step_is_done_only_while_its_pins_are_installed(checkout):
    step = Step('torch', 'torch', '', lambda screen: None, ('torch==2.12.1',))
    assert not checkout.is_done(step, {'torch==2.12.1'})
    checkout.mark(step)
    assert checkout.is_done(step, {'torch==2.12.1'})
    assert not checkout.is_done(step, {'torch==2.13.0'})


def test_step_is_done_only_while_its_links_stand(checkout, tmp_path):
    link = tmp_path / 'link'
    step = Step('package', 'this checkout', '', lambda screen: None, links=(link,))
    checkout.mark(step)
    assert not checkout.is_done(step, set())
    link.symlink_to(tmp_path)
    assert checkout.is_done(step, set())


class Recorder:
    """Steps that note that they ran and fail as told."""

    def __init__(self, env, monkeypatch):
        self.ran, self.fails, self.env = [], {}, env
        steps = [Step(name, name, '', self.action(name)) for name in 'abc']
        monkeypatch.setattr(env, 'steps', lambda dev: steps)
        monkeypatch.setattr(env, 'is_usable', lambda: True)

    def action(self, name):
        def act(screen):
            self.ran.append(name)
            if name in self.fails:
                raise self.fails[name]

        return act

    def set_up(self):
        self.ran.clear()
        environment.set_up(self.env, dev=False)


@pytest.fixture
def recorder(checkout, monkeypatch):
    return Recorder(checkout, monkeypatch)


def test_second_run_does_nothing(recorder, capsys):
    recorder.set_up()
    assert recorder.ran == ['a', 'b', 'c']
    capsys.readouterr()
    recorder.set_up()
    assert recorder.ran == []
    assert capsys.readouterr().out == ''


def test_failed_step_says_why_and_is_where_the_next_run_goes_on(recorder):
    recorder.fails['b'] = faults.SetupError('install b', *faults.NO_NETWORK, log='b.log')
    with pytest.raises(SystemExit) as stopped:
        recorder.set_up()
    assert stopped.value.code.startswith('set-up stopped in step 2/3 (b): install b\n  why: ')
    recorder.fails.clear()
    recorder.set_up()
    assert recorder.ran == ['b', 'c']


def test_interrupted_step_is_where_the_next_run_goes_on(recorder, capsys):
    recorder.fails['c'] = KeyboardInterrupt()
    with pytest.raises(SystemExit) as stopped:
        recorder.set_up()
    assert stopped.value.code == 130
    assert '[3/3] interrupted; the same command continues here' in capsys.readouterr().out
    recorder.fails.clear()
    recorder.set_up()
    assert recorder.ran == ['c']


def test_environment_that_no_longer_starts_is_set_up_anew(recorder, monkeypatch):
    recorder.set_up()
    monkeypatch.setattr(recorder.env, 'is_usable', lambda: False)
    recorder.set_up()
    assert recorder.ran == ['a', 'b', 'c']


def test_new_environment_keeps_the_compiled_mmcv(checkout, monkeypatch):
    wheel = checkout.state / 'wheels' / 'tag' / 'mmcv-2.1.0-cp311.whl'
    wheel.parent.mkdir(parents=True)
    wheel.write_text('compiled')
    (checkout.venv / 'bin').mkdir()
    (checkout.venv / 'bin' / 'python').symlink_to('/nowhere/python3.11')
    commands = []
    monkeypatch.setattr(environment, 'run', lambda what, command, *rest: commands.append(command))
    checkout._make_venv(screen=None)
    assert commands == [[sys.executable, '-m', 'venv', checkout.venv]]
    assert not (checkout.venv / 'bin').exists()
    assert wheel.read_text() == 'compiled'


def pending(env, name):
    return [step for step in env.steps(dev=False) if step.name == name]


def test_missing_compiler_is_found_before_anything_is_downloaded(checkout, monkeypatch, tmp_path):
    monkeypatch.setenv('PATH', str(tmp_path))
    for variable in ('CXX', mmcv_build.KEEP_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(faults.SetupError) as stopped:
        environment.check_machine(checkout, pending(checkout, 'mmcv'))
    assert 'a C++ compiler must be on PATH' in stopped.value.why
    assert 'sudo apt install g++' in stopped.value.todo


def test_missing_compiler_does_not_matter_with_a_kept_wheel(checkout, monkeypatch, tmp_path):
    monkeypatch.setenv('PATH', str(tmp_path))
    wheel = tmp_path / 'kept' / 'tag' / 'mmcv-2.1.0-cp311.whl'
    wheel.parent.mkdir(parents=True)
    wheel.write_text('')
    monkeypatch.setenv(mmcv_build.KEEP_VARIABLE, str(tmp_path / 'kept'))
    assert environment.check_machine(checkout, pending(checkout, 'mmcv')) is None


def test_missing_headers_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(compiler.sysconfig, 'get_paths', lambda: {'include': str(tmp_path)})
    monkeypatch.setattr(compiler, 'find', lambda: 'g++')
    with pytest.raises(faults.SetupError) as stopped:
        compiler.check()
    assert 'got no Python.h' in stopped.value.why


def test_compiler_without_c17_is_named(monkeypatch, tmp_path):
    old = tmp_path / 'g++'
    old.write_text('#!/bin/sh\necho "unrecognized option -std=c++17" >&2\nexit 1\n')
    old.chmod(0o755)
    monkeypatch.setenv('CXX', str(old))
    with pytest.raises(faults.SetupError) as stopped:
        compiler.check()
    assert 'must know C++17' in stopped.value.why


def test_second_set_up_waits_for_the_first(checkout):
    code = (
        f'import sys; sys.path.insert(0, {str(ROOT)!r})\n'
        'from pathlib import Path\n'
        'from scripts.environment import Environment\n'
        f'with Environment(Path({str(checkout.root)!r})).lock():\n'
        '    print("in")\n'
    )
    with checkout.lock():
        second = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True)
        assert 'another one is at work' in second.stdout.readline()
        assert second.poll() is None
    assert second.communicate(timeout=30)[0] == 'in\n'
    assert second.returncode == 0


def test_every_pin_is_exact_and_named_once():
    names = []
    for path in sorted((ROOT / 'requirements').glob('*.txt')):
        lines = (line.split('#')[0].strip() for line in path.read_text().splitlines())
        for line in filter(None, lines):
            name, separator, version = environment.normalise(line).partition('==')
            assert separator, f'{path.name}: {line}'
            assert version.replace('.', '').isalnum(), f'{path.name}: {line}'
            names.append(name)
    assert len(names) > 80
    assert sorted(names) == sorted(set(names))
