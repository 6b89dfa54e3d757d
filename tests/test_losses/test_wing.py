"""WingLoss and AdaptiveWingLoss: MMPose's classes, the trap of units, stock heads."""

from __future__ import annotations

import math

import pytest
import torch
from mmengine.structures import InstanceData, PixelData
from mmpose.models.heads import HeatmapHead, RegressionHead
from mmpose.models.losses import AdaptiveWingLoss as HostAdaptiveWing
from mmpose.models.losses import WingLoss as HostWing
from mmpose.structures import PoseDataSample
from torch.testing import assert_close

from mmloss_plugins.losses import AdaptiveWingLoss, WingLoss


def coordinates(N=3, K=5, seed=0):
    """Coordinates in [0, 1] and weights (N, K)."""
    generator = torch.Generator().manual_seed(seed)
    pred, target = torch.rand(2, N, K, 2, generator=generator)
    weight = torch.ones(N, K)
    weight[0, 1 % K] = weight[N - 1, K // 2] = 0
    return pred, target, weight


def maps(B=2, K=3, H=6, W=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pred, target = torch.randn(2, B, K, H, W, generator=generator)
    weight = torch.ones(B, K)
    weight[0, 1 % K] = 0
    return pred, target.sigmoid() ** 3, weight


def value_and_gradient(loss, pred, target, *args):
    pred = pred.detach().clone().requires_grad_()
    value = loss(pred, target, *args)
    (3 * value).backward()
    return value.detach(), pred.grad


@pytest.mark.parametrize('K', [5, 1])
def test_wing_of_mmpose_on_pixels(K):
    """The default reduction is MMPose's: equal at weights 0 and 1 on coordinates in pixels."""
    pred, target, weight = coordinates(K=K)
    host, ours = HostWing(use_target_weight=True), WingLoss(scale=1)
    size = torch.tensor([192.0, 256.0])
    weight = weight[..., None]
    expected = value_and_gradient(host, pred * size, target * size, weight)
    assert_close(value_and_gradient(ours, pred * size, target * size, weight), expected)
    value, gradient = value_and_gradient(WingLoss(scale=(192, 256)), pred, target, weight)
    assert_close(value, expected[0])
    assert_close(gradient, expected[1] * size)


def test_mean_over():
    pred, target, weight = coordinates()
    elements = WingLoss(scale=64, reduction='none')(pred, target, weight)
    assert elements.shape == (3, 5, 2)
    assert_close(WingLoss(scale=64)(pred, target, weight), elements.sum() / 3)
    assert_close(WingLoss(scale=64, mean_over='all')(pred, target, weight), elements.mean())
    valid = WingLoss(scale=64, mean_over='valid')(pred, target, weight)
    assert_close(valid, elements[weight != 0].mean())


def test_half_a_weight_is_half_the_loss_and_not_in_mmpose():
    pred, target, _ = coordinates()
    half = torch.full((3, 5, 1), 0.5)
    ours, host = WingLoss(scale=1), HostWing(use_target_weight=True)
    assert_close(ours(pred, target, half), ours(pred, target) / 2)
    assert host(pred, target, half) > 0.51 * ours(pred, target)


def test_scale_has_no_default():
    with pytest.raises(ValueError) as caught:
        WingLoss()
    assert str(caught.value) == (
        'WingLoss: scale must be the pixels that one unit of the coordinates is, a positive '
        "number or one for each, got None. Pass the codec's input_size for coordinates in [0, 1], "
        '1 for coordinates in pixels.'
    )


def test_the_trap_shows_in_the_diagnostics():
    pred, target, weight = coordinates(50, 17)
    trap = WingLoss(scale=1).diagnostics(pred, target, weight)
    assert trap == {'wing_linear': 0}
    found = WingLoss(scale=256).diagnostics(pred, target)['wing_linear']
    assert_close(found, ((pred - target).abs() * 256 >= 10).float().mean())
    assert 0.8 < found < 1


def test_diagnostics_count_valid_coordinates():
    pred = torch.tensor([[[20.0, 5.0], [30.0, 40.0], [1.0, 2.0]]])
    loss, zero = WingLoss(scale=1), torch.zeros(1, 3, 2)
    weight, mask = torch.tensor([[1.0, 0.0, 0.5]]), torch.tensor([[True, True, False]])
    assert loss.diagnostics(pred, zero)['wing_linear'] == 3 / 6
    assert loss.diagnostics(pred, zero, weight)['wing_linear'] == 1 / 4
    assert loss.diagnostics(pred, zero, weight, mask)['wing_linear'] == 1 / 2
    assert loss.diagnostics(pred, zero, 0 * weight)['wing_linear'] == 0
    ignores = WingLoss(scale=1, use_target_weight=False)
    assert ignores.diagnostics(pred, zero, weight)['wing_linear'] == 3 / 6


def test_regression_head_of_mmpose():
    loss = dict(type='mmloss_plugins.WingLoss', scale=(192, 256), use_target_weight=True)
    head = RegressionHead(4, 3, loss=loss)
    labels = torch.rand(2, 1, 3, 2)
    samples = []
    for label in labels:
        sample = PoseDataSample()
        sample.gt_instance_labels = InstanceData(
            keypoint_labels=label, keypoint_weights=torch.tensor([[1.0, 0.0, 1.0]])
        )
        samples.append(sample)
    feats = (torch.randn(2, 4),)
    value = head.loss(feats, samples)['loss_kpt']
    size = torch.tensor([192.0, 256.0])
    weight = torch.tensor([[[1.0], [0.0], [1.0]]]).expand(2, 3, 1)
    host = HostWing(use_target_weight=True)
    assert_close(value, host(head(feats) * size, labels[:, 0] * size, weight))
    value.backward()
    assert all(p.grad.abs().sum() > 0 for p in head.parameters())


@pytest.mark.parametrize('options', [{}, {'alpha': 2.5, 'omega': 10, 'epsilon': 2, 'theta': 0.3}])
def test_adaptive_wing_of_mmpose(options):
    pred, target, _ = maps()
    ours = AdaptiveWingLoss(foreground_weight=0, **options)
    expected = value_and_gradient(HostAdaptiveWing(**options), pred, target)
    assert_close(value_and_gradient(ours, pred, target), expected)


def test_adaptive_wing_default_is_the_authors_weighted_mean():
    pred, target, weight = maps()
    plain = AdaptiveWingLoss(foreground_weight=0, reduction='none')(pred, target, weight)
    near = torch.nn.functional.max_pool2d(target, 3, 1, 1) >= 0.2
    expected = (plain * (1 + 10 * near)).mean()
    assert_close(AdaptiveWingLoss()(pred, target, weight), expected)
    half = AdaptiveWingLoss()(pred, target, torch.full((2, 3), 0.5))
    assert_close(half, AdaptiveWingLoss()(pred, target) / 2)


@pytest.mark.parametrize(('K', 'H', 'W'), [(3, 6, 5), (1, 4, 7)])
def test_heatmap_head_of_mmpose(K, H, W):
    head = HeatmapHead(
        4, K, deconv_out_channels=None, loss=dict(type='mmloss_plugins.AdaptiveWingLoss')
    )
    _, target, weight = maps(2, K, H, W)
    weight[:, 0] = torch.tensor([1.0, 0.0])
    target[1, 0] = math.nan  # an invisible joint
    samples = []
    for heatmaps, visible in zip(target, weight):
        sample = PoseDataSample(gt_fields=PixelData(heatmaps=heatmaps))
        sample.gt_instance_labels = InstanceData(keypoint_weights=visible[None])
        samples.append(sample)
    feats = (torch.randn(2, 4, H, W),)
    from mmloss_plugins.functional import value_checks

    with value_checks(False):
        value = head.loss(feats, samples, train_cfg=dict(compute_acc=False))['loss_kpt']
    value.backward()
    assert value.isfinite()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in head.parameters())


@pytest.mark.parametrize('mask_threshold', [0, 1.5, -0.2])
def test_bad_mask_threshold(mask_threshold):
    with pytest.raises(ValueError, match='mask_threshold must be above 0 and at most 1, got'):
        AdaptiveWingLoss(mask_threshold=mask_threshold)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_layers_under_autocast(dtype):
    pred, target, weight = maps()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = AdaptiveWingLoss()(pred.to(dtype), target, weight)
    assert_close(found, AdaptiveWingLoss()(pred.to(dtype).float(), target, weight))
    assert found.dtype == torch.float32
