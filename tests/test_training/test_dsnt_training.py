"""``mim train`` of DSNT under autocast, in bfloat16 and in float16."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
import torch

from tests.mim import Mim

MINI = 'dsnt-js_mini_tiny-res_figures-56x56-7.py'
WRAPPERS = {
    'bfloat16': dict(type='AmpOptimWrapper', dtype='bfloat16'),
    'float16': dict(type='Float16OptimWrapper'),
}
# 32 images: four steps of 8 are an epoch.
EPOCHS, STEPS = 2, 4
# The schedule of the mini starts at a hundredth of its rate, too slow for a few steps.
CONFIG = """
_base_ = {base!r}
custom_imports = dict(
    imports=['mmloss_plugins', 'mmloss_plugins.compat', 'half_on_cpu'], allow_failed_imports=False
)
optim_wrapper = {wrapper!r}
param_scheduler = []
train_dataloader = dict(batch_size=8)
default_hooks = dict(logger=dict(interval=1))
"""


@pytest.fixture(scope='module', params=WRAPPERS)
def trained(request, tmp_path_factory, installed_wheel, figures):
    """Precision, log rows, output and checkpoint of a training in half precision."""
    folder = tmp_path_factory.mktemp('unrelated')
    mim = Mim(folder, installed_wheel, figures, 'mmpose', f'pose/dsnt/{MINI}')
    base = mim.config
    mim.config = mim.folder / 'half.py'
    mim.config.write_text(CONFIG.format(base=str(base), wrapper=WRAPPERS[request.param]))
    modules = mim.folder / 'modules'
    modules.mkdir()
    shutil.copy(Path(__file__).with_name('half_on_cpu.py'), modules)
    mim.env['PYTHONPATH'] += f':{modules}'
    arguments = ['train', 'mmpose', mim.config, '--work-dir', mim.folder / 'run']
    code, output = mim.run(*arguments, '--cfg-options', f'train_cfg.max_iters={STEPS * EPOCHS}')
    assert code == 0, output
    path = mim.folder / 'run' / f'iter_{STEPS * EPOCHS}.pth'
    return request.param, mim.scalars(), output, torch.load(path, weights_only=False)


def test_trains_in_that_precision(trained):
    precision, _, output, _ = trained
    assert f'in training, convolutions give torch.{precision}' in output


def test_every_loss_is_finite_and_falls(trained):
    _, rows, _, _ = trained
    steps = [row for row in rows if 'loss' in row]
    assert [row['iter'] for row in steps] == list(range(1, STEPS * EPOCHS + 1))
    for row in steps:
        assert math.isfinite(row['loss'])
        assert row['loss_coord'] > 0
        # A JS divergence in nats, weight 1.
        assert 0 < row['loss_js'] <= math.log(2)
        assert row['loss'] == pytest.approx(row['loss_coord'] + row['loss_js'], rel=1e-5)
    # Rows are means of all steps up to them.
    assert steps[-1]['loss'] < steps[0]['loss']


def test_every_parameter_is_finite_and_in_single_precision(trained):
    precision, _, _, checkpoint = trained
    weights = checkpoint['state_dict']
    assert len(weights) > 20
    for name, weight in weights.items():
        assert torch.isfinite(weight).all(), name
        assert weight.dtype == torch.float32 or 'num_batches' in name
    moments = [state['exp_avg'] for state in checkpoint['optimizer']['state'].values()]
    assert all(torch.isfinite(moment).all() for moment in moments)
    assert sum(bool(moment.any()) for moment in moments) > len(moments) / 2
    scale = checkpoint['optimizer']['loss_scaler'].get('scale')
    # Halved once for each step whose gradient does not fit into float16.
    assert (scale or 0) >= (2**10 if precision == 'float16' else 0)


def test_predictions_are_scored(trained):
    _, rows, _, _ = trained
    scores = [row['pck@.05/PCK'] for row in rows if 'pck@.05/PCK' in row]
    assert len(scores) == 1
    assert 0 <= scores[0] <= 1
