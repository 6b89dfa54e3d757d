from __future__ import annotations

import subprocess
import sys

import pytest

from mmloss_plugins import __main__, doctor
from mmloss_plugins._combinations import OPS, diagnose

REFERENCE = {
    'torch': '2.12.1',
    'torchvision': '0.27.1',
    'numpy': '1.26.4',
    'setuptools': '80.10.2',
    'mmengine': '0.10.7',
    'mmcv': '2.1.0',
    OPS: 'yes',
    'mmdet': '3.3.0',
    'mmpose': '1.3.2',
    'openmim': '0.3.9',
    'xtcocotools': '1.14.3',
    'pandas': '2.3.3',
}
RESUMING = 'mmengine: resuming must go through mmloss_plugins.compat'


def found(change):
    return [
        problem for problem in diagnose({**REFERENCE, **change}) if RESUMING not in problem.text
    ]


def test_reference_stack_has_one_note_and_no_problem():
    (note,) = diagnose(REFERENCE)
    assert note.text.startswith(RESUMING)
    assert 'torch 2.12.1' in note.text
    assert not note.fatal


# change of the reference stack, start of the message, part of the fix, fatal
BAD = {
    'no torch': (
        {'torch': None, 'torchvision': None},
        'torch: torch must be installed, got none.',
        'pip install torch torchvision',
        True,
    ),
    'old torch': (
        {'torch': '1.13.1', 'torchvision': '0.14.1'},
        'torch: torch must be 2.0 or later, got 1.13.1.',
        'reinstall mmcv',
        True,
    ),
    'no mmengine': (
        {'mmengine': None},
        'mmengine: mmengine must be installed, got none.',
        'mmengine>=0.10,<1.0',
        True,
    ),
    'old mmengine': (
        {'mmengine': '0.8.4'},
        'mmengine: mmengine must be at least 0.10 and below 1.0, got 0.8.4.',
        'mmengine>=0.10,<1.0',
        True,
    ),
    'no host': (
        {'mmpose': None, 'mmdet': None},
        'hosts: mmpose or mmdet must be installed, got none.',
        'mmpose==1.3.2 mmdet==3.3.0',
        True,
    ),
    'mmdet of the 1.x generation': (
        {'mmdet': '2.28.2'},
        'mmdet: mmdet must be of the OpenMMLab 2.x generation (mmcv 2, mmdet 3, mmpose 1), got '
        '2.28.2.',
        'mmdet==3.3.0',
        True,
    ),
    'mmpose of the 1.x generation': (
        {'mmpose': '0.29.0'},
        'mmpose: mmpose must be of the OpenMMLab 2.x generation',
        'mmpose==1.3.2',
        True,
    ),
    'mmcv of the 1.x generation': (
        {'mmcv': '1.7.2'},
        'mmcv: mmcv must be of the OpenMMLab 2.x generation',
        'mmcv==2.1.0',
        True,
    ),
    'mmcv that mmdet refuses': (
        {'mmcv': '2.2.0'},
        'mmdet: mmcv must be below 2.2.0 for mmdet 3.3.0 (it refuses others when imported), got '
        '2.2.0.',
        'mmcv==2.1.0',
        True,
    ),
    'mmcv without ops': (
        {OPS: None},
        'mmcv: mmcv must have compiled ops that load',
        'MMCV_WITH_OPS=1 pip install mmcv==2.1.0 --no-build-isolation',
        True,
    ),
    'mmcv-lite': (
        {'mmcv-lite': '2.1.0', OPS: None},
        'mmcv: mmcv-lite must not be installed',
        'pip uninstall mmcv-lite',
        True,
    ),
    'torch that cannot compile mmcv': (
        {'torch': '2.14.0', 'torchvision': '0.29.0', OPS: None},
        'mmcv: torch must be below 2.14 to compile mmcv 2.1.0 (later headers need C++20), got '
        '2.14.0.',
        'torch==2.12.1',
        True,
    ),
    'torchvision of another torch': (
        {'torchvision': '0.26.0'},
        'torchvision: torchvision must be the release made for torch 2.12.1',
        'with one pip command',
        True,
    ),
    'CPU build beside a CUDA build': (
        {'torch': '2.13.0+cpu', 'torchvision': '0.28.0'},
        'torchvision: torchvision must be a CPU-only build beside torch 2.13.0+cpu',
        'torch==2.12.1 torchvision==0.27.1',
        True,
    ),
    'setuptools without pkg_resources, no mim': (
        {'setuptools': '82.0.0', 'openmim': None, 'mmengine': '0.10.7'},
        'mmengine: setuptools must be below 81 (later releases drop pkg_resources, which mmengine '
        '0.10.7 imports), got 82.0.0.',
        'setuptools<81',
        True,
    ),
    'numpy 2 with the xtcocotools wheel': (
        {'numpy': '2.4.6', 'mmcv': '2.1.1'},
        'xtcocotools: numpy must be below 2 for the wheel of xtcocotools 1.14.3',
        'pip install "numpy<2"',
        True,
    ),
    'numpy 2 with an old torch': (
        {'numpy': '2.0.0', 'torch': '2.2.2', 'torchvision': '0.17.2', 'xtcocotools': None,
         'mmcv': '2.1.1'},
        'torch: numpy must be below 2 for torch 2.2.2, got 2.0.0.',
        'pip install "numpy<2"',
        True,
    ),
    'numpy 2 with mmcv': (
        {'numpy': '2.0.0', 'xtcocotools': None},
        'mmcv: numpy must be below 2 with mmcv 2.1.0',
        'pip install "numpy<2"',
        False,
    ),
    'pandas 3 with mim': (
        {'pandas': '3.1.1'},
        'openmim: pandas must be below 3 with openmim 0.3.9',
        'pandas<3',
        False,
    ),
    'mmpose alone': (
        {'mmdet': None},
        'mmpose: mmdet must be installed for mmpose 1.3.2 (its RTMO head imports it',
        'mmdet==3.3.0',
        True,
    ),
    'older mmpose alone': (
        {'mmdet': None, 'mmpose': '1.2.0'},
        'mmpose: mmdet must be installed for configs that take a backbone from it (RTMPose)',
        'mmdet==3.3.0',
        False,
    ),
    'no mim': (
        {'openmim': None},
        'openmim: openmim must be installed for `mim train`, got none.',
        'openmim==0.3.9',
        False,
    ),
}  # fmt: skip


