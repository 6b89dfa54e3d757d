"""Every full config of CenterNet and ExtremeNet loads, builds, takes a step and predicts.

They read generated digits, first at full size through the whole pipeline, then at a quarter of it
for the step. The hourglass is thin there; at its real size it takes one step.
"""

from __future__ import annotations

import copy
import re

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.hub import get_config
from mmengine.registry import init_default_scope

from tests.test_configs.detection_cases import (
    FULL,
    build_model,
    check_predictions,
    differing,
    load,
    predicted,
    quarter,
    read,
    samples_of,
    step,
    with_peaks,
    without_scopes,
)

NAME = re.compile(
    r'(?P<method>centernet|extremenet)(-(?P<variant>[a-z-]+))?'
    r'_(?P<network>r18|r101|hourglass104)(?P<dcn>-dcnv2)?_(adam-)?'
    r'(?P<gpus>\d+)xb(?P<batch>\d+)-crop(?P<side>\d+)-(?P<length>\d+)(?P<unit>e|k)_coco'
)
SWITCH = 'centernet-switch_r18-dcnv2_8xb16-crop512-140e_coco'
HOURGLASS = 'extremenet_hourglass104_8xb3-crop511-250k_coco'
UPSTREAM = 'mmdet::centernet/centernet_r18-dcnv2_8xb16-crop512-140e_coco.py'
THIN = dict(stage_channels=(16,) * 6, stage_blocks=(1,) * 6)


@pytest.mark.parametrize('name', FULL)
def test_pipelines_give_the_size_of_the_paper(name, digits):
    config, side = load(name), int(NAME.fullmatch(name)['side'])
    for sample in samples_of(config.train_dataloader, digits, 'train'):
        instances = sample['data_samples'].gt_instances
        assert sample['inputs'].shape == (3, side, side)
        boxes = getattr(instances.bboxes, 'tensor', instances.bboxes)
        assert ((boxes >= 0) & (boxes <= side)).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        if name.startswith('extremenet'):
            points = instances.extreme_points
            assert points.shape == (len(boxes), 4, 2)
            # Of the visible part of an object, so within its box but for a pixel of rounding.
            slack = 1 + side / 306
            low, high = boxes[:, None, :2] - slack, boxes[:, None, 2:] + slack
            assert ((points >= low) & (points <= high)).all()
    pad = 127 if 'hourglass' in name or name.startswith('extremenet') else 31
    for sample in samples_of(config.val_dataloader, digits, 'val'):
        expected = (128 | pad) + name.startswith('centernet')
        assert sample['inputs'].shape == (3, expected, expected)


@pytest.mark.parametrize('name', FULL)
def test_full_config_takes_a_step_and_predicts(name, digits):
    config = load(name)
    if 'hourglass' in name:
        config.model.backbone.update(THIN)
        config.model.test_cfg.size_divisor = 32
    model = build_model(config)
    stacks = 2 if 'hourglass' in name else 1
    assert len(model.bbox_head.stacks) == stacks
    for loader in (config.train_dataloader, config.val_dataloader):
        dataset = loader.dataset.get('dataset', loader.dataset)
        dataset.pipeline = quarter(dataset.pipeline)
    terms = step(model, samples_of(config.train_dataloader, digits, 'train'))
    assert len(terms) == (3 if name.startswith('centernet') else 9)
    found = predicted(with_peaks(model), samples_of(config.val_dataloader, digits, 'val', 1))
    check_predictions(found, 128)
    if 'octagon' in name:
        assert found[0].masks.shape == (len(found[0]), 128, 128)


@pytest.fixture(scope='module')
def hourglass_104():
    return MODELS.build(load(HOURGLASS).model.backbone)


@pytest.mark.parametrize('name', [HOURGLASS, 'centernet_hourglass104_adam-8xb3-crop512-50e_coco'])
def test_hourglass_104_takes_a_step(name, hourglass_104, digits):
    config = load(name)
    assert config.model.backbone == load(HOURGLASS).model.backbone
    config.model.backbone.update(THIN)
    model = build_model(config)
    model.backbone = hourglass_104
    hourglass_104.zero_grad()
    assert sum(p.numel() for p in hourglass_104.parameters()) > 180e6
    loader = config.train_dataloader
    loader.dataset.pipeline = quarter(loader.dataset.pipeline)
    step(model, samples_of(loader, digits, 'train'))


@pytest.mark.parametrize('name', FULL)
def test_full_size_gives_the_maps_of_the_paper(name):
    """Shapes alone, without memory or arithmetic."""
    config, said = load(name), NAME.fullmatch(name)
    side = int(said['side'])
    # Deformable convolutions have no arithmetic without memory; their maps are as large.
    config.model.neck = config.model.neck and {**config.model.neck, 'use_dcn': False}
    if said['network'] == 'hourglass104':
        config.model.backbone.update(THIN)
    model = build_model(config).to('meta')
    with torch.device('meta'):
        (stacks,) = model.bbox_head(model.extract_feat(torch.zeros(2, 3, side, side)))
    assert len(stacks) == (2 if said['network'] == 'hourglass104' else 1)
    maps = stacks[-1] if said['method'] == 'centernet' else stacks[-1]['center']
    assert maps['heatmap'].shape == (2, 80, 128, 128)
    if said['method'] == 'extremenet':
        channels = 1 if said['variant'] == 'agnostic' else 80
        assert stacks[-1]['top']['heatmap'].shape == (2, channels, 128, 128)


