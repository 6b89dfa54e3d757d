"""The closed-form mechanism: chunks, layouts, constants, half precision and repeated backward."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from mmloss_plugins.functional import closed_form as module
from mmloss_plugins.functional.closed_form import closed_form, indicator, with_slope

CHUNK = 6


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Several pieces from a handful of elements."""
    monkeypatch.setattr(module, 'CHUNK', CHUNK)


def cubic(x, t, *, scale=1.0):
    """L = scale (x - t)^3 and its derivative."""
    error = x - t
    return scale * error**3, scale * 3 * error**2


def value_and_gradient(pred, *constants, grad_output=None, equation=cubic, **options):
    pred = pred.detach().requires_grad_()
    loss = closed_form(equation, pred, *constants, **options)
    loss.backward(torch.ones_like(loss) if grad_output is None else grad_output)
    return loss.detach(), pred.grad


@pytest.mark.parametrize(
    'shape',
    [(), (1,), (5,), (6,), (7,), (13,), (2, 3), (2, 7), (3, 5, 4), (1, 1, 25), (2, 3, 2, 5)],
)
@pytest.mark.parametrize('summed', [False, True])
def test_pieces_cover_every_element_once(shape, summed):
    pred, target = torch.randn(2, *shape, dtype=torch.float64)
    loss, gradient = value_and_gradient(pred, target, summed=summed, scale=2.0)
    expected = 2 * (pred - target) ** 3
    assert_close(loss, expected.sum() if summed else expected)
    assert_close(gradient, 6 * (pred - target) ** 2)


def test_no_piece_is_larger_than_a_chunk():
    sizes = []

    def record(x, t):
        sizes.append(x.numel())
        return cubic(x, t)

    for shape in ((100,), (4, 25), (3, 4, 5), (7, 2, 2)):
        sizes.clear()
        closed_form(record, torch.randn(shape), torch.zeros(shape))
        assert sum(sizes) == math.prod(shape)
        assert max(sizes) <= CHUNK
        assert min(sizes) >= 1


@pytest.mark.parametrize(
    'change',
    [
        lambda x: x.transpose(0, 1),
        lambda x: x.permute(2, 0, 1),
        lambda x: x[:, ::2],
        lambda x: x.expand(2, *x.shape),
        lambda x: x.flip(0),
    ],
)
def test_any_layout(change):
    pred, target = (change(torch.randn(3, 4, 5)) for _ in range(2))
    loss, gradient = value_and_gradient(pred, target)
    assert_close(loss, (pred - target) ** 3)
    assert_close(gradient, 3 * (pred - target) ** 2)


@pytest.mark.parametrize('shape', [(), (1,), (5,), (4, 1), (3, 1, 1), (3, 4, 5)])
def test_constants_broadcast(shape):
    pred, target = torch.randn(3, 4, 5), torch.randn(shape)
    loss, gradient = value_and_gradient(pred, target)
    assert_close(loss, (pred - target) ** 3)
    assert_close(gradient, 3 * (pred - target) ** 2)


def test_several_constants_of_any_type_arrive_in_the_type_of_x():
    seen = []

    def equation(x, mask, label, t):
        seen.extend((mask.dtype, label.dtype, t.dtype))
        return mask * (label + x * t), mask * t

    pred = torch.randn(4, 5)
    mask, label = torch.rand(4, 5) > 0.5, torch.arange(4)[:, None]
    target = torch.rand(5, dtype=torch.float64)
    loss, gradient = value_and_gradient(pred, mask, label, target, equation=equation)
    assert_close(loss, mask * (label + pred * target.float()))
    assert_close(gradient, (mask * target).float())
    assert set(seen) == {torch.float32}


def test_constants_get_no_gradient_and_stay():
    pred, target = torch.randn(20, requires_grad=True), torch.randn(20, requires_grad=True)
    before = target.detach().clone()
    closed_form(cubic, pred, target).sum().backward()
    assert target.grad is None
    assert_close(target.detach(), before, rtol=0, atol=0)


