"""The full setups of MNIST, faces and Market-1501: options, schedules, two steps on real files.

The files are generated in the layout of each data set; where the backbone is a ResNet-50 it is
thin there, and built once at its real size, without memory.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.registry import MODELS, PARAM_SCHEDULERS
from mmengine.runner import Runner
from torch.testing import assert_close

pytest.importorskip('mmdet')

from mmloss_plugins.losses import CenterLoss
from tests.identity_files import write_identities, write_market, write_mnist
from tests.test_configs.detection_cases import differing

ROOT = Path(__file__).parents[2] / 'configs' / 'recognition'
FOLDERS = {
    'mnist': (ROOT / 'mnist', 'MNIST'),
    'faces': (ROOT / 'faces', 'FACES'),
    'market1501': (ROOT / 'market1501', 'MARKET1501'),
}
CONFIGS = {
    path.stem: (path, kind, variable)
    for kind, (folder, variable) in FOLDERS.items()
    for path in sorted(folder.glob('*.py'))
}
MNIST = [name for name, (_, kind, _) in CONFIGS.items() if kind == 'mnist']
FACES = [name for name, (_, kind, _) in CONFIGS.items() if kind == 'faces']
MARKET = [name for name, (_, kind, _) in CONFIGS.items() if kind == 'market1501']
ARCFACE = 'arcface_r50_8xb128-20e_ms1mv3-112x112'
BNNECK = 'bnneck_r50_1xb64-120e_market1501-256x128'
CENTER = 'bnneck-center_r50_1xb64-120e_market1501-256x128'
LOSSES = {'arcface', 'center', 'label-smooth', 'modified-softmax', 'normface', 'softmax'}


def load(name, monkeypatch=None, root=None):
    path, _, variable = CONFIGS[name]
    if root is not None:
        monkeypatch.setenv(variable, str(root))
    return Config.fromfile(path)


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp('recognition')
    write_mnist(folder / 'mnist' / 'MNIST' / 'raw')
    write_identities(folder / 'faces' / 'train', identities=4, views=2)
    write_identities(folder / 'faces' / 'val', identities=3, views=3, first=20)
    write_market(folder / 'market1501')
    return folder


def small(config, kind, work_dir):
    """The config with two steps of small batches, a thin backbone and the identities of a test."""
    config.work_dir = str(work_dir)
    config.experiment_name = f'{work_dir.parent.name}-{work_dir.name}'
    config.randomness = dict(seed=0)
    config.default_hooks.logger.interval = 1
    for loader in (config.train_dataloader, config.val_dataloader):
        loader.num_workers = 0
        loader.pop('persistent_workers', None)
    if kind == 'mnist':
        config.train_dataloader.batch_size = 6
        config.train_cfg = dict(type='IterBasedTrainLoop', max_iters=2, val_interval=2)
        return config
    config.model.backbone.update(base_channels=8, stem_channels=8, init_cfg=None)
    config.model.neck.in_channels = 256
    config.model.head.num_classes = config.train_dataloader.dataset.num_classes = 4
    if 'center' in config.model.get('aux_losses', {}):
        config.model.aux_losses.center.num_classes = 4
    if kind == 'faces':
        config.train_dataloader.batch_size = 4
        config.train_cfg.max_epochs = 1
        # Half precision needs a GPU.
        assert config.optim_wrapper.pop('loss_scale') == 'dynamic'
        assert config.optim_wrapper.type == 'AmpOptimWrapper'
        config.optim_wrapper.type = 'OptimWrapper'
        return config
    config.model.head.in_channels = 256
    if 'center' in config.model.aux_losses:
        config.model.aux_losses.center.feat_dim = 256
    config.train_dataloader.dataset.triplet_sampler = dict(num_ids=3, ins_per_id=2)
    config.train_cfg.update(max_iters=2, val_interval=2)
    return config


@pytest.mark.parametrize('name', CONFIGS)
def test_trains_two_steps_and_validates_on_files(name, files, tmp_path, monkeypatch):
    kind = CONFIGS[name][1]
    config = small(load(name, monkeypatch, files / kind), kind, tmp_path / 'run')
    runner = Runner.from_cfg(config)
    before = {name: p.detach().clone() for name, p in runner.model.named_parameters()}
    log = []
    step = runner.model.train_step
    monkeypatch.setattr(
        runner.model, 'train_step', lambda *args, **kw: log.append(step(*args, **kw)) or log[-1]
    )
    model = runner.train()
    assert len(log) == 2
    expected = {'loss_cls'}
    expected |= {f'loss_{each}' for each in config.model.get('aux_losses', {})}
    assert {key for key in log[0] if key.startswith('loss_')} == expected
    assert all(math.isfinite(each['loss']) for each in log)
    assert log[0]['loss'].item() == pytest.approx(sum(log[0][key].item() for key in expected))
    unmoved = {
        key
        for key, value in model.named_parameters()
        if value.requires_grad and value.equal(before[key])
    }
    # The last BatchNorm of a residual block starts at 0 and hides what is before it for a step.
    assert not [key for key in unmoved if not key.startswith('backbone')]
    frozen = {key for key, value in model.named_parameters() if not value.requires_grad}
    assert frozen <= {'neck.norm.bias', 'neck.output_norm.weight'}
    values = runner.val_loop.run()
    assert {key.split('/')[0] for key in values} == {
        'mnist': {'class', 'spread'},
        'faces': {'verification'},
        'market1501': {'search'},
    }[kind]
    assert all(math.isfinite(value) for value in values.values())


@pytest.mark.parametrize('name', ['softmax_lenetpp_mnist-2d', ARCFACE, BNNECK])
def test_without_the_data_it_says_where_to_put_them(name, tmp_path, monkeypatch):
    _, kind, variable = CONFIGS[name]
    config = load(name, monkeypatch, tmp_path / 'nowhere')
    runner = Runner.from_cfg(small(config, kind, tmp_path / 'run'))
    with pytest.raises(FileNotFoundError, match=f'nowhere.*environment variable {variable} to'):
        runner.train()


# --- MNIST ------------------------------------------------------------------------------------


def test_the_six_losses_of_the_write_up():
    assert {name.split('_')[0] for name in MNIST} == LOSSES
    assert len(MNIST) == 6


@pytest.mark.parametrize('name', MNIST)
def test_lenetpp_by_the_schedule_of_the_authors(name):
    config = load(name)
    optimizer = config.optim_wrapper.optimizer
    assert optimizer == dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=5e-4)
    assert config.train_dataloader.batch_size == 128
    assert config.train_cfg.max_iters == 10000
    rates = rates_of(config.param_scheduler, 0.01, 10000)
    assert_close([rates[i] for i in (0, 4999, 5000, 7999, 8000, 9999)],
                 [0.01, 0.01, 0.008, 0.008, 0.0064, 0.0064])  # fmt: skip
    model = MODELS.build(config.model)
    pixels = model.data_preprocessor(dict(inputs=torch.tensor([[[[0.0, 255.0]]]])))['inputs']
    assert pixels.flatten().tolist() == [-127.5 / 128, 127.5 / 128]
    # 5x5 convolutions, a slope per channel, and 3 * 3 * 128 numbers to 2.
    channels = [(1, 32), (32, 32), (32, 64), (64, 64), (64, 128), (128, 128)]
    expected = sum(25 * i * o + o + o for i, o in channels)
    assert sum(p.numel() for p in model.backbone.parameters()) == expected == 795_296
    ip1 = 1152 * 2 + (4 if name.startswith('arcface') else 2)
    assert sum(p.numel() for p in model.neck.parameters()) == ip1
    # No bias: a weight of two numbers for each class.
    assert sum(p.numel() for p in model.head.parameters()) == 20
    assert model(torch.rand(2, 1, 28, 28)).shape == (2, 2)


@pytest.mark.parametrize('name', MNIST)
def test_heads_have_the_numbers_of_the_write_up(name):
    model = MODELS.build(load(name).model)
    kind, head = name.split('_')[0], model.head
    types = {
        'arcface': 'ArcFaceHead',
        'normface': 'NormFaceHead',
        'modified-softmax': 'ModifiedSoftmaxHead',
    }
    assert type(head).__name__ == types.get(kind, 'SoftmaxHead')
    if kind == 'normface':
        assert head.scale == 16
    if kind == 'arcface':
        assert (head.scale, max(head.margin.values_reached())) == (32, 0.5)
        assert_close(head.weight.norm(dim=1), torch.ones(10))
    if kind == 'label-smooth':
        assert (head.loss_module.smoothing, head.loss_module.spread) == (0.1, 'others')
    assert list(model.aux_losses) == (['center'] if kind == 'center' else [])
    if kind == 'center':
        center = model.aux_losses['center']
        assert (center.loss_weight, center.update, center.rate) == (0.01, 'moving_average', 0.5)


def rates_of(schedules, rate, steps):
    """The learning rate of each step of schedules that count iterations."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    built = [PARAM_SCHEDULERS.build(dict(each, optimizer=optimizer)) for each in schedules]
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for schedule in built:
            schedule.step()
    return found


