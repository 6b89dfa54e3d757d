"""Mean, variance and covariance of maps and the Euclidean loss: dsntnn, loops, properties."""

from __future__ import annotations

import itertools
import math

import dsntnn
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from mmloss_plugins.functional import (
    dsnt,
    euclidean_loss,
    heatmap_covariance,
    heatmap_variance,
    normalize_heatmap,
    value_checks,
)

# Rows of fewer than 12 cells and longer ones take another path on a CPU.
SHAPES = [(2, 3, 6, 6), (2, 3, 5, 7), (3, 2, 13, 16), (3, 2, 16, 5), (2, 3, 9), (2, 2, 3, 4, 5)]
SHAPES += [(2, 2, 2, 3, 13)]


def maps(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    return normalize_heatmap(2 * x).to(dtype)


def moments(one):
    """Mean in (-1, 1) and covariance in px^2 of one map (*S), x first, in Python floats."""
    sizes = one.shape[::-1]
    cells = [
        (index[::-1], one[index].item()) for index in itertools.product(*map(range, one.shape))
    ]
    axes = range(len(sizes))
    mean = [math.fsum(mass * place[a] for place, mass in cells) for a in axes]
    covariance = [
        [math.fsum(m * (i[a] - mean[a]) * (i[b] - mean[b]) for i, m in cells) for b in axes]
        for a in axes
    ]
    centres = [(2 * m + 1) / n - 1 for m, n in zip(mean, sizes)]
    return centres, covariance


@pytest.mark.parametrize('shape', SHAPES)
def test_moments_equal_a_loop(shape):
    heatmap = maps(*shape)
    mean, variance, covariance = (
        dsnt(heatmap),
        heatmap_variance(heatmap),
        heatmap_covariance(heatmap),
    )
    assert covariance.shape == (*shape[:2], len(shape) - 2, len(shape) - 2)
    for b, k in itertools.product(range(shape[0]), range(shape[1])):
        expected_mean, expected = moments(heatmap[b, k])
        assert_close(mean[b, k].tolist(), expected_mean)
        assert_close(covariance[b, k].tolist(), expected, rtol=1e-9, atol=1e-12)
        assert_close(variance[b, k], covariance[b, k].diagonal())


@pytest.mark.parametrize('shape', SHAPES)
def test_dsnt_equals_dsntnn_with_gradient(shape):
    ours, theirs = (maps(*shape).requires_grad_() for _ in range(2))
    found, expected = dsnt(ours), dsntnn.dsnt(theirs)
    assert_close(found, expected)
    grad_output = torch.randn(found.shape, dtype=torch.float64)
    found.backward(grad_output)
    expected.backward(grad_output)
    assert_close(ours.grad, theirs.grad)
    with torch.no_grad():
        assert_close(dsnt(ours), expected)


def test_dsnt_by_hand():
    # Two rows of four cells: centres -0.75, -0.25, 0.25, 0.75 along x and -0.5, 0.5 along y.
    heatmap = torch.tensor([[[[0.0, 0.5, 0.0, 0.0], [0.0, 0.0, 0.0, 0.5]]]])
    assert_close(dsnt(heatmap), torch.tensor([[[0.25, 0.0]]]))
    assert_close(heatmap_variance(heatmap), torch.tensor([[[1.0, 0.25]]]))
    assert_close(heatmap_covariance(heatmap), torch.tensor([[[[1.0, 0.5], [0.5, 0.25]]]]))
    line = torch.tensor([[[0.25, 0.0, 0.75]]])
    assert_close(dsnt(line), torch.tensor([[[1 / 3]]]))
    solid = torch.zeros(1, 1, 2, 4, 8)
    solid[0, 0, 1, 2, 3] = 1
    assert_close(dsnt(solid), torch.tensor([[[-0.125, 0.25, 0.5]]]))


@pytest.mark.parametrize('shape', [(2, 2, 3, 4), (2, 1, 13), (1, 2, 2, 2, 12)])
@pytest.mark.parametrize('function', [dsnt, heatmap_variance, heatmap_covariance])
def test_gradcheck(function, shape):
    heatmap = maps(*shape).requires_grad_()
    assert torch.autograd.gradcheck(lambda heatmap: 3 * function(heatmap), heatmap)


@pytest.mark.parametrize('width', [7, 14])
def test_dsnt_keeps_no_map_for_backward(width):
    kept = []
    heatmap = maps(2, 3, 5, width).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda tensor: tensor):
        dsnt(heatmap)
    assert kept == []


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 9), st.integers(0, 20), st.integers(0, 2**31))
def test_a_shift_of_the_map_shifts_the_mean(down, right, seed):
    blob = maps(1, 2, 3, 4, seed=seed)
    field = torch.zeros(1, 2, 13, 25, dtype=torch.float64)
    field[..., :3, :4] = blob
    moved = field.roll((down, right), (2, 3))
    step = torch.tensor([2 * right / 25, 2 * down / 13], dtype=torch.float64)
    assert_close(dsnt(moved), dsnt(field) + step)
    assert_close(heatmap_covariance(moved), heatmap_covariance(field), rtol=1e-9, atol=1e-12)
    assert_close(dsnt(moved.flip(-1))[..., 0], -dsnt(moved)[..., 0])


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('width', [7, 64])
def test_half_maps_are_summed_in_float32(dtype, width):
    heatmap = maps(2, 3, 16, width).to(dtype).requires_grad_()
    exact = heatmap.detach().double()
    for function in (dsnt, heatmap_variance, heatmap_covariance):
        found = function(heatmap)
        assert found.dtype == torch.float32
        assert_close(found.double(), function(exact), rtol=1e-4, atol=1e-5)
        found.sum().backward()
        assert heatmap.grad.dtype == dtype
        with torch.autocast('cpu', dtype=dtype):
            assert_close(function(heatmap), found, rtol=0, atol=0)


