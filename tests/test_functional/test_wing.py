"""Wing and adaptive Wing: values by hand, float64 loops, MMPose's classes, limits, continuity."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmpose.models.losses import AdaptiveWingLoss as HostAdaptiveWing
from mmpose.models.losses import WingLoss as HostWing
from scipy.ndimage import grey_dilation
from torch.testing import assert_close

from mmloss_plugins.functional import adaptive_wing_loss, l1_loss, value_checks, wing_loss
from mmloss_plugins.functional.wing import foreground


def coordinates(N=3, K=5, seed=0, dtype=torch.float64):
    """Return (pred, target) in pixels, errors of up to about 40."""
    generator = torch.Generator().manual_seed(seed)
    pred, target = 15 * torch.randn(2, 2, K, N, generator=generator, dtype=torch.float64)
    return pred.permute(2, 1, 0).to(dtype), target.permute(2, 1, 0).to(dtype)


def maps(B=2, K=3, H=5, W=7, seed=0, dtype=torch.float64):
    """Return (raw maps, targets in [0, 1])."""
    generator = torch.Generator().manual_seed(seed)
    pred, target = torch.randn(2, W, H, K, B, generator=generator, dtype=torch.float64)
    return pred.permute(3, 2, 1, 0).to(dtype), (target.sigmoid() ** 3).permute(3, 2, 1, 0).to(dtype)


def value_and_gradient(function, pred, target, *args, grad_output=1.0, **options):
    pred = pred.detach().clone().requires_grad_()
    loss = function(pred, target, *args, **options)
    loss.backward(torch.full_like(loss, grad_output))
    return loss.detach(), pred.grad


def test_wing_by_hand():
    errors = torch.tensor([0.0, 2.0, -2.0, 10.0, 30.0])
    value, gradient = value_and_gradient(wing_loss, errors, torch.zeros(5), 1.0)
    # 10 ln(1 + d / 2), and from 10 pixels on d - C with C = 10 - 10 ln 6.
    constant = 10 - 10 * math.log(6)
    expected = [0, 10 * math.log(2), 10 * math.log(2), 10 * math.log(6), 30 - constant]
    assert_close(value, torch.tensor(expected))
    # Slope 10 / (2 + d), 1 from 10 pixels on.
    assert_close(gradient, torch.tensor([0.0, 2.5, -2.5, 1.0, 1.0]))


def test_wing_in_units_of_the_picture():
    # 0.1 of 200 pixels is 20 pixels; the gradient is 200 times that of a pixel, and 1 there.
    pred, target = torch.tensor([[0.6, 0.3]]), torch.tensor([[0.5, 0.3]])
    value, gradient = value_and_gradient(wing_loss, pred, target, torch.tensor([200.0, 100.0]))
    assert_close(value, torch.tensor([[20 - 10 + 10 * math.log(6), 0.0]]))
    assert_close(gradient[0, 0], torch.tensor(200.0))


@pytest.mark.parametrize(('omega', 'epsilon'), [(10.0, 2.0), (5.0, 0.5), (20.0, 3.0)])
def test_wing_loops_from_the_paper(omega, epsilon):
    pred, target = coordinates()
    constant = omega - omega * math.log(1 + omega / epsilon)
    expected = [
        omega * math.log(1 + abs(d) / epsilon) if abs(d) < omega else abs(d) - constant
        for d in (pred - target).flatten().tolist()
    ]
    value = wing_loss(pred, target, 1.0, omega=omega, epsilon=epsilon)
    assert_close(value, torch.tensor(expected, dtype=torch.float64).reshape(value.shape))
    assert_close(
        wing_loss(pred, target, 1.0, omega=omega, epsilon=epsilon, summed=True),
        torch.tensor(math.fsum(expected), dtype=torch.float64),
    )


@pytest.mark.parametrize('options', [{}, {'omega': 5.0, 'epsilon': 0.5}])
def test_wing_of_mmpose(options):
    """MMPose's class, on pixels and without weights: mean over samples of the sum."""
    pred, target = coordinates()
    value, gradient = value_and_gradient(wing_loss, pred, target, 1.0, **options)
    expected, slope = value_and_gradient(HostWing(**options), pred, target)
    assert_close(value.sum() / len(pred), expected)
    assert_close(gradient / len(pred), slope)


def test_wing_is_continuous_and_its_slope_falls_to_one():
    # The paper matches values at omega, not slopes: 10 / 12 below, 1 above.
    below, above = torch.tensor([9.9999]), torch.tensor([10.0001])
    zero = torch.zeros(1)
    value, gradient = value_and_gradient(wing_loss, torch.cat([below, above]), zero.expand(2), 1.0)
    assert_close(value[0], value[1], rtol=0, atol=5e-4)
    assert_close(gradient, torch.tensor([10 / 12, 1.0]), rtol=1e-4, atol=0)