# --- faces ------------------------------------------------------------------------------------


@pytest.mark.parametrize('name', FACES)
def test_faces_by_the_schedule_of_arcface(name):
    config = load(name)
    assert config.train_dataloader.batch_size == 128
    assert config.auto_scale_lr.base_batch_size == 8 * 128
    assert config.optim_wrapper.optimizer == dict(
        type='SGD', lr=0.1, momentum=0.9, weight_decay=5e-4
    )
    assert config.train_cfg.max_epochs == 20
    head = config.model.head
    assert (head.in_channels, head.num_classes) == (512, 93431)
    assert config.train_dataloader.dataset.num_classes == 93431
    assert 'num_classes' not in config.val_dataloader.dataset
    assert config.model.data_preprocessor.bgr_to_rgb
    (schedule,) = config.param_scheduler
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = PARAM_SCHEDULERS.get(schedule.pop('type'))
    assert schedule.pop('convert_to_iter_based')
    poly = scheduler.build_iter_from_epoch(optimizer=optimizer, epoch_length=7, **schedule)
    for _ in range(70):
        optimizer.step()
        poly.step()
    # The square of one half that is left; MMEngine's rate is 0 in the last of 140 iterations.
    assert optimizer.param_groups[0]['lr'] == pytest.approx(0.1 * (69 / 139) ** 2)


