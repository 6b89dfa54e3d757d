"""IoU losses: values by hand, torchvision and MMDetection as oracles, boxes without area."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.models.losses.iou_loss import giou_loss as host_giou
from mmdet.models.losses.iou_loss import iou_loss as host_iou
from torch.testing import assert_close
from torchvision import ops

from mmloss_plugins.functional import ciou_loss, diou_loss, giou_loss, iou_loss, value_checks

TORCHVISION = [
    (giou_loss, ops.generalized_box_iou_loss),
    (diou_loss, ops.distance_box_iou_loss),
    (ciou_loss, ops.complete_box_iou_loss),
]
FUNCTIONS = [iou_loss, giou_loss, diou_loss, ciou_loss]


def boxes(N=200, seed=0, dtype=torch.float64, size=8.0):
    """Return (pred, target): many overlap, some are equal, inside each other or disjoint."""
    generator = torch.Generator().manual_seed(seed)
    low, extent = torch.rand(2, 2, N, 2, generator=generator, dtype=torch.float64)
    pred, target = torch.cat([10 * low, 10 * low + 0.1 + size * extent], dim=-1)
    return pred.to(dtype), target.to(dtype)


def value_and_gradient(function, pred, target, **options):
    pred = pred.detach().clone().requires_grad_()
    loss = function(pred, target, **options)
    factors = torch.linspace(0.5, 2, max(len(loss), 1), dtype=loss.dtype)[: len(loss)]
    loss.backward(factors)
    return loss.detach(), pred.grad


def test_values_by_hand():
    # Two squares of side 2 that share a square of side 1: IoU 1 / 7, enclosed by a square of 3.
    pred, target = torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[1.0, 1.0, 3.0, 3.0]])
    iou = 1 / 7
    for mode, expected in (
        ('linear', 1 - iou),
        ('square', 1 - iou**2),
        ('log', math.log(7)),
    ):
        assert_close(iou_loss(pred, target, mode=mode), torch.tensor([expected]))
    assert_close(giou_loss(pred, target), torch.tensor([1 - iou + 2 / 9]))
    # Centres sqrt(2) apart, diagonal sqrt(18).
    assert_close(diou_loss(pred, target), torch.tensor([1 - iou + 2 / 18]))
    assert_close(ciou_loss(pred, target), diou_loss(pred, target))


def test_aspect_ratio_by_hand():
    # 4x1 and 1x4 around one centre: IoU 1 / 7, v = (4 / pi^2) (2 atan 4 - pi / 2)^2.
    pred, target = torch.tensor([[0.0, 1.5, 4.0, 2.5]]), torch.tensor([[1.5, 0.0, 2.5, 4.0]])
    v = 4 / math.pi**2 * (2 * math.atan(4) - math.pi / 2) ** 2
    expected = 1 - 1 / 7 + v**2 / (1 - 1 / 7 + v)
    assert_close(ciou_loss(pred, target), torch.tensor([expected]))


@pytest.mark.parametrize(('function', 'oracle'), TORCHVISION)
@pytest.mark.parametrize('size', [0.5, 8.0])
def test_torchvision(function, oracle, size):
    pred, target = boxes(size=size)
    pred[:3] = target[:3]
    pred[3:9] = torch.cat([target[3:9, :2], target[3:9, :2] + 1], dim=1)  # ties at one corner
    value, gradient = value_and_gradient(function, pred, target)
    expected, slope = value_and_gradient(oracle, pred, target)
    assert_close(value, expected)
    assert_close(gradient, slope)
    assert 0.05 < (ops.box_iou(pred, target).diagonal() == 0).double().mean() < 0.99


@pytest.mark.parametrize(('function', 'oracle'), [(iou_loss, host_iou), (giou_loss, host_giou)])
def test_mmdetection(function, oracle):
    pred, target = boxes()
    value, gradient = value_and_gradient(function, pred, target)
    expected, slope = value_and_gradient(oracle, pred, target, reduction='none')
    assert_close(value, expected, rtol=1e-5, atol=1e-6)
    assert_close(gradient, slope, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('mode', ['linear', 'square', 'log'])
def test_modes_of_mmdetection(mode):
    pred, target = boxes()
    value, gradient = value_and_gradient(iou_loss, pred, target, mode=mode)
    expected, slope = value_and_gradient(host_iou, pred, target, mode=mode, reduction='none')
    assert_close(value, expected, rtol=1e-5, atol=1e-6)
    assert_close(gradient, slope, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('function', [iou_loss, giou_loss, diou_loss])
def test_gradcheck(function):
    pred, target = boxes(12)
    weight = torch.rand(12, dtype=torch.float64)
    weight[3] = 0
    assert torch.autograd.gradcheck(
        lambda x: (weight * function(x, target)).sum() ** 2, pred.clone().requires_grad_()
    )


def test_disjoint_boxes():
    """IoU has a value and no gradient; the others pull the box towards its target."""
    pred, target = torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([[3.0, 0.0, 4.0, 1.0]])
    for mode, expected in (('linear', 1.0), ('square', 1.0), ('log', -math.log(1e-6))):
        value, gradient = value_and_gradient(iou_loss, pred, target, mode=mode)
        assert_close(value, torch.tensor([expected]))
        assert (gradient == 0).all()
    for function in (giou_loss, diou_loss, ciou_loss):
        value, gradient = value_and_gradient(function, pred, target)
        assert value > 1
        assert gradient[0, 2] < 0, 'descent has to move the right edge to the right'


EMPTY = {
    'point': [5.0, 5.0, 5.0, 5.0],
    'line': [2.0, 5.0, 7.0, 5.0],
    'inside out': [7.0, 6.0, 2.0, 3.0],
    'half inside out': [7.0, 3.0, 2.0, 6.0],
}


@pytest.mark.parametrize('function', FUNCTIONS)
@pytest.mark.parametrize('name', EMPTY)
def test_empty_boxes_are_finite(function, name):
    empty = torch.tensor([EMPTY[name]])
    full, point = torch.tensor([[2.0, 3.0, 7.0, 6.0]]), torch.tensor([[5.0, 5.0, 5.0, 5.0]])
    for target in (full, point):
        value, gradient = value_and_gradient(function, empty, target)
        assert value.isfinite().all()
        assert gradient.isfinite().all()
        assert value >= 1 - 1e-6
    value, gradient = value_and_gradient(function, full, point)
    assert value.isfinite().all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('function', FUNCTIONS)
def test_half_precision(function, dtype):
    """An area of 300 x 300 pixels has no float16."""
    pred, target = (100 * x for x in boxes(50))
    pred, target = pred.to(dtype), target.to(dtype)
    value, gradient = value_and_gradient(function, pred, target)
    expected, slope = value_and_gradient(function, pred.float(), target.float())
    assert value.dtype == torch.float32
    assert gradient.dtype == dtype
    assert_close(value, expected)
    assert_close(gradient, slope.to(dtype))


@given(st.integers(0, 10**6), st.floats(0.1, 100), st.floats(-50, 50))
@settings(max_examples=20, deadline=None)
def test_unit_and_place_do_not_matter(seed, scale, shift):
    pred, target = boxes(6, seed=seed)
    for function in FUNCTIONS:
        value = function(pred, target)
        moved = function(scale * pred + shift, scale * target + shift)
        assert_close(moved, value, rtol=1e-4, atol=1e-5)
        # Swapping x and y is a reflection.
        swap = [1, 0, 3, 2]
        assert_close(function(pred[:, swap], target[:, swap]), value)
        assert (value >= 0).all()


@pytest.mark.parametrize('function', FUNCTIONS)
def test_no_boxes(function):
    value, gradient = value_and_gradient(function, torch.zeros(0, 4), torch.zeros(0, 4))
    assert value.shape == (0,)
    assert gradient.shape == (0, 4)


@pytest.mark.parametrize('function', FUNCTIONS)
def test_bad_arguments(function):
    name = function.__name__
    with pytest.raises(ValueError, match=rf'{name}: pred and target must be boxes \(N, 4\)'):
        function(torch.zeros(3, 5), torch.zeros(3, 5))
    with pytest.raises(ValueError, match=f'{name}: target must have the shape'):
        function(torch.zeros(3, 4), torch.zeros(2, 4))
    wrong = torch.tensor([[0.0, 0.0, 1.0, 1.0], [5.0, 5.0, 2.0, 2.0]])
    with pytest.raises(ValueError, match=r'x1 <= x2 and y1 <= y2, got \[5\.0.* in row 1\. Pass'):
        function(torch.zeros(2, 4), wrong)
    with value_checks(False):
        assert function(torch.zeros(2, 4), wrong).shape == (2,)


def test_bad_mode():
    with pytest.raises(ValueError, match=r"got 'linaer'\. Did you mean 'linear'\?"):
        iou_loss(torch.zeros(1, 4), torch.zeros(1, 4), mode='linaer')


def test_eps():
    pred, target = torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([[3.0, 0.0, 4.0, 1.0]])
    assert_close(iou_loss(pred, target, eps=1e-16), torch.tensor([36.8414]))  # MMPose's
    for function in (giou_loss, diou_loss, ciou_loss):
        assert not torch.isclose(function(pred, target, eps=1.0), function(pred, target))
