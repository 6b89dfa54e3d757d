"""Every config of FCOS and RetinaNet with our focal loss loads, builds, takes a step, predicts.

Backbones are thin and the pictures of COCO's pipelines small; at full size the detectors are built
once each, without memory.
"""

from __future__ import annotations

import copy
import functools
from pathlib import Path

import pytest
import torch
import yaml
from mmdet.registry import DATASETS, MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.hub import get_config
from mmengine.registry import init_default_scope
from torch.testing import assert_close

from mmloss_plugins.losses import SigmoidFocalLoss

FOLDER = Path(__file__).parents[2] / 'configs' / 'detection' / 'fcos'
CONFIGS = {file.stem: file for file in sorted(FOLDER.glob('*.py'))}
FULL = [name for name in CONFIGS if name.endswith('coco')]
MINIS = [name for name in CONFIGS if '_mini_' in name]
PLAIN = 'fcos_r50-caffe_fpn_gn-head'
IMPROVED = f'{PLAIN}-center-normbbox-centeronreg-giou'
END = '_8xb2-1x_coco'
# What stands where MMDetection's config has FocalLoss, and what else is different.
UPSTREAM = {
    f'{PLAIN}_focal{END}': (f'fcos/{PLAIN}_1x_coco', {'model.test_cfg.nms.iou_threshold'}),
    f'{IMPROVED}_focal{END}': (f'fcos/{IMPROVED}_1x_coco', set()),
    f'retinanet_r50_fpn_focal{END}': ('retinanet/retinanet_r50_fpn_1x_coco', set()),
}
# alpha and gamma of each name.
OPTIONS = {
    'focal': (0.25, 2.0),
    'focal-a0.75': (0.75, 2.0),
    'bce-a0.75': (0.75, 0.0),
    'bce-a0.25': (0.25, 0.0),
    'bce': (None, 0.0),
    'alpha75': (0.75, 0.0),
    'alpha25': (0.25, 0.0),
}


def load(name):
    register_all_modules(init_default_scope=False)
    config = copy.deepcopy(read(name))
    init_default_scope('mmdet')
    return config


@functools.cache
def read(name):
    return Config.fromfile(CONFIGS[name])


def batch_of(loader, digits, split):
    """Two samples of a loader that reads the generated digits."""
    dataset = copy.deepcopy(loader.dataset)
    dataset.update(
        data_root=str(digits),
        ann_file=f'annotations/digits_{split}.json',
        data_prefix=dict(img=f'images/{split}/'),
        metainfo=dict(classes=tuple('0123456789')),
    )
    for step in dataset.pipeline:
        if step.type == 'Resize':
            step.scale = (128, 96)
    built = DATASETS.build(dataset)
    return pseudo_collate([built[0], built[1]])


def build(name):
    """The model, with a thin backbone if it is that of the paper."""
    config = load(name)
    backbone, neck = config.model.backbone, config.model.neck
    backbone.init_cfg = None  # pretrained weights would be downloaded
    if backbone.depth == 50:
        backbone.base_channels = 8
        neck.in_channels = [32, 64, 128, 256]
    if config.model.bbox_head.num_classes < 10:
        config.model.bbox_head.num_classes = 10
    model = MODELS.build(config.model)
    model.init_weights()
    return config, model


@pytest.mark.parametrize('name', CONFIGS)
def test_takes_a_step_and_predicts(name, digits):
    config, model = build(name)
    loss = model.bbox_head.loss_cls
    assert type(loss) is SigmoidFocalLoss
    assert (loss.alpha, loss.gamma) == said_options(name)
    prior = model.bbox_head.retina_cls if 'retinanet' in name else model.bbox_head.conv_cls
    expected = 0.5 if 'no-prior' in name else 0.01
    assert_close(prior.bias.sigmoid(), torch.full_like(prior.bias, expected))
    assert len(prior.bias) == config.model.bbox_head.num_classes * (9 if 'retina' in name else 1)

    batch = model.data_preprocessor(batch_of(config.train_dataloader, digits, 'train'), True)
    total, log = model.parse_losses(model(**batch, mode='loss'))
    total.backward()
    terms = {key: value.item() for key, value in log.items() if key.startswith('loss_')}
    assert 0 < total < float('inf')
    assert total.item() == pytest.approx(sum(terms.values()))
    assert terms['loss_cls'] > 0
    assert [k for k, p in model.named_parameters() if p.requires_grad and p.grad is None] == []

    model.eval()
    model.bbox_head.test_cfg.score_thr = 0.0  # nothing is learned yet
    with torch.no_grad():
        found = model.test_step(batch_of(config.val_dataloader, digits, 'val'))
    for sample in found:
        boxes = sample.pred_instances.bboxes
        assert 0 < len(boxes) <= 100
        assert ((boxes >= 0) & (boxes <= 128.01)).all()
        assert (sample.pred_instances.labels < config.model.bbox_head.num_classes).all()


def said_options(name):
    variant = name.rsplit(END, 1)[0] if name in FULL else name.split('_')[0]
    variant = variant.rsplit('_', 1)[-1] if name in FULL else variant.split('-', 1)[1]
    for part in ('-no-prior', '-sparse', '-weight5'):
        variant = variant.replace(part, '')
    return OPTIONS[variant]


# --- the recipes on COCO ----------------------------------------------------------------------


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


