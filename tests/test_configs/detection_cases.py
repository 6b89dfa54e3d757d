"""What the tests of the detection configs share: loading, small pipelines, steps, differences."""

from __future__ import annotations

import copy
import functools
from pathlib import Path

import pytest
import torch
from mmdet.registry import DATASETS, MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope

FOLDER = Path(__file__).parents[2] / 'configs' / 'detection'
CONFIGS = {
    file.stem: file
    for method in ('centernet', 'extremenet')
    for file in sorted((FOLDER / method).glob('*.py'))
}
FULL = [name for name in CONFIGS if name.endswith('coco')]
MINIS = [name for name in CONFIGS if '_mini_' in name]
SIZES = ('crop_size', 'scale', 'size')


def load(name):
    register_all_modules(init_default_scope=False)
    config = copy.deepcopy(read(name))
    init_default_scope('mmdet')
    return config


@functools.cache
def read(name):
    return Config.fromfile(CONFIGS[name])


def quarter(node):
    """The same pipeline at a quarter of the size."""
    if isinstance(node, dict):
        return {key: quarter_entry(key, value) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return type(node)(quarter(each) for each in node)
    return node


def quarter_entry(key, value):
    if key in SIZES:
        return tuple(length // 4 for length in value)
    if key == 'test_pad_mode' and value:
        return (value[0], 31)
    return quarter(value)


def samples_of(loader, digits, split, number=2):
    """The first samples of a loader that reads the generated digits."""
    dataset = copy.deepcopy(loader.dataset)
    while 'dataset' in dataset:  # RepeatDataset
        dataset = dataset.dataset
    classes = dataset.get('metainfo', {}).get('classes', tuple('0123456789'))
    dataset.update(
        data_root=str(digits),
        ann_file=f'annotations/digits_{split}.json',
        data_prefix=dict(img=f'images/{split}/'),
        metainfo=dict(classes=tuple('0123456789')[: len(classes)]),
    )
    built = DATASETS.build(dataset)
    return [built[index] for index in range(number)]


def build_model(config):
    config.model.backbone.init_cfg = None  # pretrained weights would be downloaded
    if config.model.bbox_head.type == 'mmloss_plugins.ExtremeNetHead':
        # Untrained maps lie at the prior of 0.1, which is the threshold.
        config.model.test_cfg.update(point_thr=0.0, center_thr=0.0)
    model = MODELS.build(config.model)
    model.init_weights()
    return model


def with_peaks(model):
    """The model with maps that an untrained one lacks, in which boxes are found.

    Untrained maps are flat, so that every cell ties, and classes rarely agree on four points: here
    maps vary, the first class stands out, and boxes have a size of four cells. Still in training
    mode: after one step the running statistics are not those of any data.
    """
    for conv in model.bbox_head.modules():
        if isinstance(conv, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(conv.weight)
    for key, bias in model.bbox_head.named_parameters():
        if not key.endswith('2.bias'):
            continue
        if 'heatmap' in key:
            bias.data[1:] -= 20
        if 'size_wh' in key or 'wh_head' in key:
            torch.nn.init.constant_(bias, 4.0)
    return model


def step(model, samples):
    """Return the terms of the loss after a backward pass."""
    batch = model.data_preprocessor(pseudo_collate(samples), True)
    total, log = model.parse_losses(model(**batch, mode='loss'))
    total.backward()
    terms = {key: value.item() for key, value in log.items() if key.startswith('loss_')}
    assert 0 < total < float('inf')
    # The sum that is minimised holds every term once and no diagnostic.
    assert total.item() == pytest.approx(sum(terms.values()))
    without = [key for key, p in model.named_parameters() if p.grad is None]
    # MMDetection's single hourglass has a connection to a next one, which is not there.
    assert [key for key in without if not key.startswith('backbone.inters.')] == []
    return terms


def predicted(model, samples):
    with torch.no_grad():
        return [each.pred_instances for each in model.test_step(pseudo_collate(samples))]


def check_predictions(found, side, most=100):
    for instances in found:
        assert 0 < len(instances) <= most
        centres = instances.bboxes.unflatten(-1, (2, 2)).mean(-2)
        assert torch.isfinite(instances.bboxes).all()
        assert ((centres > -side) & (centres < 2 * side)).all()
        assert (instances.scores.diff() <= 0).all()
        assert (instances.labels >= 0).all()


def without_scopes(node):
    """What MMEngine adds to each part that comes from the config of another package."""
    if isinstance(node, dict):
        return {key: without_scopes(value) for key, value in node.items() if key != '_scope_'}
    if isinstance(node, (list, tuple)):
        return type(node)(without_scopes(each) for each in node)
    return node


def differing(one, other, path=''):
    """The paths at which two configs differ."""
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return set() if one == other else {path}
    keys = [*one, *(key for key in other if key not in one)]
    found = [differing(one.get(key), other.get(key), f'{path}.{key}'.strip('.')) for key in keys]
    return set().union(*found)