@pytest.mark.parametrize('case', BAD)
def test_bad_combination_is_named_with_its_fix(case):
    change, text, fix, fatal = BAD[case]
    problem = next((problem for problem in found(change) if problem.text.startswith(text)), None)
    assert problem is not None, found(change)
    assert fix in problem.text
    assert problem.fatal is fatal


ALONE = sorted(set(BAD) - {'no torch', 'setuptools without pkg_resources, no mim', 'mmcv-lite'})


@pytest.mark.parametrize('case', ALONE)
def test_bad_combination_is_the_only_finding(case):
    assert len(found(BAD[case][0])) == 1


def test_setuptools_matter_to_mim_as_well():
    texts = [problem.text for problem in found({'setuptools': '82.0.1'})]
    assert [text.split(':')[0] for text in texts] == ['mmengine', 'openmim']


@pytest.mark.parametrize(
    'change',
    [
        {'torch': '2.0.1', 'torchvision': '0.15.2'},
        {'torch': '2.4.0+cu121', 'torchvision': '0.19.0+cu121'},
        {'torch': '2.13.0+cpu', 'torchvision': '0.28.0+cpu'},
        {'torch': '2.6.0a0+git1', 'torchvision': '0.21.0'},
        {'torch': '2.14.0', 'torchvision': '0.29.0'},
        {'setuptools': '81.0.0'},
        {'mmpose': None},
        {'mmengine': '0.11.0', 'openmim': '0.5.0', 'setuptools': '83.0'},
    ],
)
def test_combination_that_works_is_not_reported(change):
    assert found(change) == []