def test_variants_differ_in_what_their_name_says():
    plain = load(ARCFACE).to_dict()
    found = {name.split('_8x')[0]: differing(load(name).to_dict(), plain) for name in FACES}
    found = {
        name: {path for path in paths if path.startswith('model')} for name, paths in found.items()
    }
    assert found == {
        'arcface_r50': set(),
        'arcface_r101': {'model.backbone.depth'},
        'cosface_r50': {'model.head.margin', 'model.head.cosine_margin'},
        'normface_r50': {'model.head.type', 'model.head.margin'},
        'center_r50': {'model.head.type', 'model.head.scale', 'model.head.margin',
                       'model.aux_losses'},
    }  # fmt: skip


@pytest.mark.parametrize(('name', 'depth'), [(ARCFACE, 50), (ARCFACE.replace('50', '101', 1), 101)])
def test_face_backbone_at_full_size(name, depth):
    """Shapes alone, without memory or arithmetic."""
    config = load(name)
    assert config.model.backbone.depth == depth
    config.model.head.num_classes = 10
    with torch.device('meta'):
        model = MODELS.build(config.model)
        (maps,) = model.backbone(torch.zeros(2, 3, 112, 112))
    assert maps.shape == (2, 2048, 7, 7)
    assert model.neck.fc.weight.shape == (512, 2048 * 49)
    assert model.head.weight.shape == (10, 512)


def test_faces_in_half_precision(files, tmp_path, monkeypatch):
    config = load(ARCFACE, monkeypatch, files / 'faces')
    model = MODELS.build(small(config, 'faces', tmp_path / 'run').model)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = model(torch.randn(4, 3, 112, 112), torch.tensor([0, 1, 2, 3]), mode='loss')
    losses['loss_cls'].backward()
    assert losses['loss_cls'].dtype == torch.float32
    grads = [p.grad for p in model.parameters() if p.requires_grad]
    assert all(torch.isfinite(grad).all() for grad in grads)
    assert model.head.weight.grad.norm() > 0


# --- Market-1501 ------------------------------------------------------------------------------


