"""The minis on digits: each trains and validates; what they differ in; the recipe and its lack."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS
from mmengine.runner import Runner
from torch import nn

FOLDER = Path(__file__).parents[2] / 'configs' / 'recognition' / 'digits'
CONFIGS = {file.stem: file for file in sorted(FOLDER.glob('*.py'))}
SUFFIX = '_mini_lenet_digits-2d'
# Config -> the one that it is compared with, and the options of the model that differ.
TWINS = {
    'label-smooth': ('softmax', {'head.loss'}),
    'center': ('softmax', {'aux_losses'}),
    'center-frobenius': (
        'center',
        {'aux_losses.center.distance', 'aux_losses.center.loss_weight'},
    ),
    'softmax-bn': ('softmax', {'neck.output_norm'}),
    'normface-bare': ('normface', {'backbone.norm', 'neck.output_norm', 'head.weight_init'}),
    'arcface-bare': (
        'arcface',
        {'backbone.norm', 'neck.output_norm', 'head.weight_init', 'head.margin', 'head.rule'},
    ),
}


def load(name):
    return Config.fromfile(CONFIGS[name]).to_dict()


def build(name):
    torch.manual_seed(0)
    model = MODELS.build(load(name)['model'])
    model.init_weights()
    return model


def differences(ours, other, prefix=''):
    """Return the dotted names of what two nested dicts do not share."""
    found = set()
    for key in ours.keys() | other.keys():
        a, b = ours.get(key), other.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found |= differences(a, b, f'{prefix}{key}.')
        elif a != b:
            found.add(f'{prefix}{key}')
    return found


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
            'custom_hooks.1.interval': 1,
            'train_dataloader.batch_size': 8,
            'val_dataloader.dataset.per_class': 3,
        }
    )
    Runner.from_cfg(config).train()
    (file,) = tmp_path.glob('*/vis_data/scalars.json')
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    terms = {key for key in rows[0] if key.startswith('loss_')}
    assert terms == ({'loss_cls', 'loss_center'} if 'center' in name else {'loss_cls'})
    assert rows[0]['loss'] == pytest.approx(sum(rows[0][key] for key in terms), rel=1e-3)
    assert rows[0]['loss'] > 0
    last = rows[-1]
    assert 0 <= last['class/accuracy'] <= 1
    assert 0 < last['spread/angle'] < 180
    assert last['spread/distance'] > 0
    assert 0 <= last['calibration/ece'] <= 1
    assert 0.1 <= last['calibration/confidence'] <= 1
    assert math.isfinite(last['calibration/nll'])


@pytest.mark.parametrize(('name', 'twin', 'options'), [(k, *v) for k, v in TWINS.items()])
def test_twins_differ_in_nothing_else(name, twin, options):
    ours, other = load(name + SUFFIX), load(twin + SUFFIX)
    assert differences(ours, other) == {f'model.{option}' for option in options}


def test_modified_softmax_is_normface_with_the_length_of_the_embedding():
    ours, other = (load(name + SUFFIX) for name in ('modified-softmax', 'normface'))
    expected = {'model.head.type', 'model.head.scale', 'model.neck.output_norm'}
    assert differences(ours, other) == expected


def test_the_classifier_that_has_to_grow_learns_faster_and_does_not_decay():
    config = Config.fromfile(CONFIGS[f'center{SUFFIX}'])
    model = build(f'center{SUFFIX}')
    optimizer = build_optim_wrapper(model, config.optim_wrapper).optimizer
    rates = {id(g['params'][0]): (g['lr'], g['weight_decay']) for g in optimizer.param_groups}
    for parameter in (model.head.weight, model.aux_losses['center'].centers):
        assert rates[id(parameter)] == (pytest.approx(0.05), 0)
    assert rates[id(model.neck.fc.weight)] == (pytest.approx(0.005), pytest.approx(1.0))


def test_smoothing_alone_differs_at_64_dimensions():
    none, more, less = (
        load(f'{n}_mini_lenet_digits-64d') for n in ('softmax', 'label-smooth', 'label-smooth-0.02')
    )
    assert differences(more, none) == {'model.head.loss'}
    assert differences(more, less) == {'model.head.loss.smoothing'}
    assert none['optim_wrapper']['optimizer']['weight_decay'] == 0
    # A batch is the whole set.
    data = none['train_dataloader']
    assert data['batch_size'] == 10 * data['dataset']['per_class']


def test_sphere_heads_start_on_a_circle_around_the_origin():
    for name in ('normface', 'arcface'):
        model = build(name + SUFFIX)
        lengths = model.head.weight.norm(dim=1)
        torch.testing.assert_close(lengths, torch.ones(10))
        nearest = (model.head.weight @ model.head.weight.T).fill_diagonal_(-1).amax(1)
        torch.testing.assert_close(nearest, torch.full((10,), math.cos(math.tau / 10)))
        x = model.extract_feat(16 * torch.rand(64, 1, 8, 8))
        assert x.shape == (64, 2)
        torch.testing.assert_close(x.mean(0), torch.zeros(2), atol=1e-4, rtol=0)
        torch.testing.assert_close(x.var(0, correction=0), torch.ones(2), atol=1e-2, rtol=0)


def test_bare_ones_have_no_batch_norm_no_warm_up_and_no_rule():
    for name in ('normface-bare', 'arcface-bare'):
        model = build(name + SUFFIX)
        assert not any(isinstance(each, nn.modules.batchnorm._NormBase) for each in model.modules())
        lengths = model.head.weight.norm(dim=1)
        assert lengths.max() > 1.1 * lengths.min()
    assert model.head.margins() == (1.0, 0.5, 0.0)
    assert model.head.rule_beyond_pi() == 'off'


def test_margin_grows_over_the_first_part_of_the_run():
    config = load(f'arcface{SUFFIX}')
    margin = config['model']['head']['margin']
    assert (margin['start'], margin['stop'], margin['by_epoch']) == (0.0, 0.5, False)
    assert margin['end'] == 0.4 * config['train_cfg']['max_iters']


def test_schedules_end_with_the_run():
    for name in CONFIGS:
        config = load(name)
        assert config['param_scheduler'][0]['T_max'] == config['train_cfg']['max_iters']
        assert config['train_cfg']['max_iters'] % config['train_cfg']['val_interval'] == 0


def test_unsquared_centre_loss_is_that_of_the_write_up():
    loss = build(f'center-frobenius{SUFFIX}').aux_losses['center']
    features, labels = torch.randn(8, 2), torch.randint(10, (8,))
    nn.init.normal_(loss.centers)
    expected = 0.2 * features.dist(loss.centers[labels]) / (2 * len(features))
    torch.testing.assert_close(loss(features, labels), expected)


def test_readme_and_metafile_name_every_config():
    readme = (FOLDER / 'README.md').read_text()
    metafile = (FOLDER / 'metafile.yml').read_text()
    for name in CONFIGS:
        assert f'`{name}' in readme
        assert f'Config: configs/recognition/digits/{name}.py' in metafile
        assert name == name.lower()
