"""Heatmap losses as configs build them: hosts' and authors' values, weights, diagnostics."""

from __future__ import annotations

import math

import pytest
import torch
from mmpose.models.losses import KeypointMSELoss
from torch.testing import assert_close

from mmloss_plugins.functional import pixel_softmax_ce, spatial_softmax_ce
from mmloss_plugins.losses import HeatmapMSELoss, PixelSoftmaxCELoss, SpatialSoftmaxCELoss


def batch(B=2, K=3, H=5, W=7, channels=None):
    """Return (pred, target in [0, 1], weight of keypoints) with one unlabelled keypoint."""
    pred = torch.randn(B, channels or K, H, W, requires_grad=True)
    target = torch.rand(B, K, H, W)
    weight = torch.rand(B, K) + 0.1
    target[0, 1] = 0
    weight[0, 1] = 0
    return pred, target, weight


# --- HeatmapMSELoss --------------------------------------------------------------------------


@pytest.mark.parametrize('skip', [False, True])
@pytest.mark.parametrize('weighted', [False, True])
@pytest.mark.parametrize('masked', [False, True])
def test_mse_at_mmpose_scale_is_keypoint_mse(skip, weighted, masked):
    pred, target, weight = batch()
    target[1, 2] = 0
    weight = weight if weighted else None
    mask = (torch.rand(2, 1, 5, 7) > 0.4) if masked else None
    theirs = KeypointMSELoss(skip_empty_channel=skip, loss_weight=3.0, use_target_weight=True)
    ours = HeatmapMSELoss(
        skip_empty_channel=skip, loss_weight=3.0, use_target_weight=True, scale='mmpose'
    )
    expected = theirs(pred, target, weight, mask)
    (slope,) = torch.autograd.grad(expected, pred)
    found = ours(pred, target, weight, mask)
    assert_close(found, expected)
    assert_close(torch.autograd.grad(found, pred), (slope,))


def joints_mse(pred, target, weight):
    """JointsMSELoss of HRNet and SimpleBaseline: one joint after the other, times 0.5."""
    criterion, total = torch.nn.MSELoss(), 0.0
    for k in range(pred.shape[1]):
        w = weight[:, k, None]
        total += 0.5 * criterion(pred[:, k].flatten(1) * w, target[:, k].flatten(1) * w)
    return total / pred.shape[1]


def test_mse_at_author_scale_is_joints_mse_for_binary_weights():
    pred, target, weight = batch()
    binary = (weight > 0).float()
    assert_close(HeatmapMSELoss()(pred, target, binary), joints_mse(pred, target, binary))


def test_mse_hosts_differ_by_two_at_weight_one_and_four_at_a_half():
    pred, target, _ = batch()
    one, half = torch.ones(2, 3), torch.full((2, 3), 0.5)
    mmpose, author = HeatmapMSELoss(scale='mmpose'), HeatmapMSELoss()
    assert_close(mmpose(pred, target, one), 2 * joints_mse(pred, target, one))
    assert_close(mmpose(pred, target, half), 4 * joints_mse(pred, target, half))
    # A weight counts once here: the two options always differ by 2.
    assert_close(mmpose(pred, target, half), 2 * author(pred, target, half))


def test_mse_honours_use_target_weight_where_mmpose_does_not():
    pred, target, weight = batch()
    theirs = KeypointMSELoss(use_target_weight=False)
    ours = HeatmapMSELoss(use_target_weight=False, scale='mmpose')
    assert theirs(pred, target, weight) != theirs(pred, target)
    assert_close(ours(pred, target, weight), theirs(pred, target))


def test_mse_mean_over_visible_keypoints():
    pred, target, weight = batch()
    binary = (weight > 0).float()
    found = HeatmapMSELoss(mean_over='valid', scale='mmpose')(pred, target, binary)
    # 5 of 6 keypoints are visible, 35 pixels each.
    total = ((pred - target).square() * binary[..., None, None]).sum()
    assert_close(found, total / (5 * 35))
    # Skipping the empty map leaves out the same keypoint without any weight.
    skipped = HeatmapMSELoss(mean_over='valid', scale='mmpose', skip_empty_channel=True)
    assert_close(skipped(pred, target), found)


def test_mse_foreground_weight_moves_gradient_to_the_peak():
    target = torch.zeros(1, 1, 6, 8)
    target[0, 0, 2, 3] = 1
    shares = []
    for factor in (1.0, 10.0):
        pred = torch.full_like(target, 0.5, requires_grad=True)
        HeatmapMSELoss(foreground_weight=factor)(pred, target).backward()
        shares.append((pred.grad[0, 0, 2, 3].abs() / pred.grad.abs().sum()).item())
    # One of 48 equal gradients, then 10 of 57.
    assert shares == pytest.approx([1 / 48, 10 / 57])


