"""Law 4: finite at every float16 value, and float32 arithmetic under autocast."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from tests.contract.subject import loss_and_gradients
from tests.contract.trees import cycle, float_leaves, map_floats

HALF = [torch.float16, torch.bfloat16]
# 8.5 saturates sigmoid in float16, 30 in float32; 6e-8 is the smallest float16 above zero.
EXTREMES = [0.0, 65504.0, -65504.0, 30.0, -30.0, 8.5, -8.5, 1.0, 6e-8, -6e-8]


def assert_finite(subject, pred, target, note):
    for reduction in ('none', 'mean'):
        loss = subject.build(reduction=reduction)
        value, found = loss_and_gradients(loss, pred, target, subject.weight())
        assert torch.isfinite(value).all(), f'loss at {note}'
        assert all(torch.isfinite(gradient).all() for gradient in found), f'gradient at {note}'


@pytest.mark.parametrize('dtype', HALF, ids=str)
def test_finite_where_every_input_is_extreme(subject, dtype):
    pred, target = subject.make(dtype=dtype)
    for value in EXTREMES:
        assert_finite(subject, cycle(pred, [value]), target, value)
    for step in range(1, 4):
        # Another step shifts the extremes against the rows, so that each meets each.
        assert_finite(subject, cycle(pred, EXTREMES[::step]), target, f'every {step}th')
        assert_finite(subject, cycle(pred, EXTREMES[:step]), target, f'the first {step}')


@pytest.mark.parametrize('dtype', HALF, ids=str)
def test_finite_at_the_limits_of_the_target(subject, dtype):
    pred, target = subject.make(dtype=dtype)
    assert subject.case.limit_targets
    for name, limit in subject.case.limit_targets.items():
        for values in ([0.0], [65504.0], EXTREMES):
            assert_finite(subject, cycle(pred, values), limit(target), f'{name}, {values}')


@pytest.mark.parametrize('dtype', HALF, ids=str)
def test_half_inputs_are_computed_in_float32(subject, dtype):
    pred, target = subject.make(dtype=dtype)
    value, found = loss_and_gradients(subject.build(), pred, target)
    single = [map_floats(torch.Tensor.float, tree) for tree in (pred, target)]
    exact, slopes = loss_and_gradients(subject.build(), *single)
    assert value.dtype == torch.float32
    assert_close(value, exact, rtol=1e-6, atol=1e-7)
    for gradient, slope, leaf in zip(found, slopes, float_leaves(pred)):
        assert gradient.dtype == leaf.dtype
        assert_close(gradient, slope.to(dtype))


def test_float64_stays_float64(subject):
    value, found = loss_and_gradients(subject.build(), *subject.make(dtype=torch.float64))
    assert value.dtype == torch.float64
    single, slopes = loss_and_gradients(subject.build(), *subject.make())
    assert_close(value.float(), single)
    assert_close([gradient.float() for gradient in found], slopes)


@pytest.mark.parametrize('label', [torch.float64, torch.float16], ids=str)
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
def test_the_type_of_the_result_follows_the_prediction(subject, dtype, label):
    """Labels made by NumPy are float64; stored ones may be half."""
    pred, target = subject.make(dtype=dtype)
    target = map_floats(lambda leaf: leaf.to(label), target)
    value, found = loss_and_gradients(subject.build(), pred, target)
    assert value.dtype == torch.float32
    assert [gradient.dtype for gradient in found] == [leaf.dtype for leaf in float_leaves(pred)]
    single = map_floats(torch.Tensor.float, target)
    assert_close(value, loss_and_gradients(subject.build(), pred, single)[0], rtol=1e-5, atol=1e-6)


def test_autocast_gives_the_float32_loss(subject):
    pred, target = subject.make()
    expected, slopes = loss_and_gradients(subject.build(), pred, target, subject.weight())
    with torch.autocast('cpu', dtype=torch.bfloat16):
        value, found = loss_and_gradients(subject.build(), pred, target, subject.weight())
    assert value.dtype == torch.float32
    assert_close(value, expected, rtol=1e-6, atol=1e-7)
    assert_close(found, slopes, rtol=1e-6, atol=1e-7)


def test_autocast_predictions_of_a_layer(subject):
    """A layer under autocast hands over bfloat16 next to float32 labels and weights."""
    pred, target = subject.make()
    half = map_floats(lambda leaf: leaf.detach().bfloat16(), pred)
    expected = subject.build()(map_floats(torch.Tensor.float, half), target, subject.weight())
    with torch.autocast('cpu', dtype=torch.bfloat16):
        value = subject.build()(half, target, subject.weight())
    assert value.dtype == torch.float32
    assert_close(value, expected, rtol=1e-6, atol=1e-7)