@pytest.mark.parametrize('name', [name for name in FULL if name != SWITCH])
def test_is_what_its_name_says(name):
    config, said = load(name), NAME.fullmatch(name)
    backbone, head = config.model.backbone, config.model.bbox_head
    heads = {'centernet': 'CenterNetHead', 'extremenet': 'ExtremeNetHead'}
    assert head.type == f'mmloss_plugins.{heads[said["method"]]}'
    if said['network'] == 'hourglass104':
        assert (backbone.type, backbone.num_stacks, head.num_stacks) == ('HourglassNet', 2, 2)
    else:
        assert backbone.depth == int(said['network'][1:])
        assert backbone.init_cfg.checkpoint == f'torchvision://resnet{backbone.depth}'
        assert config.model.neck.use_dcn is bool(said['dcn'])
    assert config.train_dataloader.batch_size == int(said['batch'])
    images = int(said['batch']) * int(said['gpus'])
    assert config.auto_scale_lr.base_batch_size == images
    # lr per image of the authors' tables: 5e-4 / 114, 3.75e-4 / 96; the hourglass has 2.5e-4 / 24.
    lr = {112: 5e-4, 96: 3.75e-4, 24: 2.5e-4}[images]
    assert config.optim_wrapper.optimizer == dict(type='Adam', lr=lr)
    (schedule,) = config.param_scheduler
    assert schedule.type == 'MultiStepLR'
    length = int(said['length'])
    if said['unit'] == 'e':
        assert config.train_cfg.max_epochs == length == schedule.end
        assert schedule.milestones == ([40] if length == 50 else [90, 120])
    else:
        assert config.train_cfg.max_iters == 1000 * length == schedule.end
        assert schedule.milestones == ([200000] if length == 250 else [94500, 126000])
    assert config.custom_hooks[0].type == 'mmloss_plugins.RequireDataHook'
    assert config.test_evaluator == config.val_evaluator
    assert config.test_dataloader == config.val_dataloader


@pytest.mark.parametrize('name', [name for name in FULL if name != SWITCH])
def test_variants_differ_in_what_their_name_says(name):
    said = NAME.fullmatch(name)
    if said['variant'] is None:
        return
    paths = {
        'flip': {'model.test_cfg.flip_test'},
        'mstest': {'model.test_cfg.flip_test', 'model.test_cfg.scales', 'model.test_cfg.nms'},
        'radius-mmdet': {'model.bbox_head.radius_impl'},
        'mse': {'model.bbox_head.prior_prob', 'model.bbox_head.loss'},
        'octagon': {
            'model.test_cfg.octagon_masks',
            'val_evaluator.metric',
            'test_evaluator.metric',
        },
        'agnostic': {'model.bbox_head.class_agnostic'},
    }[said['variant']]
    if name.startswith('extremenet-mstest'):
        paths = {'model.test_cfg.scales'}
    plain = load(name.replace(f'-{said["variant"]}', '', 1)).to_dict()
    changed = differing(load(name).to_dict(), plain)
    # Names that a config gives to its parts.
    assert changed - {'nms', 'loss', 'heatmap_loss'} == paths


def test_the_switch_changes_the_head_alone():
    upstream = get_config(UPSTREAM).to_dict()
    switch = without_scopes(read(SWITCH).to_dict())
    changed = differing(switch, upstream)
    assert {path for path in changed if not path.startswith('model.bbox_head.')} == {
        'custom_imports'
    }
    ours, theirs = switch['model']['bbox_head'], upstream['model']['bbox_head']
    assert ours == dict(
        type='mmloss_plugins.CenterNetHead',
        **{key: theirs[key] for key in ('num_classes', 'in_channels', 'feat_channels')},
    )


def test_a_checkpoint_of_mmdet_predicts_the_same_behind_the_switch(digits):
    upstream = get_config(UPSTREAM)
    init_default_scope('mmdet')
    upstream.model.backbone.init_cfg = None
    theirs = MODELS.build(upstream.model)
    theirs.init_weights()
    ours = build_model(load(SWITCH))
    loaded = ours.load_state_dict(theirs.state_dict())
    assert loaded.missing_keys == loaded.unexpected_keys == []
    samples = samples_of(load(SWITCH).val_dataloader, digits, 'val', 1)
    (expected,) = predicted(theirs.eval(), copy.deepcopy(samples))
    (found,) = predicted(ours.eval(), samples)
    torch.testing.assert_close(found.scores, expected.scores)
    torch.testing.assert_close(found.bboxes, expected.bboxes, rtol=0, atol=1e-3)
    assert (found.labels == expected.labels).all()


def test_boxes_without_area_do_not_make_the_scores_nan(digits):
    """Soft-NMS of two of them at one place divides 0 by 0."""
    config = load('centernet-mstest_r18-dcnv2_adam-4xb28-crop512-140e_coco')
    model = with_peaks(build_model(config))
    sizes = model.bbox_head.stacks[0]['size_wh'][-1]
    torch.nn.init.zeros_(sizes.weight)
    torch.nn.init.zeros_(sizes.bias)
    config.val_dataloader.dataset.pipeline = quarter(config.val_dataloader.dataset.pipeline)
    (found,) = predicted(model, samples_of(config.val_dataloader, digits, 'val', 1))
    assert len(found) == 0
    torch.nn.init.constant_(sizes.bias, 4.0)
    (found,) = predicted(model, samples_of(config.val_dataloader, digits, 'val', 1))
    assert len(found) == 100
    assert torch.isfinite(found.scores).all()