@pytest.mark.parametrize('summed', [False, True])
@pytest.mark.parametrize('grad', [False, True])
def test_without_anything_to_differentiate(summed, grad):
    pred, target = torch.randn(2, 20)
    with torch.set_grad_enabled(grad):
        loss = closed_form(cubic, pred.requires_grad_(not grad), target, summed=summed)
    assert not loss.requires_grad
    expected = (pred.detach() - target) ** 3
    assert_close(loss, expected.sum() if summed else expected)


@pytest.mark.parametrize('summed', [False, True])
def test_calls_do_not_share_anything(summed):
    pred, target = torch.randn(2, 20)
    pred.requires_grad_()
    first = closed_form(cubic, pred, target, summed=summed)
    second = closed_form(cubic, 2 * pred, target, summed=summed)
    (first.sum() + second.sum()).backward()
    expected = 3 * (pred - target) ** 2 + 6 * (2 * pred - target) ** 2
    assert_close(pred.grad, expected.detach())


@pytest.mark.parametrize('summed', [False, True])
def test_backward_twice_and_a_second_derivative(summed):
    pred, target = torch.randn(2, 20)
    pred.requires_grad_()
    loss = closed_form(cubic, pred, target, summed=summed).sum()
    loss.backward(retain_graph=True)
    once = pred.grad.clone()
    loss.backward()
    assert_close(pred.grad, 2 * once)
    loss = closed_form(cubic, pred, target, summed=summed).sum()
    (gradient,) = torch.autograd.grad(loss, pred, create_graph=True)
    assert_close(gradient, once)
    assert not gradient.requires_grad


def test_the_gradient_takes_the_memory_of_the_slope_unless_the_graph_is_kept():
    slopes = []

    def equation(x, t):
        loss, slope = cubic(x, t)
        slopes.append(slope.data_ptr())
        return loss, slope

    for keep in (False, True):
        pred = torch.randn(5, requires_grad=True)
        closed_form(equation, pred, torch.zeros(5)).sum().backward(retain_graph=keep)
        assert (pred.grad.data_ptr() == slopes[-1]) is not keep
        assert_close(pred.grad, 3 * pred.detach() ** 2)


def test_two_losses_of_one_prediction_add_up():
    pred, target = torch.randn(2, 20)
    pred.requires_grad_()
    closed_form(cubic, pred, target).sum().backward()
    once = pred.grad.clone()
    closed_form(cubic, pred, target, summed=True).backward()
    assert_close(pred.grad, 2 * once)


def root(x, t):
    """An infinite slope at t, and NaN below it."""
    return (x - t).sqrt(), 0.5 / (x - t).sqrt()


@pytest.mark.parametrize('offset', [0.0, -1.0, math.nan])
def test_a_zero_behind_the_loss_silences_a_wild_slope(offset):
    target = torch.zeros(20)
    pred = torch.full((20,), 4.0)
    pred[3] = offset
    factor = torch.ones(20)
    factor[3] = 0
    _, gradient = value_and_gradient(pred, target, grad_output=factor, equation=root)
    assert_close(gradient, 0.25 * factor)
    _, gradient = value_and_gradient(pred, target, equation=root)
    assert not torch.isfinite(gradient[3])


def test_grad_output_scales_each_element():
    pred, target, factor = torch.randn(3, 20)
    _, gradient = value_and_gradient(pred, target, grad_output=factor)
    assert_close(gradient, factor * 3 * (pred - target) ** 2)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('summed', [False, True])
def test_half_precision_is_computed_in_float32(dtype, summed):
    pred = torch.randn(20).to(dtype)
    target = torch.randn(20)
    loss, gradient = value_and_gradient(pred, target, summed=summed)
    single, slope = value_and_gradient(pred.float(), target, summed=summed)
    assert loss.dtype == torch.float32
    assert gradient.dtype == dtype
    assert_close(loss, single)
    assert_close(gradient, slope.to(dtype))


