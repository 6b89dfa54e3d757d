"""L1, squared and smooth L1: values by hand, PyTorch as the oracle, scales, limits, types."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.testing import assert_close

from mmloss_plugins.functional import l1_loss, mse_loss, smooth_l1_loss

ORACLES = [(l1_loss, F.l1_loss), (mse_loss, F.mse_loss), (smooth_l1_loss, F.smooth_l1_loss)]
FUNCTIONS = [function for function, _ in ORACLES]


def batch(*shape, seed=0, dtype=torch.float64):
    """Return (pred, target), not contiguous."""
    generator = torch.Generator().manual_seed(seed)
    pred, target = torch.randn(2, *shape[::-1], generator=generator, dtype=torch.float64)
    axes = tuple(reversed(range(len(shape))))
    return (2 * pred).permute(axes).to(dtype), target.permute(axes).to(dtype)


def value_and_gradient(function, pred, target, *args, grad_output=0.3, **options):
    pred = pred.detach().clone().requires_grad_()
    loss = function(pred, target, *args, **options)
    loss.backward(torch.full_like(loss, grad_output))
    return loss.detach(), pred.grad


def test_values_by_hand():
    pred, target = torch.tensor([1.5, -1.0, 2.0]), torch.tensor([1.0, 2.0, 2.0])
    # d = 0.5, -3, 0
    assert_close(l1_loss(pred, target), torch.tensor([0.5, 3.0, 0.0]))
    assert_close(mse_loss(pred, target), torch.tensor([0.25, 9.0, 0.0]))
    # 0.5^2 / 2, 3 - 1/2
    assert_close(smooth_l1_loss(pred, target), torch.tensor([0.125, 2.5, 0.0]))
    # 0.5^2 / 4, 3 - 1
    assert_close(smooth_l1_loss(pred, target, beta=2.0), torch.tensor([0.0625, 2.0, 0.0]))


def test_gradients_by_hand():
    pred, target = torch.tensor([1.5, -1.0, 2.0]), torch.tensor([1.0, 2.0, 2.0])
    for function, expected in (
        (l1_loss, [1.0, -1.0, 0.0]),
        (mse_loss, [1.0, -6.0, 0.0]),
        (smooth_l1_loss, [0.5, -1.0, 0.0]),
    ):
        _, gradient = value_and_gradient(function, pred, target, grad_output=1.0)
        assert_close(gradient, torch.tensor(expected))


@pytest.mark.parametrize(('function', 'oracle'), ORACLES)
@pytest.mark.parametrize('shape', [(5, 4), (3, 17, 2), (1, 1, 3), (2, 3, 4, 5), (7,), (0, 4), ()])
def test_torch(function, oracle, shape):
    pred, target = batch(*shape)
    value, gradient = value_and_gradient(function, pred, target)
    expected, slope = value_and_gradient(oracle, pred, target, reduction='none')
    assert_close(value, expected)
    assert_close(gradient, slope)
    total, gradient = value_and_gradient(function, pred, target, summed=True)
    assert_close(total, expected.sum())
    assert_close(gradient, slope)


@pytest.mark.parametrize(('function', 'oracle'), ORACLES)
def test_more_elements_than_a_chunk(function, oracle):
    pred, target = batch(7, 331, 101, dtype=torch.float32)
    value, gradient = value_and_gradient(function, pred, target, torch.tensor([2.0] * 101))
    expected, slope = value_and_gradient(oracle, 2 * pred, 2 * target, reduction='none')
    assert_close(value, expected)
    assert_close(gradient, 2 * slope)


@pytest.mark.parametrize('beta', [0.01, 0.5, 3.0, 100.0])
def test_beta(beta):
    pred, target = batch(5, 4)
    value, gradient = value_and_gradient(smooth_l1_loss, pred, target, beta=beta)
    expected, slope = value_and_gradient(
        F.smooth_l1_loss, pred, target, beta=beta, reduction='none'
    )
    assert_close(value, expected)
    assert_close(gradient, slope)


def test_limits_of_beta():
    pred, target = batch(5, 4)
    exact = value_and_gradient(l1_loss, pred, target)
    assert_close(value_and_gradient(smooth_l1_loss, pred, target, beta=0), exact, rtol=0, atol=0)
    assert_close(value_and_gradient(smooth_l1_loss, pred, target, beta=1e-9), exact)
    # beta times the loss is half the square once beta is beyond every error.
    assert_close(100 * smooth_l1_loss(pred, target, beta=100), mse_loss(pred, target) / 2)


@pytest.mark.parametrize(('function', 'oracle'), ORACLES)
@pytest.mark.parametrize('scale', [56.0, (48.0, 64.0)], ids=str)
def test_scale_is_a_change_of_unit(function, oracle, scale):
    pred, target = batch(3, 5, 2)
    scale = torch.tensor(scale, dtype=torch.float64) if isinstance(scale, tuple) else scale
    value, gradient = value_and_gradient(function, pred, target, scale)
    expected, slope = value_and_gradient(oracle, pred * scale, target * scale, reduction='none')
    assert_close(value, expected)
    assert_close(gradient, slope * scale)


@pytest.mark.parametrize('function', FUNCTIONS)
def test_gradcheck(function):
    pred, target = batch(3, 2)
    scale = torch.tensor([3.0, 5.0], dtype=torch.float64)
    weight = torch.tensor([[1.0, 0.0], [0.5, 2.0], [1.0, 1.0]], dtype=torch.float64)

    def weighted(x):
        return (weight * function(x, target, scale)).sum() ** 2

    assert torch.autograd.gradcheck(weighted, pred.contiguous().requires_grad_())


@pytest.mark.parametrize('function', FUNCTIONS)
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(function, dtype):
    pred, target = torch.tensor([65504.0, 300.0], dtype=dtype), torch.tensor([-65504.0, 0.0])
    value, gradient = value_and_gradient(function, pred, target, grad_output=1.0)
    expected, slope = value_and_gradient(function, pred.float(), target, grad_output=1.0)
    assert value.dtype == torch.float32
    assert_close(value, expected)
    assert gradient.isfinite().all()
    assert_close(gradient[1].float(), slope[1])


@pytest.mark.parametrize('function', FUNCTIONS)
def test_not_finite_is_not_hidden(function):
    for bad in (math.nan, math.inf, -math.inf):
        value = function(torch.tensor([bad, 1.0]), torch.zeros(2))
        assert not value[0].isfinite()
        assert value[1].isfinite()


@pytest.mark.parametrize('function', FUNCTIONS)
@given(st.integers(0, 10**6), st.floats(0.1, 100), st.floats(-100, 100))
@settings(max_examples=20, deadline=None)
def test_properties(function, seed, scale, shift):
    pred, target = batch(4, 3, seed=seed)
    value = function(pred, target, scale)
    assert (value >= 0).all()
    assert_close(function(target, pred, scale), value)
    assert_close(function(pred + shift, target + shift, scale), value, rtol=1e-7, atol=1e-9)
    assert (function(target + 2 * (pred - target), target, scale) > value).all()


@pytest.mark.parametrize('function', FUNCTIONS)
def test_bad_arguments(function):
    pred, target = batch(3, 4)
    with pytest.raises(ValueError, match=rf'^{function.__name__}: target must have the shape'):
        function(pred, target[:, :3])
    with pytest.raises(TypeError, match='target must be a tensor, got list'):
        function(pred, [1.0])
    with pytest.raises(ValueError, match='target must not require a gradient'):
        function(pred, target.clone().requires_grad_())


@pytest.mark.parametrize('beta', [-1.0, math.nan])
def test_bad_beta(beta):
    with pytest.raises(ValueError, match='smooth_l1_loss: beta must be zero or positive, got'):
        smooth_l1_loss(*batch(3, 4), beta=beta)