@pytest.mark.parametrize('function', [dsnt, heatmap_variance, heatmap_covariance])
def test_layout_empty_batch_and_compile(function):
    heatmap = maps(7, 5, 3, 2).permute(3, 2, 1, 0)
    heatmap = heatmap / heatmap.sum((2, 3), keepdim=True)
    expected = function(heatmap.contiguous())
    assert_close(function(heatmap), expected)
    empty = torch.zeros(0, 3, 4, 5, requires_grad=True)
    found = function(empty)
    found.sum().backward()
    assert found.shape == (0, *expected.shape[1:])
    assert empty.grad.shape == empty.shape
    compiled = torch.compile(function, fullgraph=True, backend='aot_eager')
    pair = [heatmap.detach().clone().requires_grad_() for _ in range(2)]
    for call, leaf in zip((compiled, function), pair):
        found = call(leaf)
        assert_close(found, expected)
        found.square().sum().backward()
    assert_close(pair[0].grad, pair[1].grad)


def test_variance_keeps_its_digits_far_from_the_centre():
    # A one-cell wide pair at the end of a long row: 1/4 px^2, where x^2 is 4e6.
    heatmap = torch.zeros(1, 1, 1, 4000)
    heatmap[..., -2:] = 0.5
    assert_close(heatmap_variance(heatmap)[0, 0, 0].item(), 0.25, rtol=1e-3, atol=0)


@pytest.mark.parametrize('function', [dsnt, heatmap_variance, heatmap_covariance])
def test_checks_of_maps(function):
    what = function.__name__
    with pytest.raises(ValueError, match=rf'^{what}: heatmap must have the shape .* got \(2, 3\)'):
        function(torch.zeros(2, 3))
    with pytest.raises(TypeError, match='floating-point'):
        function(torch.zeros(2, 3, 4, dtype=torch.int32))
    logits = torch.zeros(2, 3, 4, 5) + 0.05
    logits[1, 2, 3, 4] = -0.1
    with pytest.raises(ValueError, match=r'non-negative, got -0.1 in map \(1, 2\)\. Pass normal'):
        function(logits)
    logits[1, 2, 3, 4] = 0.5
    with pytest.raises(ValueError, match=r'sum to 1 over each map, got 1.45 in map \(1, 2\)'):
        function(logits)
    with value_checks(False):
        assert function(logits).isfinite().all()
    logits[1, 2] = math.nan
    assert function(logits)[1, 2].isnan().all()


