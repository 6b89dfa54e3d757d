"""HeatmapCollapseHook: what it logs, by hand; when it warns; with the losses and heads of hosts."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from mmdet.models.dense_heads import CenterNetHead
from mmdet.models.losses import GaussianFocalLoss as HostGaussianFocalLoss
from mmengine.model import BaseModel
from mmengine.registry import HOOKS, DefaultScope
from mmengine.structures import InstanceData
from mmpose.codecs import UDPHeatmap
from mmpose.models.losses import KeypointMSELoss
from mmpose.models.losses.heatmap_loss import FocalHeatmapLoss
from mmpose.registry import MODELS
from mmpose.testing import get_packed_inputs
from torch import nn

from mmloss_plugins.hooks._heatmap_reading import activation_of, measure, positives_of, respond
from mmloss_plugins.losses import (
    BalancedBCELoss,
    DiceLoss,
    GaussianFocalLoss,
    HeatmapMSELoss,
    MSELoss,
    MultiLoss,
    SigmoidFocalLoss,
    SpatialSoftmaxCELoss,
)
from tests.test_hooks.toys import Syncs, scalar, toy_runner

NAN = float('nan')
POSITIVES = 'must hold pixels that count as positive'
FLAT = 'must rise above their mean'


class MapModel(BaseModel):
    """Predicts the same maps in each iteration, whatever the learning rate."""

    def __init__(self, loss, pred, target, weight=None):
        super().__init__()
        self.loss_module = loss
        self.pred = nn.Parameter(pred.clone())
        self.target = target
        self.weight = weight

    def forward(self, inputs, data_samples=None, mode='loss'):
        if mode != 'loss':
            with torch.no_grad():
                self.loss_module(self.pred * NAN, self.target)
            return data_samples
        rest = () if self.weight is None else (self.weight,)
        return dict(loss_kpt=self.loss_module(self.pred * 1.0, self.target, *rest))


def train(model, work_dir, iterations=4, **hook):
    """Return (runner, text of the log)."""
    hook = dict(type='mmloss_plugins.HeatmapCollapseHook', **{'interval': 2, **hook})
    options = dict(iterations=iterations, optimizer=dict(type='SGD', lr=0.0), custom_hooks=[hook])
    runner = toy_runner(model, work_dir, None, **options)
    runner.train()
    return runner, next(work_dir.glob('*/*.log')).read_text()


def gaussian(peak=1.0, size=(3, 4), maps=(2, 2)):
    """Maps (B, K, H, W) with one high and one low pixel."""
    target = torch.zeros(*maps, *size)
    target[..., 1, 2] = peak
    target[..., 1, 1] = peak / 2
    return target


def test_values_by_hand(tmp_path):
    target = gaussian()
    pred = torch.zeros(2, 2, 3, 4)
    pred[:, 0, 0, 0] = 0.6  # peak 0.6, mean 0.6 / 12 = 0.05
    pred[:, 1] = NAN
    weight = torch.tensor([[1.0, 0.0], [0.5, 0.0]])
    runner, log = train(MapModel(HeatmapMSELoss(), pred, target, weight), tmp_path)
    assert scalar(runner, 'heatmap_peak') == pytest.approx(0.6)
    assert scalar(runner, 'heatmap_mean') == pytest.approx(0.05)
    assert scalar(runner, 'heatmap_positives') == 4  # two maps, two pixels above 0
    # The target's peak is 1 and its mean 1.5 / 12.
    assert scalar(runner, 'heatmap_contrast') == pytest.approx(0.55 / (1 - 0.125))
    assert 'heatmap_peak: 0.6000' in log
    assert 'WARNING - HeatmapCollapseHook' not in log


def test_it_reads_at_its_interval_and_adds_nothing_to_the_loss(tmp_path):
    model = MapModel(HeatmapMSELoss(), torch.rand(2, 2, 3, 4), gaussian())
    runner, _ = train(model, tmp_path, iterations=7, interval=3)
    names = [name for name in runner.message_hub.log_scalars if 'heatmap' in name]
    assert sorted(names) == [
        f'train/heatmap_{n}' for n in ('contrast', 'mean', 'peak', 'positives')
    ]
    assert not [name for name in names if 'loss' in name]
    assert len(runner.message_hub.get_scalar('train/heatmap_peak').data[0]) == 2
    assert scalar(runner, 'loss') == scalar(runner, 'loss_kpt')


def test_one_sync_at_the_interval_and_none_elsewhere(tmp_path, monkeypatch):
    counts = []
    for name, interval in (('rare', 100), ('often', 3)):
        hook = dict(type='mmloss_plugins.HeatmapCollapseHook', interval=interval)
        model = MapModel(GaussianFocalLoss(), torch.randn(2, 2, 3, 4), gaussian(0.978))
        runner = toy_runner(model, tmp_path / name, None, custom_hooks=[hook])
        with monkeypatch.context() as patch, Syncs(runner, patch) as syncs:
            runner.train()
        counts.append(syncs.counts)
    assert [counts[1][n] - counts[0][n] for n in range(1, 7)] == [0, 0, 1, 0, 0, 1]


def udp_target():
    """What MMPose's UDPHeatmap encodes for keypoints between pixels: no pixel is 1."""
    codec = UDPHeatmap(input_size=(64, 96), heatmap_size=(16, 24), sigma=2)
    points = np.array([[[21.3, 40.9], [33.1, 60.6]]], dtype=np.float32)
    encoded = codec.encode(points, np.ones((1, 2), dtype=np.float32))
    return torch.from_numpy(encoded['heatmaps'])[None]


