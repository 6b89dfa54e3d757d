"""Every config on few foreground pixels trains and validates; twins differ in one thing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.runner import Runner

FOLDER = Path(__file__).parents[2] / 'configs' / 'pose' / 'imbalance'
CONFIGS = {file.stem: file for file in sorted(FOLDER.glob('*.py'))}
TWINS = {
    'dots-focal_mini_fcn_178x133': 'dots-bce_mini_fcn_178x133',
    'stripes-ohem-dice_mini_fcn_96x96': 'stripes-bce_mini_fcn_96x96',
    'stripes-ohem_mini_fcn_96x96': 'stripes-bce_mini_fcn_96x96',
}
PRIORS = {
    'dots-focal-no-prior_mini_fcn_178x133': 'dots-focal_mini_fcn_178x133',
    'dots-bce-no-prior_mini_fcn_178x133': 'dots-bce_mini_fcn_178x133',
    'dots-bce-rate-prior_mini_fcn_178x133': 'dots-bce_mini_fcn_178x133',
    'stripes-bce-prior_mini_fcn_96x96': 'stripes-bce_mini_fcn_96x96',
    'stripes-ohem-prior_mini_fcn_96x96': 'stripes-ohem_mini_fcn_96x96',
}


def load(name):
    return Config.fromfile(CONFIGS[name]).to_dict()


@pytest.mark.parametrize('name', CONFIGS)
def test_trains_and_validates(name, tmp_path):
    config = Config.fromfile(CONFIGS[name])
    config.merge_from_dict(
        {
            'work_dir': str(tmp_path),
            # MMEngine keeps one visualizer per name, with the folder of the first run.
            'visualizer.name': str(tmp_path),
            'experiment_name': str(tmp_path).replace('/', '_'),
            'train_cfg.max_iters': 2,
            'train_cfg.val_interval': 2,
            'default_hooks.logger.interval': 1,
            'custom_hooks.0.interval': 1,
            'train_dataloader.dataset.num_images': 4,
            'val_dataloader.dataset.num_images': 2,
        }
    )
    Runner.from_cfg(config).train()
    (file,) = tmp_path.glob('*/vis_data/scalars.json')
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert all(row['loss'] == pytest.approx(row['loss_pixels'], rel=1e-3) for row in rows[:2])
    assert rows[0]['loss'] > 0
    assert 0 <= rows[-1]['pixel/AP'] <= 1
    assert {'pixel/F1', 'pixel/max_prob'} <= set(rows[-1])


@pytest.mark.parametrize(('name', 'twin'), TWINS.items())
def test_twins_differ_in_the_loss_alone(name, twin):
    ours, other = load(name), load(twin)
    assert ours['model'].pop('loss') != other['model'].pop('loss')
    assert ours == other


@pytest.mark.parametrize(('name', 'twin'), PRIORS.items())
def test_twins_differ_in_the_prior_alone(name, twin):
    ours, other = load(name), load(twin)
    assert ours['model'].pop('prior_prob', None) != other['model'].pop('prior_prob', None)
    assert ours == other


@pytest.mark.parametrize(
    ('name', 'twin'),
    [
        ('dots-bce_mini_fcn_178x133', torch.nn.functional.binary_cross_entropy_with_logits),
        ('stripes-bce_mini_fcn_96x96', torch.nn.functional.binary_cross_entropy_with_logits),
    ],
)
def test_bce_configs_have_the_value_of_pytorch(name, twin):
    loss = MODELS.build(load(name)['model']['loss'])
    logits, target = torch.randn(2, 1, 9, 11), torch.zeros(2, 1, 9, 11)
    target[:, :, 3, 4:6] = 1
    count = 4 if loss.mean_over == 'positives' else logits.numel()
    expected = twin(logits, target, reduction='sum') / count
    torch.testing.assert_close(loss(logits, target), expected)


def test_names_say_what_is_trained():
    for name, file in CONFIGS.items():
        data = load(name)['train_dataloader']['dataset']['type']
        assert name.split('-')[0] in data.lower()
        assert name == name.lower() == file.stem