def test_wing_in_the_unit_square_is_nearly_l1():
    """The trap of coordinates that are taken for pixels: the slope moves from 5 to 3.33 only."""
    pred, target = torch.rand(2, 50, 2, dtype=torch.float64)
    ratio = wing_loss(pred, target, 1.0) / l1_loss(pred, target)
    assert ratio.max() <= 5
    assert ratio.min() >= 10 * math.log(1.5)
    assert (wing_loss(pred, target, 256.0) > 10 * math.log(6)).double().mean() > 0.8


def test_wing_gradcheck():
    pred, target = coordinates(2, 3)
    scale = torch.tensor([0.5, 2.0], dtype=torch.float64)
    weight = torch.rand(2, 3, 2, dtype=torch.float64)
    weight[1, 2] = 0

    def weighted(x):
        return (weight * wing_loss(x, target, scale)).sum() ** 2

    assert torch.autograd.gradcheck(weighted, pred.contiguous().requires_grad_())


@given(st.integers(0, 10**6), st.floats(0.5, 50), st.floats(0.1, 10))
@settings(max_examples=30, deadline=None)
def test_wing_properties(seed, omega, epsilon):
    pred, target = coordinates(seed=seed)
    options = dict(omega=omega, epsilon=epsilon)
    value = wing_loss(pred, target, 1.0, **options)
    assert (value > 0).all()
    assert_close(wing_loss(target, pred, 1.0, **options), value)
    assert (wing_loss(target + 1.5 * (pred - target), target, 1.0, **options) > value).all()
    assert (wing_loss(target, target, 1.0, **options) == 0).all()


def paper_adaptive_wing(y, x, alpha=2.1, omega=14.0, epsilon=1.0, theta=0.5):
    """Equations 3 and 4 of the paper for one pixel."""
    power = alpha - y
    ratio = (theta / epsilon) ** power
    slope = omega / (1 + ratio) * power * (theta / epsilon) ** (power - 1) / epsilon
    constant = theta * slope - omega * math.log(1 + ratio)
    d = abs(y - x)
    if d < theta:
        return omega * math.log(1 + (d / epsilon) ** power)
    return slope * d - constant


CONSTANTS = [{}, dict(alpha=2.5, omega=10.0, epsilon=2.0, theta=0.3)]


@pytest.mark.parametrize('constants', CONSTANTS, ids=['paper', 'other'])
def test_adaptive_wing_loops_from_the_paper(constants):
    pred, target = maps()
    weights = 1 + 10 * dilated(target)
    pixels = zip(target.flatten().tolist(), pred.flatten().tolist(), weights.flatten().tolist())
    expected = [w * paper_adaptive_wing(y, x, **constants) for y, x, w in pixels]
    value = adaptive_wing_loss(pred, target, **constants)
    assert_close(value, torch.tensor(expected, dtype=torch.float64).reshape(value.shape))


def dilated(target, threshold=0.2):
    """The authors' procedure: grey dilation by 3x3, threshold."""
    planes = [grey_dilation(plane.numpy(), size=(3, 3)) for plane in target.flatten(0, 1)]
    near = torch.stack([torch.from_numpy(plane) >= threshold for plane in planes])
    return near.reshape(target.shape).to(target.dtype)


@pytest.mark.parametrize('constants', CONSTANTS, ids=['paper', 'other'])
def test_adaptive_wing_of_mmpose(constants):
    pred, target = maps()
    value, gradient = value_and_gradient(
        adaptive_wing_loss, pred, target, foreground_weight=0, **constants
    )
    expected, slope = value_and_gradient(HostAdaptiveWing(**constants), pred, target)
    assert_close(value.mean(), expected)
    assert_close(gradient / value.numel(), slope)


def test_value_of_the_test_of_mmpose():
    # Distance 1 on background: A - C with A = 14 * 2.1 * .5^1.1 / (1 + .5^2.1).
    zeros = torch.zeros(1, 3, 64, 64)
    value = adaptive_wing_loss(zeros + 1, zeros)
    assert_close(value, torch.full_like(value, 8.4959), rtol=1e-5, atol=0)


def test_adaptive_wing_is_smooth_at_theta():
    step = 1e-7
    for y in (0.0, 0.3, 1.0):
        target = torch.full((1, 1, 1, 2), y, dtype=torch.float64)
        pred = target + torch.tensor([0.5 - step, 0.5 + step], dtype=torch.float64)
        value, gradient = value_and_gradient(adaptive_wing_loss, pred, target)
        below, above = gradient.flatten()
        assert_close(below, above, rtol=1e-5, atol=0)
        assert_close(value.flatten().diff().item(), 2 * step * below.item(), rtol=1e-4, atol=0)