@pytest.mark.parametrize(
    'loss',
    [FocalHeatmapLoss(), HostGaussianFocalLoss(), GaussianFocalLoss()],
    ids=['mmpose', 'mmdet', 'ours'],
)
def test_a_target_without_positives_warns_once(tmp_path, loss):
    target = udp_target()
    assert 0.9 < target.amax() < 1
    weight = None if isinstance(loss, HostGaussianFocalLoss) else torch.ones(1, 2)
    model = MapModel(loss, target * 0.8 + 0.1, target, weight)
    runner, log = train(model, tmp_path, iterations=8)
    assert scalar(runner, 'heatmap_positives') == 0
    assert log.count(POSITIVES) == 1
    text = re.search(f'HeatmapCollapseHook: target of loss_module .*{POSITIVES}.*', log).group()
    assert 'got none for 2 visible keypoints in iteration 2. ' in text
    assert 'UDPHeatmap' in text
    assert 'pos_threshold' in text
    assert FLAT not in log


def test_a_threshold_below_the_peak_is_fine(tmp_path):
    target = udp_target()
    model = MapModel(GaussianFocalLoss(pos_threshold=0.9), target, target, torch.ones(1, 2))
    runner, log = train(model, tmp_path)
    assert scalar(runner, 'heatmap_positives') == (target >= 0.9).sum() > 0
    assert POSITIVES not in log


def test_without_visible_keypoints_nothing_is_said(tmp_path):
    target = udp_target()
    model = MapModel(FocalHeatmapLoss(), target * 0 + 0.1, target, torch.zeros(1, 2))
    runner, log = train(model, tmp_path, patience=1)
    assert 'WARNING - HeatmapCollapseHook' not in log
    assert 'train/heatmap_peak' not in runner.message_hub.log_scalars