def test_nothing_installed_gives_the_first_step_first():
    texts = [problem.text for problem in diagnose({})]
    assert texts[0].startswith('torch: torch must be installed')
    assert all('{' not in text for text in texts)


def raise_chain():
    try:
        try:
            raise OSError('libfoo.so: cannot open shared object file')
        except OSError as error:
            raise RuntimeError('could not load ops') from error
    except RuntimeError:
        raise ImportError('Failed to import custom modules, check PYTHONPATH')  # noqa: B904


def test_first_cause_is_what_users_do_not_see():
    with pytest.raises(ImportError) as caught:
        raise_chain()
    text = doctor.first_cause(caught.value)
    assert text.startswith('OSError: libfoo.so: cannot open shared object file (')
    assert __file__ in text


def test_import_that_fails_is_reported_with_its_place(tmp_path, monkeypatch):
    (tmp_path / 'broken_ops.py').write_text('x = 1\nraise ValueError("numpy.dtype size changed")\n')
    monkeypatch.syspath_prepend(tmp_path)
    cause = doctor.try_import('broken_ops')
    assert cause == f'ValueError: numpy.dtype size changed ({tmp_path}/broken_ops.py:2)'
    assert doctor.try_import('json') is None


@pytest.fixture
def report():
    versions = dict.fromkeys(doctor.SHOWN, '1.0')
    return doctor.Report({**versions, OPS: '1.0', 'mmloss_plugins': '0.1.0'})


@pytest.mark.parametrize('missing', ['torch', 'mmengine', 'mmcv', OPS, 'mmloss_plugins'])
def test_cannot_train_without(report, missing):
    assert report.can_train()
    report.failures[missing] = 'ImportError: x'
    assert not report.can_train()
    assert 'result: cannot train, for want of' in doctor.render(report)


@pytest.mark.parametrize('host', ['mmpose', 'mmdet'])
def test_one_host_is_enough(report, host):
    report.versions.update({'mmpose': None, 'mmdet': None, host: '1.0'})
    assert report.can_train()
    assert doctor.render(report).endswith(f'result: can train with {host}')


def test_no_host_is_not(report):
    report.versions.update({'mmpose': None, 'mmdet': None})
    assert not report.can_train()
    assert 'for want of a host (mmpose or mmdet)' in doctor.render(report)


def test_this_environment_can_train():
    command = [sys.executable, '-m', 'mmloss_plugins', 'doctor']
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert 'result: can train with mmpose and mmdet' in result.stdout
    assert 'KLDiscretLoss' in result.stdout
    assert 'problem:' not in result.stdout


def test_blocked_hosts_give_status_1_and_the_cause():
    code = (
        'import importlib.abc, sys\n'
        'class Block(importlib.abc.MetaPathFinder):\n'
        '    def find_spec(self, name, path=None, target=None):\n'
        '        if name in ("mmpose", "mmdet"):\n'
        '            raise ModuleNotFoundError(f"no {name} here", name=name)\n'
        'sys.meta_path.insert(0, Block())\n'
        'from mmloss_plugins.__main__ import main\n'
        'sys.exit(main(["doctor"]))\n'
    )
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert result.returncode == 1, result.stderr
    assert 'mmdet            3.3.0, does not load: ModuleNotFoundError: no mmdet' in result.stdout
    assert result.stdout.rstrip().endswith('for want of a host (mmpose or mmdet)')


def test_command_line_lists_commands_and_names_a_wrong_one(capsys):
    assert __main__.main(['--help']) == 0
    assert 'doctor' in capsys.readouterr().out
    assert __main__.main([]) == 2
    assert __main__.main(['docter']) == 2
    assert "command must be one of doctor, got 'docter'" in capsys.readouterr().err
    assert __main__.main(['doctor', '--help']) == 0
    assert __main__.main(['doctor', 'x']) == 2