def test_a_slope_beyond_float16_stays_finite():
    pred = torch.full((20,), 60000.0, dtype=torch.float16)
    loss, gradient = value_and_gradient(pred, torch.zeros(20), grad_output=torch.full((20,), 1.9))
    assert_close(loss, torch.full((20,), 60000.0).half().float() ** 3)
    assert torch.isfinite(gradient).all()
    assert (gradient > 60000).all()
    _, nan = value_and_gradient(pred * math.nan, torch.zeros(20))
    assert torch.isnan(nan).all()


@pytest.mark.parametrize('summed', [False, True])
@pytest.mark.parametrize('shape', [(0,), (0, 3), (3, 0)])
def test_empty(shape, summed):
    loss, gradient = value_and_gradient(torch.zeros(shape), torch.zeros(shape), summed=summed)
    assert loss.shape == (() if summed else shape)
    assert loss.sum() == 0
    assert gradient.shape == shape


def test_gradcheck_over_pieces():
    target = torch.randn(4, 5, dtype=torch.float64)
    pred = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: closed_form(cubic, x, target, scale=0.5), pred)
    assert torch.autograd.gradcheck(lambda x: closed_form(cubic, x, target, summed=True), pred)


@pytest.mark.parametrize('constants', [1, 2])
@pytest.mark.parametrize('grad', [False, True])
@pytest.mark.parametrize('summed', [False, True])
def test_one_graph_for_every_number_of_constants(constants, grad, summed):
    def equation(x, *ts, scale):
        return scale * sum(x * t for t in ts), scale * sum(ts)

    def run(x, *ts, scale):
        return closed_form(equation, x, *ts, summed=summed, scale=scale)

    torch._dynamo.reset()
    compiled = torch.compile(run, fullgraph=True, backend='aot_eager')
    pred = torch.randn(20, requires_grad=True)
    targets = torch.randn(constants, 20)
    for scale in (2.0, 3.0, 4.5):
        with torch.set_grad_enabled(grad):
            found, expected = (f(pred, *targets, scale=scale) for f in (compiled, run))
        assert_close(found, expected)
        assert found.requires_grad == grad
        if grad:
            slopes = [torch.autograd.grad(loss.sum(), pred)[0] for loss in (found, expected)]
            assert_close(slopes[0], slopes[1])


def test_indicator_is_zero_and_one_in_the_type_of_like():
    x = torch.tensor([0.0, 1.0, 2.0, math.nan])
    for dtype in (torch.float32, torch.float64):
        found = indicator(torch.ge, x.to(dtype), 1.0, x.to(dtype))
        assert_close(found, torch.tensor([0.0, 1.0, 1.0, 0.0], dtype=dtype))
    assert_close(indicator(torch.eq, x, torch.tensor(2.0), x), torch.tensor([0.0, 0, 1, 0]))


def row_sums(x, factor):
    """sum of factor x^2 / 2 over all but the first dimension, and its derivative."""
    return (0.5 * factor * x.double() ** 2).flatten(1).sum(-1), factor * x.double()


def test_with_slope_gives_the_gradient_of_parts():
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    loss = with_slope(row_sums, x, 2.0)
    assert_close(loss, torch.tensor([5.0, 25.0], dtype=torch.float64))
    for _ in range(2):  # the slope must survive the first
        (grad,) = torch.autograd.grad(loss, x, torch.tensor([1.0, 3.0]).double(), retain_graph=True)
        assert_close(grad, torch.tensor([[2.0, 4.0], [18.0, 24.0]]))
    with torch.no_grad():
        assert not with_slope(row_sums, x, 2.0).requires_grad


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize('cells', [4, 5000])  # few and many take another way
@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
def test_with_slope_is_silent_behind_a_weight_of_zero(value, cells, dtype):
    x = torch.ones(3, cells, 2, dtype=dtype)
    x[1] = value
    x.requires_grad_()
    with_slope(row_sums, x, 2.0).backward(torch.tensor([0.5, 0.0, -2.0]).double())
    assert_close(x.grad[0], torch.ones_like(x[0]))
    assert (x.grad[1] == 0).all()
    assert_close(x.grad[2], -4 * torch.ones_like(x[0]))