def test_market_by_the_schedule_of_the_strong_baseline():
    config = load(CENTER)
    dataset = config.train_dataloader.dataset
    assert dataset.triplet_sampler == dict(num_ids=16, ins_per_id=4)
    assert (dataset.num_classes, config.model.head.num_classes) == (751, 751)
    assert config.optim_wrapper.optimizer == dict(type='Adam', lr=3.5e-4, weight_decay=5e-4)
    assert config.train_cfg.max_iters == 120 * 200
    rates = rates_of(config.param_scheduler, 3.5e-4, 24000)
    assert rates[0] == pytest.approx(3.5e-6)
    # Half way from a hundredth to the whole, and tenths after 40 and 70 epochs of 200 batches.
    assert rates[1000] == pytest.approx(3.5e-4 * 0.505, rel=1e-3)
    assert_close([rates[i] for i in (2000, 7999, 8000, 13999, 14000, 23999)],
                 [3.5e-4, 3.5e-4, 3.5e-5, 3.5e-5, 3.5e-6, 3.5e-6])  # fmt: skip
    assert config.model.aux_losses.triplet == dict(type='mmdet.TripletLoss', margin=0.3)
    loss = config.model.head.loss
    assert (loss.smoothing, loss.spread) == (0.1, 'all')


def test_the_centre_is_what_the_variants_differ_in():
    changed = differing(load(CENTER).to_dict(), load(BNNECK).to_dict())
    assert {path for path in changed if path.startswith('model')} == {'model.aux_losses.center'}


def test_market_backbone_at_full_size():
    """Shapes alone, without memory or arithmetic."""
    config = load(BNNECK)
    config.model.backbone.init_cfg = None  # pretrained weights would be downloaded
    with torch.device('meta'):
        model = MODELS.build(config.model)
        (maps,) = model.backbone(torch.zeros(2, 3, 256, 128))
    # The last stride is 1.
    assert maps.shape == (2, 2048, 16, 8)
    assert model.neck.norm.num_features == 2048
    assert model.head.weight.shape == (751, 2048)
    assert model.head.bias is None


def test_pictures_of_market_are_moved_and_erased(files, monkeypatch, mmdet_scope):
    from mmdet.registry import DATASETS

    config = load(BNNECK, monkeypatch, files / 'market1501').train_dataloader.dataset
    config.update(num_classes=4, triplet_sampler=dict(num_ids=4, ins_per_id=16))
    batch = DATASETS.build(config)[0]['inputs']
    assert batch.shape == (64, 3, 256, 128)
    fill = torch.tensor([104, 116, 124], dtype=torch.uint8)[:, None, None]
    filled = (batch == fill).all(1).float().mean((1, 2))
    # A rectangle in every second picture; of 64, within four deviations of 4.
    erased = filled > 0.01
    assert 16 <= erased.sum() <= 48
    assert filled[erased].min() > 0.015
    assert 0.05 < filled[erased].mean() < 0.3
    assert filled.max() < 0.4
    # Black borders where the crop is not in the middle.
    border = (batch[:, :, 0] == 0).all(1).float().mean(1)
    assert 0.2 < (border > 0.8).float().mean() < 0.8


def test_centres_move_as_the_optimizer_of_the_authors_moves_them():
    """Their SGD at 0.5 on the gradient of the mean squared distance, for 16 times 4 pictures."""
    options = dict(load(CENTER).model.aux_losses.center, num_classes=20, feat_dim=6)
    assert options.pop('type') == 'mmloss_plugins.CenterLoss'
    loss = CenterLoss(**options)
    start = loss.centers.clone().requires_grad_()
    assert 0.5 < start.std() < 1.5
    labels = torch.randperm(20)[:16].repeat_interleave(4)
    x = torch.randn(64, 6, requires_grad=True)
    theirs = (x - start[labels]).square().sum(1).mean()
    theirs.backward()
    ours = loss(x, labels)
    assert_close(ours, 5e-4 * theirs)
    assert_close(loss.centers, (start - 0.5 * start.grad).detach())


# --- index ------------------------------------------------------------------------------------


@pytest.mark.parametrize('kind', FOLDERS)
def test_metafiles_list_every_config(kind):
    folder = FOLDERS[kind][0]
    models = yaml.safe_load((folder / 'metafile.yml').read_text())['Models']
    assert {model['Name']: model['Config'] for model in models} == {
        path.stem: f'configs/recognition/{kind}/{path.name}' for path in folder.glob('*.py')
    }


@pytest.mark.parametrize('kind', FOLDERS)
def test_readmes_name_every_config(kind):
    folder = FOLDERS[kind][0]
    text = (folder / 'README.md').read_text()
    for path in folder.glob('*.py'):
        assert re.search(rf'\b{re.escape(path.name)}\b', text), path.name