@pytest.mark.parametrize(
    ('loss', 'flat', 'good'),
    [
        (KeypointMSELoss(use_target_weight=True), 0.02, 1.0),
        (SigmoidFocalLoss(), -4.6, 9.0),
        (GaussianFocalLoss(), -4.6, 9.0),
        (BalancedBCELoss(), -4.6, 9.0),
        (SpatialSoftmaxCELoss(), 3.0, 9.0),
        (DiceLoss(), -4.6, 9.0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else '',
)
def test_flat_responses_warn_once_after_patience(tmp_path, loss, flat, good):
    target, weight = gaussian(), torch.ones(2, 2)
    pred = torch.full_like(target, flat)
    for patience, warned in ((3, 1), (4, 0)):
        model = MapModel(loss, pred, target, weight)
        _, log = train(model, tmp_path / str(patience), iterations=6, patience=patience)
        assert log.count(FLAT) == warned
    _, log = train(
        MapModel(loss, pred, target, weight), tmp_path / 'first', iterations=6, patience=1
    )
    text = re.search(f'HeatmapCollapseHook: responses of loss_module .*{FLAT}.*', log).group()
    assert 'within 1 readings, got peak ' in text
    assert 'in iteration 2. Likely, in this order: no prior' in text
    assert log.count(FLAT) == 1
    model = MapModel(loss, torch.where(target == 1, good, flat), target, weight)
    runner, log = train(model, tmp_path / 'good', iterations=6, patience=1)
    assert FLAT not in log
    assert scalar(runner, 'heatmap_contrast') > 0.5


def test_flat_readings_have_to_follow_each_other(tmp_path):
    target = gaussian()
    model = MapModel(HeatmapMSELoss(), torch.zeros_like(target), target)
    forward = type(model).forward
    calls = []

    def wake_up(self, *args, **kwargs):
        calls.append(1)
        self.pred.data.copy_(target if len(calls) == 4 else target * 0)
        return forward(self, *args, **kwargs)

    model.forward = wake_up.__get__(model)
    _, log = train(model, tmp_path, iterations=6, interval=1, patience=4)
    assert len(calls) == 6
    assert FLAT not in log


def test_flatness_is_a_share_of_the_target(tmp_path):
    target = gaussian()
    model = MapModel(HeatmapMSELoss(), target * 0.1, target)
    _, log = train(model, tmp_path / 'low', patience=1, flatness=0.05)
    assert FLAT not in log
    _, log = train(model, tmp_path / 'high', patience=1, flatness=0.2)
    assert FLAT in log


def test_multi_loss_is_read_once_with_the_strictest_positives(tmp_path):
    target = gaussian(0.978)
    loss = MultiLoss(dict(dice=DiceLoss(), focal=GaussianFocalLoss(), bce=SigmoidFocalLoss()))
    runner, log = train(MapModel(loss, target * 8 - 4, target, torch.ones(2, 2)), tmp_path)
    assert scalar(runner, 'heatmap_positives') == 0
    assert log.count(POSITIVES) == 1
    assert not [name for name in runner.message_hub.log_scalars if 'heatmap2' in name]


def test_each_stage_has_its_own_values(tmp_path):
    target = gaussian()
    model = MapModel(HeatmapMSELoss(), target * 0.5, target)

    def two_stages(inputs, data_samples=None, mode='loss'):
        stages = [model.loss_module(model.pred * factor, target) for factor in (1, 2)]
        return dict(loss_stages=stages)

    model.forward = two_stages
    runner, _ = train(model, tmp_path)
    assert scalar(runner, 'heatmap_peak') == pytest.approx(0.5)
    assert scalar(runner, 'heatmap2_peak') == pytest.approx(1.0)


def test_other_losses_are_watched_on_demand(tmp_path):
    target = gaussian()
    model = MapModel(MSELoss(), target * 0.5, target)
    runner, _ = train(model, tmp_path / 'default')
    assert 'train/heatmap_peak' not in runner.message_hub.log_scalars
    runner, _ = train(model, tmp_path / 'named', losses=['MSELoss'])
    assert scalar(runner, 'heatmap_peak') == pytest.approx(0.5)
    runner, _ = train(model, tmp_path / 'sigmoid', losses=['MSELoss'], activation='sigmoid')
    assert scalar(runner, 'heatmap_peak') == pytest.approx(torch.tensor(0.5).sigmoid().item())


def test_other_shapes_are_left_alone(tmp_path):
    loss = DiceLoss()
    model = MapModel(loss, torch.rand(3, 4), torch.rand(3, 4))
    runner, _ = train(model, tmp_path)
    assert 'train/heatmap_peak' not in runner.message_hub.log_scalars
    assert not loss._forward_hooks


@pytest.mark.parametrize(
    ('loss', 'activation'),
    [
        (HostGaussianFocalLoss(), 'none'),
        (GaussianFocalLoss(), 'sigmoid'),
        (GaussianFocalLoss(from_logits=False), 'none'),
        (SigmoidFocalLoss(activated=True), 'none'),
        (DiceLoss(activation='none'), 'none'),
        (DiceLoss(activation='softmax'), 'softmax'),
        (SpatialSoftmaxCELoss(), 'spatial_softmax'),
        (FocalHeatmapLoss(), 'none'),
    ],
)
def test_activation_that_a_loss_tells(loss, activation):
    assert activation_of(loss) == activation


def test_responses_and_target_on_one_scale():
    pred, heatmap = torch.randn(2, 3, 4, 5), torch.rand(2, 3, 4, 5)
    for activation, dims in (('softmax', 1), ('spatial_softmax', (2, 3))):
        maps, labels = respond(pred, heatmap, activation)
        torch.testing.assert_close(maps.sum(dims), torch.ones_like(maps.sum(dims)))
    torch.testing.assert_close(labels.sum((2, 3)), torch.ones(2, 3))
    sharper, _ = respond(pred, heatmap, 'spatial_softmax', beta=3.0)
    assert (sharper.amax((2, 3)) > maps.amax((2, 3))).all()


@pytest.mark.parametrize('shape', [(2,), (2, 3), (2, 3, 1, 1), (2, 3, 4, 5)])
def test_weights_of_any_shape(shape):
    maps = torch.rand(2, 3, 4, 5)
    weight = torch.zeros(shape)
    weight[0] = 0.5
    found = measure(maps, maps, maps > 0.5, weight)
    expected = measure(maps[:1], maps[:1], maps[:1] > 0.5, None)
    torch.testing.assert_close(found, expected)
    assert found[-1] == 3


def test_positives_by_index():
    """Positions given with the target need no pixel at 1."""
    target = (gaussian(0.978), torch.tensor([[6, -1], [6, 18]]))
    found = positives_of(GaussianFocalLoss(), target[0], target, target[0])
    assert found.sum() == 3


def test_stock_heatmap_head_of_mmpose(tmp_path):
    """The host's head calls its loss by position with weights (N, K)."""
    with DefaultScope.overwrite_default_scope('mmpose'):
        head = dict(
            type='HeatmapHead',
            in_channels=512,
            out_channels=3,
            deconv_out_channels=None,
            loss=dict(type='KeypointMSELoss', use_target_weight=True),
        )
        model = MODELS.build(
            dict(
                type='TopdownPoseEstimator',
                data_preprocessor=dict(type='PoseDataPreprocessor'),
                backbone=dict(type='ResNet', depth=18),
                head=head,
            )
        )
    size = dict(num_keypoints=3, img_shape=(64, 96), input_size=(96, 64), heatmap_size=(3, 2))
    batch = get_packed_inputs(batch_size=4, **size)
    samples = [
        dict(inputs=i, data_samples=s) for i, s in zip(batch['inputs'], batch['data_samples'])
    ]
    loader = dict(
        batch_size=2,
        sampler=dict(type='InfiniteSampler', shuffle=False),
        dataset=samples,
        collate_fn=dict(type='pseudo_collate'),
    )
    hook = dict(type='mmloss_plugins.HeatmapCollapseHook', interval=1)
    runner = toy_runner(
        model, tmp_path, None, iterations=2, train_dataloader=loader, custom_hooks=[hook]
    )
    seen = []
    model.head.loss_module.register_forward_hook(lambda _, args, __: seen.append(args))
    runner.train()
    pred, target, weight = seen[-1]
    assert weight.shape == (2, 3)
    assert (weight > 0).all()
    assert scalar(runner, 'heatmap_peak') == pytest.approx(pred.amax((2, 3)).mean().item())
    assert scalar(runner, 'heatmap_positives') == (target > 0).sum()
    assert not [
        name for name in runner.message_hub.log_scalars if 'loss_' in name and 'heat' in name
    ]


class CenterNet(BaseModel):
    """MMDetection's stock head, whose loss gets probabilities by keyword and no weights."""

    def __init__(self):
        super().__init__()
        with DefaultScope.overwrite_default_scope('mmdet'):
            self.bbox_head = CenterNetHead(4, 4, num_classes=2)
        self.bbox_head.init_weights()

    def forward(self, inputs, data_samples=None, mode='loss'):
        feats = torch.randn(2, 4, 8, 12)
        boxes = torch.tensor([[4.0, 4.0, 20.0, 24.0]])
        objects = [InstanceData(bboxes=boxes, labels=torch.tensor([1]))] * 2
        metas = [dict(img_shape=(32, 48), batch_input_shape=(32, 48))] * 2
        return self.bbox_head.loss_by_feat(*self.bbox_head((feats,)), objects, metas)


def test_stock_centernet_head_of_mmdet(tmp_path):
    """Its losses on sizes and offsets get maps as well, which are no heatmaps."""
    runner, log = train(CenterNet(), tmp_path)
    assert 0.05 < scalar(runner, 'heatmap_mean') < 0.2  # prior 0.1
    assert scalar(runner, 'heatmap_positives') == 2
    assert not [name for name in runner.message_hub.log_scalars if 'heatmap2' in name]
    assert 'WARNING - HeatmapCollapseHook' not in log


@pytest.mark.parametrize('name', ['interval', 'patience'])
@pytest.mark.parametrize('value', [0, -1, 1.5, 'ten'])
def test_numbers_must_be_positive(name, value):
    text = f'HeatmapCollapseHook: {name} must be a positive integer, got {value!r}.'
    with pytest.raises(ValueError, match=re.escape(text)):
        HOOKS.build(dict(type='mmloss_plugins.HeatmapCollapseHook', **{name: value}))


@pytest.mark.parametrize('value', [0, 1, -0.5])
def test_flatness_must_be_a_share(value):
    with pytest.raises(ValueError, match=f'flatness must lie between 0 and 1, got {value}'):
        HOOKS.build(dict(type='mmloss_plugins.HeatmapCollapseHook', flatness=value))


def test_activation_must_be_known():
    with pytest.raises(ValueError, match=r"got 'sigmoidal'\. Did you mean 'sigmoid'"):
        HOOKS.build(dict(type='mmloss_plugins.HeatmapCollapseHook', activation='sigmoidal'))