def pairs(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((2, *shape), generator=generator, dtype=torch.float64).unbind()


def test_distance_by_hand():
    pred = torch.tensor([[[3.0, 4.0], [1.0, 1.0]]], requires_grad=True)
    loss = euclidean_loss(pred, torch.tensor([[[0.0, 0.0], [1.0, 0.5]]]))
    assert_close(loss, torch.tensor([[5.0, 0.5]]))
    loss.backward(torch.tensor([[1.0, 2.0]]))
    assert_close(pred.grad, torch.tensor([[[0.6, 0.8], [0.0, 2.0]]]))


@pytest.mark.parametrize('shape', [(2, 3, 2), (2, 3, 3), (4, 5, 1), (7, 2)])
def test_distance_equals_dsntnn_with_gradient(shape):
    pred, target = pairs(*shape)
    ours, theirs = (pred.clone().requires_grad_() for _ in range(2))
    found, expected = euclidean_loss(ours, target), dsntnn.euclidean_losses(theirs, target)
    assert_close(found, expected)
    grad_output = torch.rand(found.shape, dtype=torch.float64)
    found.backward(grad_output)
    expected.backward(grad_output)
    assert_close(ours.grad, theirs.grad)
    assert torch.autograd.gradcheck(lambda pred: 2 * euclidean_loss(pred, target), ours)


def test_the_authors_average_is_wrong_for_soft_masks():
    # Weights 0.25 and 0.25 on distances 1 and 3: their weighted mean is 2. dsntnn divides their
    # sum by 1 where the weights sum to less.
    loss = euclidean_loss(torch.tensor([[[1.0, 0.0], [0.0, 3.0]]]), torch.zeros(1, 2, 2))
    weight = torch.tensor([[0.25, 0.25]])
    assert_close((loss * weight).sum() / weight.sum(), torch.tensor(2.0))
    assert_close(dsntnn.average_loss(loss, weight), torch.tensor(1.0))
    assert_close(dsntnn.average_loss(loss, weight.sign()), torch.tensor(2.0))


@pytest.mark.parametrize('scale', [0.0, 1e-30, 1e-21])
def test_gradient_ends_at_zero_distance(scale):
    pred = torch.tensor([[scale, 0.0], [3.0, 0.0]], requires_grad=True)
    euclidean_loss(pred, torch.zeros(2, 2)).sum().backward()
    assert pred.grad[0].abs().max() <= 1
    assert (pred.grad[0] == 0).all() or scale
    assert_close(pred.grad[1], torch.tensor([1.0, 0.0]))


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize('where', ['pred', 'target'])
def test_no_gradient_behind_a_weight_of_zero(where, value):
    pred, target = pairs(2, 3, 2)
    (pred if where == 'pred' else target)[1, 0] = value
    pred.requires_grad_()
    loss = euclidean_loss(pred, target)
    assert not loss[1, 0].isfinite()
    weight = torch.ones(2, 3, dtype=torch.float64)
    weight[1, 0] = 0
    loss.backward(weight)
    assert (pred.grad[1, 0] == 0).all()
    assert (pred.grad.norm(dim=-1)[weight != 0] - 1).abs().max() < 1e-12


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_distance_of_half_points(dtype):
    pred = torch.tensor([[65504.0, -65504.0], [0.0, 6e-8]], dtype=dtype).requires_grad_()
    loss = euclidean_loss(pred, -pred.detach())
    assert loss.dtype == torch.float32
    assert_close(loss, 2 * pred.detach().float().norm(dim=-1))
    loss.sum().backward()
    assert_close(
        pred.grad.float(), torch.tensor([[0.5**0.5, -(0.5**0.5)], [0, 1]]), atol=4e-3, rtol=0
    )


def test_distance_of_bad_input():
    with pytest.raises(ValueError, match='target must have the shape'):
        euclidean_loss(torch.zeros(2, 3, 2), torch.zeros(2, 4, 2))
    with pytest.raises(ValueError, match=r'pred must have the shape \(\.\.\., D\), got \(\)'):
        euclidean_loss(torch.zeros(()), torch.zeros(()))
    with pytest.raises(ValueError, match='not require a gradient'):
        euclidean_loss(torch.zeros(2, 2), torch.zeros(2, 2, requires_grad=True))