def test_mse_ratio():
    pred, target, weight = batch()
    loss = HeatmapMSELoss()
    ratio = loss.diagnostics(torch.zeros_like(pred), target, weight)['heatmap_ratio']
    assert_close(ratio, torch.tensor(1.0))
    ratio = loss.diagnostics(target / 2, target, weight)['heatmap_ratio']
    assert_close(ratio, torch.tensor(0.25))


# --- SpatialSoftmaxCELoss --------------------------------------------------------------------


def test_spatial_weights_and_means():
    pred, target, weight = batch()
    elements = spatial_softmax_ce(pred, target)
    assert elements[0, 1] == 0
    assert_close(SpatialSoftmaxCELoss()(pred, target, weight), (elements * weight).mean())
    valid = SpatialSoftmaxCELoss(mean_over='valid')
    assert_close(valid(pred, target, weight), (elements * weight).sum() / 5)
    # An empty target is unlabelled, whatever its weight says.
    assert_close(valid(pred, target), elements.sum() / 5)
    assert valid(pred, torch.zeros_like(target)) == 0


def test_spatial_options_reach_the_function():
    pred, target, _ = batch()
    found = SpatialSoftmaxCELoss(beta=3.0, label='one_hot', loss_weight=2.0)(pred, target)
    assert_close(found, 2 * spatial_softmax_ce(pred, target, beta=3.0, label='one_hot').mean())


def test_spatial_ratio():
    pred, target, weight = batch()
    for options in ({}, {'beta': 2.0}, {'label': 'one_hot'}):
        loss = SpatialSoftmaxCELoss(**options)
        flat = loss.diagnostics(torch.full_like(pred, 3.0), target, weight)
        assert_close(flat['spatial_softmax_ratio'], torch.tensor(1.0))
    perfect = target.clamp(min=1e-30).log()
    ratio = SpatialSoftmaxCELoss().diagnostics(perfect, target, weight)['spatial_softmax_ratio']
    assert_close(ratio, torch.tensor(0.0), atol=1e-5, rtol=0)
    # As heads under autocast hand them over.
    half = SpatialSoftmaxCELoss().diagnostics(perfect.half(), target.half(), weight)
    assert half['spatial_softmax_ratio'].abs() < 0.01


# --- PixelSoftmaxCELoss ----------------------------------------------------------------------


def test_pixel_heatmaps_become_classes():
    pred, target, _ = batch(channels=4)
    top, classes = target.max(1)
    classes[top < 0.8] = 3
    assert 0 < (classes == 3).sum() < classes.numel()
    expected = pixel_softmax_ce(pred, classes).mean()
    assert_close(PixelSoftmaxCELoss(pos_threshold=0.8)(pred, target), expected)
    assert_close(PixelSoftmaxCELoss()(pred, classes), expected)


@pytest.mark.parametrize('shape', [(2, 3), (2, 3, 1, 1)])
def test_pixel_weight_per_keypoint(shape):
    pred, target, weight = batch(channels=4)
    classes = target.max(1).indices
    classes[target.amax(1) < 0.8] = 3
    factors = torch.cat([weight, weight.amax(1, keepdim=True)], 1)
    elements = pixel_softmax_ce(pred, classes)
    expected = torch.stack([factors[b][classes[b]] * elements[b] for b in range(2)])
    loss = PixelSoftmaxCELoss(pos_threshold=0.8, reduction='none')
    assert_close(loss(pred, target, weight.reshape(shape)), expected)
    assert_close(
        PixelSoftmaxCELoss(pos_threshold=0.8, mean_over='valid')(pred, target, weight),
        expected.sum() / (expected != 0).sum(),
    )
    ignored = PixelSoftmaxCELoss(pos_threshold=0.8, use_target_weight=False, reduction='none')
    assert_close(ignored(pred, target, weight), elements)


def test_pixel_sample_without_labels_does_not_count():
    pred, target, weight = batch(channels=4)
    target[1] = 0
    weight[1] = 0
    loss = PixelSoftmaxCELoss(mean_over='valid')
    found = loss(pred, target, weight)
    (gradient,) = torch.autograd.grad(found, pred)
    assert (gradient[1] == 0).all()
    assert (gradient[0] != 0).any()
    assert_close(loss(pred[:1], target[:1], weight[:1]), found)
    nothing = loss(pred, target, torch.zeros(2, 3))
    assert nothing == 0
    assert nothing.requires_grad


def test_pixel_weight_per_pixel_and_per_row():
    pred, target, _ = batch(channels=4)
    elements = PixelSoftmaxCELoss(reduction='none')(pred, target)
    for shape in [(2,), (2, 5), (2, 5, 7), (2, 5, 1)]:
        weight = torch.rand(shape)
        expected = elements * weight.reshape(*shape, *[1] * (3 - len(shape)))
        assert_close(PixelSoftmaxCELoss(reduction='none')(pred, target, weight), expected)
    # With as many rows as keypoints a (B, K) weight is one per keypoint, (B, H, 1) one per row.
    pred, target, weight = batch(H=3, channels=4)
    elements = PixelSoftmaxCELoss(reduction='none')(pred, target)
    by_row = PixelSoftmaxCELoss(reduction='none')(pred, target, weight[..., None])
    assert_close(by_row, elements * weight[..., None])
    by_keypoint = PixelSoftmaxCELoss(reduction='none')(pred, target, weight)
    assert not torch.allclose(by_keypoint, by_row)


