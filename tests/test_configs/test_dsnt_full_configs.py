"""The MPII configs of DSNT say what their names say, build, take a step and predict.

Inputs are shrunk to 64x64 pixels and maps in proportion, so that a step takes no minutes. Those on
COCO take their step in test_pose_configs.py; here is how they differ from MMPose's config.
"""

from __future__ import annotations

import copy
import functools
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.hub import get_config
from mmengine.registry import init_default_scope
from mmpose.registry import DATASETS, MODELS
from mmpose.utils import register_all_modules

FOLDER = Path(__file__).parents[2] / 'configs' / 'pose' / 'dsnt'
CONFIGS = {file.stem: file for file in sorted(FOLDER.glob('*mpii*.py'))}
NAME = re.compile(
    r'(?P<method>td-hm|td-fc|dsnt)(-(?P<variant>.+))?'
    r'_(res(?P<depth>\d+)-d(?P<dilated>\d)|hg(?P<stacks>\d))'
    r'_1xb(?P<batch>\d+)-120e_mpii-(?P<side>224|256)x\d+'
)
NORMALIZATIONS = {
    'tsoftmax': 'thresholded_softmax',
    'abs': 'abs',
    'relu': 'relu',
    'sigmoid': 'sigmoid',
}
TERMS = {
    'js': 'HeatmapJSLoss',
    'kl': 'HeatmapKLLoss',
    'mse': 'HeatmapMSERegLoss',
    'var': 'HeatmapVarianceLoss',
}
ON_COCO = 'res50_8xb64-210e_coco-256x256.py'
UPSTREAM = (
    'mmpose::body_2d_keypoint/integral_regression/coco/ipr_res50_dsnt-8xb64-210e_coco-256x256.py'
)
# Values of the same options, and sizes of the same networks: they run no code that others do not.
BUILT_ONLY = re.compile(r'lambda-\d+_|sigma-[24]_|_res101|_res(18|50)-d[23]|_hg[48]_')
SMALL = 64


def load(name):
    register_all_modules(init_default_scope=False)
    cfg = copy.deepcopy(read(name))
    init_default_scope(cfg.default_scope)
    return cfg


@functools.cache
def read(name):
    return Config.fromfile(CONFIGS[name])


