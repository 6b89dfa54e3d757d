"""``mim train`` and ``mim test`` from an unrelated folder against the installed wheel."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.mim import Mim

MINI = 'pose/simcc/simcc_mini_tiny-res_figures-64x64.py'


@pytest.fixture(scope='module')
def mim(tmp_path_factory, installed_wheel, figures):
    folder = tmp_path_factory.mktemp('unrelated')
    return Mim(folder, installed_wheel, figures, 'mmpose', MINI)


def test_killed_training_resumes_and_its_checkpoint_is_tested(mim):
    checkpoints = mim.folder / 'run'
    killed = mim.start(*mim.train(10_000))
    deadline = time.time() + 240
    while not (checkpoints / 'last_checkpoint').is_file():
        assert killed.poll() is None, mim.log.read_text()
        assert time.time() < deadline
        time.sleep(0.2)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    last = int((checkpoints / 'last_checkpoint').read_text().rsplit('iter_', 1)[1][:-4])

    code, output = mim.run(*mim.train(last + 2), '--resume')
    assert code == 0, output
    assert 'resumed epoch' in output
    steps = [row['iter'] for row in mim.scalars() if 'loss' in row]
    assert steps[-2:] == [last + 1, last + 2]  # went on, did not start again
    rows = [row for row in mim.scalars() if 'pck@.05/PCK' in row]
    assert 0 <= rows[-1]['pck@.05/PCK'] <= 1

    checkpoint = checkpoints / f'iter_{last + 2}.pth'
    code, output = mim.run(
        'test', 'mmpose', mim.config, '--checkpoint', checkpoint, '--work-dir', mim.folder / 'test'
    )
    assert code == 0, output
    assert f'pck@.05/PCK: {rows[-1]["pck@.05/PCK"]:.4f}' in output


def test_missing_data_stop_before_training_with_the_next_step(mim, tmp_path):
    mim.env['MMLOSS_DATA'], data = str(tmp_path / 'nowhere'), mim.env['MMLOSS_DATA']
    code, output = mim.run(*mim.train(2))
    mim.env['MMLOSS_DATA'] = data
    assert code != 0
    assert f"data_root='{tmp_path}/nowhere/figures' must be a folder with annotations/" in output
    assert 'Write it with: python -m mmloss_plugins.datasets.figures' in output


def test_misspelt_argument_in_the_config_is_named(mim):
    code, output = mim.run(*mim.train(2, 'model.head.loss.betta=2.0'))
    assert code != 0
    assert 'KLDiscretLoss: argument must be one of beta, label_softmax' in output
    assert "got 'betta'. Did you mean 'beta'?" in output


def test_misspelt_codec_argument_is_named(mim):
    code, output = mim.run(*mim.train(2, 'model.head.decoder.sgima=2.0'))
    assert code != 0
    assert "got 'sgima'. Did you mean 'sigma'?" in output