def test_pixel_ignore_index_and_valid_mean():
    pred, _, _ = batch(channels=4)
    classes = torch.randint(0, 4, (2, 5, 7))
    classes[:, 2] = 255
    expected = torch.nn.functional.cross_entropy(pred, classes, ignore_index=255)
    assert_close(PixelSoftmaxCELoss(mean_over='valid')(pred, classes), expected)
    assert_close(PixelSoftmaxCELoss()(pred, classes), expected * 56 / 70)
    classes[classes == 255] = -100
    torch_default = PixelSoftmaxCELoss(mean_over='valid', ignore_index=-100)
    assert_close(torch_default(pred, classes), expected)


def test_pixel_class_weight_moves_with_the_module_and_stays_out_of_the_checkpoint():
    loss = PixelSoftmaxCELoss(class_weight=[1, 2, 3, 0.1])
    assert loss.state_dict() == {}
    assert dict(loss.named_buffers())['class_weight'].tolist() == pytest.approx([1, 2, 3, 0.1])


def test_pixel_recall():
    pred, target, weight = batch(channels=4)
    loss = PixelSoftmaxCELoss()
    classes = loss._classes(target)
    right = torch.nn.functional.one_hot(classes, 4).movedim(-1, 1).float()
    assert loss.diagnostics(right, target, weight) == {'pixel_foreground_recall': 1}
    background = torch.zeros_like(pred)
    background[:, 3] = 9
    assert loss.diagnostics(background, target, weight) == {'pixel_foreground_recall': 0}
    right[0] = background[0]
    share = (classes[1] != 3).sum() / (classes != 3).sum()
    assert_close(loss.diagnostics(right, target, None)['pixel_foreground_recall'], share)
    # Without weight the first sample does not count.
    weight = torch.tensor([[0.0, 0, 0], [1, 1, 1]])
    assert_close(loss.diagnostics(right, target, weight)['pixel_foreground_recall'].item(), 1.0)


@pytest.mark.parametrize(
    ('loss', 'pred', 'target', 'text'),
    [
        (PixelSoftmaxCELoss(), (2, 3, 4, 5), (2, 3, 4, 5), 'one channel less than pred'),
        (PixelSoftmaxCELoss(), (2, 1, 4, 5), (2, 4, 5), 'with at least one keypoint'),
        (PixelSoftmaxCELoss(), (2, 4, 5), (2, 4, 5), r'pred must have the shape \(B, K \+ 1'),
        (HeatmapMSELoss(), (2, 3), (2, 3), r'pred must have the shape \(B, K, H, W\)'),
        (SpatialSoftmaxCELoss(), (2, 3, 5), (2, 3, 5), r'HeatmapHead|one map per keypoint'),
        (HeatmapMSELoss(), (2, 3, 4, 5), (2, 3, 5, 4), r'shape \(2, 3, 4, 5\) of pred'),
    ],
)
def test_wrong_shapes_say_what_to_do(loss, pred, target, text):
    with pytest.raises(ValueError, match=text):
        loss(torch.zeros(pred), torch.zeros(target))


def test_wrong_types():
    with pytest.raises(TypeError, match='target must be a tensor, got list'):
        PixelSoftmaxCELoss()(torch.zeros(1, 2, 3, 4), [[0]])
    with pytest.raises(ValueError, match='class_weight must hold K \\+ 1 finite factors'):
        PixelSoftmaxCELoss(class_weight=[1.0, math.nan])
    with pytest.raises(ValueError, match='class_weight must hold 3 factors'):
        PixelSoftmaxCELoss(class_weight=[1.0, 1.0])(
            torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2, dtype=torch.long)
        )


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize('cls', [HeatmapMSELoss, SpatialSoftmaxCELoss, PixelSoftmaxCELoss])
@pytest.mark.parametrize('shape', [(1, 1, 1, 4), (0, 2, 3, 4), (1, 2, 9, 2)])
def test_half_precision_small_and_empty(cls, shape, dtype):
    target = torch.rand(shape).round()
    channels = shape[1] + (cls is PixelSoftmaxCELoss)
    pred = torch.randn(shape[0], channels, *shape[2:]).to(dtype).requires_grad_()
    exact = cls()(pred.float(), target)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = cls()(pred, target, torch.ones(shape[:2]))
    found.backward()
    assert found.dtype == torch.float32
    assert_close(found, exact)
    assert pred.grad.dtype == dtype
    assert pred.grad.isfinite().all()