def shrunk(node, side):
    """The same config for 64x64 pixels; the sizes of maps keep their share of the input."""
    if isinstance(node, dict):
        return {key: shrunk_entry(key, value, side) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return type(node)(shrunk(each, side) for each in node)
    return node


def shrunk_entry(key, value, side):
    if key in ('input_size', 'heatmap_size'):
        return tuple(length * SMALL // side for length in value)
    return shrunk(value, side)


def annotate(figures, split):
    """Write annotations as MPII has them for the pictures of a split; return the file."""
    random = np.random.default_rng(0)
    found = json.loads((figures / f'annotations/figures_{split}.json').read_text())
    sizes = {image['file_name']: (image['width'], image['height']) for image in found['images']}
    annotations = [
        dict(
            image=name,
            center=[size[0] / 2, size[1] / 2],
            scale=max(size) / 200,
            joints=(random.uniform(0.2, 0.8, (16, 2)) * size).tolist(),
            joints_vis=[0] + [1] * 15,
        )
        for name, size in sizes.items()
    ]
    name = f'annotations/mpii_{split}.json'
    (figures / name).write_text(json.dumps(annotations))
    return name


def two_samples(loader, figures, split):
    dataset = loader.dataset
    dataset.update(
        data_root=str(figures),
        ann_file=annotate(figures, split),
        data_prefix=dict(img=f'images/{split}/'),
        headbox_file=None,
    )
    built = DATASETS.build(dataset)
    return pseudo_collate([built[0], built[1]])


@pytest.mark.parametrize('name', [name for name in CONFIGS if not BUILT_ONLY.search(name)])
def test_takes_a_step_and_predicts(name, figures):
    config = Config(shrunk(load(name).to_dict(), int(NAME.fullmatch(name)['side'])))
    config.model.backbone.init_cfg = None  # pretrained weights would be downloaded
    model = MODELS.build(config.model)
    batch = two_samples(config.train_dataloader, figures, 'train')
    batch = model.data_preprocessor(batch, True)
    assert batch['inputs'].shape == (2, 3, SMALL, SMALL)
    total, log = model.parse_losses(model(**batch, mode='loss'))
    total.backward()
    terms = [value.item() for key, value in log.items() if key.startswith('loss_')]
    assert total.item() == pytest.approx(sum(terms))
    assert 0 < total < float('inf')
    without = {key for key, p in model.named_parameters() if p.grad is None}
    # MMPose's hourglass builds one connection between stacks too many where there is one stack.
    assert {key for key in without if not key.startswith('backbone.inters.')} == set()

    model.eval()
    samples = two_samples(config.val_dataloader, figures, 'val')
    with torch.no_grad():
        predictions = model.test_step(samples)
    for prediction in predictions:
        keypoints = prediction.pred_instances.keypoints
        centre, scale = prediction.metainfo['input_center'], prediction.metainfo['input_scale']
        assert keypoints.shape == (1, 16, 2)
        # MMPose decodes a map without a positive value as cell -1; the maps may be 2x2.
        over = 1 / 2 if name.startswith('td-hm') else 0
        assert (np.abs(keypoints - centre) <= scale * (1 / 2 + over)).all()
        assert np.isfinite(prediction.pred_instances.keypoint_scores).all()


@pytest.mark.parametrize('name', CONFIGS)
def test_is_what_its_name_says(name):
    config = load(name)
    said = NAME.fullmatch(name)
    backbone, head = config.model.backbone, config.model.head
    assert config.train_dataloader.batch_size == int(said['batch'])
    assert config.auto_scale_lr.base_batch_size == int(said['batch'])
    assert config.train_cfg.max_epochs == 120
    assert config.param_scheduler[0].milestones == [60, 90]
    assert config.optim_wrapper.optimizer == dict(type='RMSprop', lr=2.5e-4)
    assert config.custom_hooks[1].type == 'mmloss_plugins.RequireDataHook'
    assert config.model.test_cfg.flip_test is True
    # MMPose's grid of heatmaps does not mirror onto itself; cell centres do.
    assert config.model.test_cfg.get('shift_heatmap', False) is (said['method'] == 'td-hm')
    if said['stacks']:
        assert backbone.num_stacks == head.num_stages == int(said['stacks'])
    else:
        depth, dilated = int(said['depth']), int(said['dilated'])
        assert (backbone.depth, backbone.dilated_stages) == (depth, dilated)
        assert backbone.init_cfg.checkpoint == f'torchvision://resnet{depth}'
        assert head.in_channels == (512 if depth < 50 else 2048)
        maps = head.decoder.get('heatmap_size', head.get('heatmap_size', (7 * 2**dilated,) * 2))
        assert tuple(maps) == (7 * 2**dilated,) * 2


@pytest.mark.parametrize('name', CONFIGS)
def test_codecs_agree(name):
    config = load(name)
    side = (int(NAME.fullmatch(name)['side']),) * 2
    train, val = config.train_dataloader.dataset, config.val_dataloader.dataset
    assert train.pipeline[-2].encoder == config.model.head.decoder
    sizes = [
        step.input_size for split in (train, val) for step in split.pipeline if 'input_size' in step
    ]
    assert [tuple(size) for size in sizes] == [side, side]
    assert tuple(config.model.head.decoder.input_size) == side


@pytest.mark.parametrize('name', [name for name in CONFIGS if name.startswith('dsnt')])
def test_terms_are_what_the_name_says(name):
    variant = NAME.fullmatch(name)['variant'] or ''
    head = load(name).model.head
    kind, _, option = variant.partition('-')
    assert list(head.loss.terms) == ['coord', *([kind] if kind else [])]
    assert head.get('normalization', 'softmax') == NORMALIZATIONS.get(option, 'softmax')
    if not kind:
        return
    term = head.loss.terms[kind]
    assert term.type == f'mmloss_plugins.{TERMS[kind]}'
    what, _, value = option.partition('-')
    assert term.sigma_px == (float(value) if what == 'sigma' else 1.0)
    assert head.loss.get('weights', {}) == ({'js': float(value)} if what == 'lambda' else {})
    assert term.get('loss_weight', 1.0) == (100.0 if kind == 'var' else 1.0)
    assert term.get('unit') == ('normalized' if kind == 'var' else None)


@pytest.mark.parametrize('name', CONFIGS)
def test_full_size_gives_the_maps_of_the_paper(name):
    """Shapes alone, without memory or arithmetic."""
    config = load(name)
    said = NAME.fullmatch(name)
    config.model.backbone.init_cfg = None
    with torch.device('meta'):
        model = MODELS.build(config.model)
        feats = model.extract_feat(torch.zeros(2, 3, int(said['side']), int(said['side'])))
        maps = model.head(feats) if said['method'] == 'td-hm' else model.head.logits(feats)
    if said['stacks']:
        assert len(feats) == int(said['stacks'])
        maps = maps[-1] if said['method'] == 'td-hm' else maps
    side = 64 if said['stacks'] else 7 * 2 ** int(said['dilated'])
    assert maps.shape == (2, 16, side, side)
    if said['method'] == 'td-fc':
        assert model.head.fc.in_features == side**2


def test_the_grids_of_the_paper_are_there():
    names = [NAME.fullmatch(name) for name in CONFIGS]
    assert all(names)
    grid = {
        (said['method'], said['variant'] or '', said['dilated'] or said['stacks'])
        for said in names
        if said['depth'] == '34' or said['stacks']
    }
    strategies = {('td-hm', ''), ('td-fc', ''), ('dsnt', ''), ('dsnt', 'js')}
    assert {(*each, d) for each in strategies for d in '0123'} <= grid
    stacked = strategies - {('td-fc', '')}
    assert {(*each, n) for each in stacked for n in '1248'} <= grid
    depths = {(said['depth'], said['dilated']) for said in names if said['variant'] == 'js'}
    assert {(depth, d) for depth in ('18', '34', '50', '101') for d in '123'} <= depths


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


@pytest.fixture
def upstream():
    return get_config(UPSTREAM).to_dict()


def test_the_switch_is_two_lines(upstream):
    switch = without_scopes(Config.fromfile(FOLDER / f'dsnt-switch_{ON_COCO}').to_dict())
    assert differing(switch, upstream) == {'custom_imports', 'model.head.type', 'model.head.loss'}
    assert switch['model']['head']['type'] == 'mmloss_plugins.DSNTHead'
    assert switch['model']['head']['loss'] is None


def test_the_repair_changes_head_and_codec_alone(upstream):
    repair = Config.fromfile(FOLDER / f'dsnt-js_{ON_COCO}')
    changed = differing(without_scopes(repair.to_dict()), upstream)
    parts = {path for path in changed if not path.startswith(('model.head.', 'codec.'))}
    assert parts == {
        'custom_imports',
        'custom_hooks',
        'train_pipeline',
        'train_dataloader.dataset.pipeline',
    }
    steps = repair.train_dataloader.dataset.pipeline
    old = upstream['train_dataloader']['dataset']['pipeline']
    assert [each.type for each in steps] == [each['type'] for each in old]
    assert steps[-2].encoder == repair.model.head.decoder == repair.codec