@pytest.mark.parametrize('name', UPSTREAM)
def test_the_switch_is_the_type_of_the_loss(name):
    file, others = UPSTREAM[name]
    upstream = get_config(f'mmdet::{file}.py').to_dict()
    ours = without_scopes(load(name).to_dict())
    loss = 'model.bbox_head.loss_cls.type'
    assert differing(ours, upstream) == {loss, 'custom_imports', 'custom_hooks', *others}
    assert upstream['model']['bbox_head']['loss_cls']['type'] == 'FocalLoss'


@pytest.mark.parametrize('name', UPSTREAM)
def test_is_the_recipe_of_the_paper(name):
    config = load(name)
    head = config.model.bbox_head
    assert config.train_dataloader.batch_size == 2
    assert config.auto_scale_lr.base_batch_size == 16
    assert config.train_cfg.max_epochs == 12
    assert config.param_scheduler[1].milestones == [8, 11]
    optimizer = config.optim_wrapper.optimizer
    assert (optimizer.lr, optimizer.momentum, optimizer.weight_decay) == (0.01, 0.9, 1e-4)
    assert config.custom_hooks[0].type == 'mmloss_plugins.RequireDataHook'
    assert (head.stacked_convs, head.feat_channels, head.num_classes) == (4, 256, 80)
    if name.startswith('fcos'):
        assert config.model.test_cfg.nms.iou_threshold == 0.6
        assert config.model.test_cfg.score_thr == 0.05
        improved = 'giou' in name
        for option in ('center_sampling', 'norm_on_bbox', 'centerness_on_reg'):
            assert head.get(option, False) is improved
        assert head.loss_bbox.type == ('GIoULoss' if improved else 'IoULoss')


@pytest.mark.parametrize('name', UPSTREAM)
def test_full_size_has_the_levels_of_the_paper(name):
    """Shapes alone, without memory or arithmetic."""
    config = load(name)
    config.model.backbone.init_cfg = None
    with torch.device('meta'):
        model = MODELS.build(config.model)
        scores = model.bbox_head(model.extract_feat(torch.zeros(1, 3, 800, 1344)))[0]
    channels = 80 * (9 if name.startswith('retinanet') else 1)
    sides = [(100, 168), (50, 84), (25, 42), (13, 21), (7, 11)]
    assert [tuple(level.shape) for level in scores] == [(1, channels, *side) for side in sides]


@pytest.mark.parametrize('name', [name for name in FULL if name not in UPSTREAM])
def test_ablations_on_coco_differ_in_what_their_name_says(name):
    plain = load(f'{PLAIN}_focal{END}').to_dict()
    changed = differing(load(name).to_dict(), plain)
    if 'no-prior' in name:
        assert {path.rsplit('.', 1)[0] for path in changed} == {'model.bbox_head'}
        init = load(name).model.bbox_head.init_cfg
        assert init.override.pop('bias_prob') == 0.5
        # Otherwise it is that of FCOSHead itself.
        stock = load(f'{PLAIN}_focal{END}').model
        stock.backbone.init_cfg = None
        expected = copy.deepcopy(MODELS.build(stock).bbox_head.init_cfg)
        assert expected['override'].pop('bias_prob') == 0.01
        assert init.to_dict() == expected
        return
    options = {'model.bbox_head.loss_cls.alpha', 'model.bbox_head.loss_cls.gamma'}
    assert changed
    assert changed <= options


# --- the minis --------------------------------------------------------------------------------


@pytest.mark.parametrize('name', MINIS)
def test_minis_differ_in_what_their_name_says(name):
    method, network, data = name.split('_', 1)[0], 'mini_tiny-r18', name.rsplit('_', 1)[-1]
    focal = f'fcos-focal_{network}_{data}'
    paths = set()
    if 'no-prior' in method:
        paths.add('model.bbox_head.init_cfg.override.bias_prob')
    if 'sparse' in method:
        paths.add('model.bbox_head.center_sample_radius')
    if 'weight5' in method:
        paths.add('model.bbox_head.loss_cls.loss_weight')
        assert load(name).model.bbox_head.loss_cls.loss_weight == 5
    if 'focal' not in method:
        paths.add('model.bbox_head.loss_cls.gamma')
    if 'bce' in method or 'alpha75' in method:
        paths.add('model.bbox_head.loss_cls.alpha')
    assert differing(load(name).to_dict(), load(focal).to_dict()) == paths


def test_share_of_positives(digits):
    """What the README says of the two samplings, on the digits that are drawn in tests."""
    shares = {}
    for name in ('fcos-focal', 'fcos-focal-sparse'):
        config, model = build(f'{name}_mini_tiny-r18_digits-128x128')
        batch = model.data_preprocessor(batch_of(config.train_dataloader, digits, 'train'), True)
        objects = [sample.gt_instances for sample in batch['data_samples']]
        head = model.bbox_head
        sizes = [(128 // stride, 128 // stride) for stride in head.strides]
        points = head.prior_generator.grid_priors(sizes, device='cpu')
        labels = torch.cat(head.get_targets(points, objects)[0])
        shares[name] = (labels < 10).float().mean().item()
    assert 0.06 < shares['fcos-focal'] < 0.13
    assert 0.012 < shares['fcos-focal-sparse'] < 0.022


def test_metafile_lists_every_config():
    models = yaml.safe_load((FOLDER / 'metafile.yml').read_text())['Models']
    assert {model['Name']: model['Config'] for model in models} == {
        name: f'configs/detection/fcos/{name}.py' for name in CONFIGS
    }
    assert all(name == name.lower() for name in CONFIGS)