@pytest.mark.parametrize(('H', 'W'), [(1, 1), (1, 6), (5, 1), (4, 9)])
def test_foreground_is_the_dilated_target(H, W):
    target = torch.rand(2, 3, H, W, dtype=torch.float64) ** 6
    target[0, 0, 0, 0] = 0.2
    assert_close(foreground(target, 0.2).double(), dilated(target))
    assert_close(foreground(target, 0.6).double(), dilated(target, 0.6))


def test_nan_of_an_ignored_pixel_does_not_spread():
    target = torch.zeros(1, 1, 3, 6)
    target[..., 1, 1] = math.nan
    target[..., 0, 5] = 1.0
    near = foreground(target, 0.2)[0, 0]
    assert near.nonzero().tolist() == [[0, 4], [0, 5], [1, 4], [1, 5]]


def test_weight_map_options():
    pred, target = maps()
    plain = adaptive_wing_loss(pred, target, foreground_weight=0)
    near = dilated(target, 0.5)
    found = adaptive_wing_loss(pred, target, foreground_weight=3, mask_threshold=0.5)
    assert 0 < near.mean() < 1
    assert_close(found, plain * (1 + 3 * near))
    assert_close(
        adaptive_wing_loss(pred, target, summed=True), adaptive_wing_loss(pred, target).sum()
    )


@pytest.mark.parametrize('foreground_weight', [0, 10])
def test_adaptive_wing_gradcheck(foreground_weight):
    pred, target = maps(1, 2, 3, 4)

    def squared(x):
        return adaptive_wing_loss(x, target, foreground_weight=foreground_weight).sum() ** 2

    assert torch.autograd.gradcheck(squared, pred.contiguous().requires_grad_())


def test_adaptive_wing_at_the_target_has_no_slope():
    """The derivative of a power is 0 / 0 there if it is computed as p d^p / d."""
    target = torch.tensor([0.0, 0.5, 1.0]).view(1, 1, 1, 3)
    value, gradient = value_and_gradient(adaptive_wing_loss, target, target)
    assert (value == 0).all()
    assert (gradient == 0).all()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_small_errors_survive_half_precision(dtype):
    # 14 (2^-10)^1.1 is 6.8e-3; the power of a float16 loses such errors.
    target = torch.ones(1, 1, 1, 1, dtype=dtype)
    pred = target - torch.tensor(2.0**-7, dtype=dtype)
    value = adaptive_wing_loss(pred, target, foreground_weight=0)
    assert value.dtype == torch.float32
    error = (target - pred).item()
    assert_close(value.item(), 14 * math.log1p(error**1.1), rtol=1e-5, atol=0)


@given(st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_adaptive_wing_properties(seed):
    pred, target = maps(seed=seed)
    value = adaptive_wing_loss(pred, target)
    assert (value >= 0).all()
    further = target + 1.5 * (pred - target)
    assert (adaptive_wing_loss(further, target) >= value).all()
    mirrored = adaptive_wing_loss(2 * target - pred, target)
    assert_close(mirrored, value)


def test_target_outside_of_its_range_is_found():
    pred, target = maps()
    target[1, 2, 3, 4] = 1.5
    with pytest.raises(ValueError, match=r'within \[0, 1\], got 1\.5 at index \(1, 2, 3, 4\)'):
        adaptive_wing_loss(pred, target)
    with value_checks(False):
        assert adaptive_wing_loss(pred, target).shape == pred.shape


@pytest.mark.parametrize(
    ('options', 'rule'),
    [
        ({'alpha': 2.0}, 'alpha must be above 2'),
        ({'alpha': math.nan}, 'alpha must be above 2'),
        ({'omega': 0}, 'omega must be positive'),
        ({'epsilon': -1}, 'epsilon must be positive'),
        ({'theta': 0}, 'theta must be positive'),
        ({'foreground_weight': -1}, 'foreground_weight must be zero or positive'),
    ],
)
def test_bad_constants(options, rule):
    with pytest.raises(ValueError, match=f'^adaptive_wing_loss: {rule}, got'):
        adaptive_wing_loss(*maps(), **options)


def test_bad_arguments():
    pred, target = maps()
    with pytest.raises(ValueError, match=r'target must be heatmaps \(B, K, H, W\)'):
        adaptive_wing_loss(pred[0], target[0])
    with pytest.raises(ValueError, match=r'^wing_loss: omega must be positive, got 0'):
        wing_loss(*coordinates(), 1.0, omega=0)
    with pytest.raises(ValueError, match=r'^wing_loss: epsilon must be positive, got -1'):
        wing_loss(*coordinates(), 1.0, epsilon=-1)
