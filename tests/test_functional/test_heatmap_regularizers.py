"""Maps against Gaussians, JS, KL and MSE: dsntnn, scipy, loops in float64, limits, properties."""

from __future__ import annotations

import itertools
import math

import dsntnn
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from torch.testing import assert_close

from mmloss_plugins.functional import (
    _gaussian,
    heatmap_js,
    heatmap_kl,
    heatmap_mse_reg,
    normalize_heatmap,
    value_checks,
)

# Rows of fewer than 12 cells and longer ones take another path on a CPU.
SHAPES = [(2, 3, 6, 6), (2, 3, 5, 7), (3, 2, 13, 16), (3, 2, 16, 5), (2, 3, 9), (2, 2, 3, 4, 5)]
LOSSES = [heatmap_js, heatmap_kl, heatmap_mse_reg]


def maps(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    return normalize_heatmap(2 * x).to(dtype)


def points(*shape, seed=1, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    size = (*shape[:2], len(shape) - 2)
    return (1.8 * torch.rand(size, generator=generator, dtype=torch.float64) - 0.9).to(dtype)


def gaussian(mean, sizes, sigmas):
    """Normalised Gaussian (*sizes) in Python floats; mean and sigmas x first, px of the map."""
    result = torch.empty(sizes, dtype=torch.float64)
    centres = [(m + 1) * n / 2 - 0.5 for m, n in zip(mean, reversed(sizes))]
    for place in itertools.product(*map(range, sizes)):
        terms = zip(reversed(place), centres, sigmas)
        result[place] = math.exp(-math.fsum((i - c) ** 2 / (2 * s**2) for i, c, s in terms))
    return result / math.fsum(result.flatten().tolist())


def gaussians(mean, sizes, sigma=1.0):
    sigmas = sigma if isinstance(sigma, (list, tuple)) else [sigma] * len(sizes)
    found = [[gaussian(one.tolist(), sizes, sigmas) for one in sample] for sample in mean]
    return torch.stack([torch.stack(row) for row in found])


def by_loop(loss, p, q):
    """Definition in Python floats for one map."""
    kl = lambda a, b: math.fsum(x * math.log(x / y) for x, y in zip(a, b) if x > 0)  # noqa: E731
    p, q = p.flatten().tolist(), q.flatten().tolist()
    if loss is heatmap_mse_reg:
        return math.fsum((x - y) ** 2 for x, y in zip(p, q))
    if loss is heatmap_kl:
        return kl(p, q)
    m = [(x + y) / 2 for x, y in zip(p, q)]
    return (kl(p, m) + kl(q, m)) / 2


def value_and_gradient(loss, heatmap, mean, grad_output=None, **options):
    heatmap = heatmap.detach().clone().requires_grad_()
    found = loss(heatmap, mean, **options)
    found.backward(torch.ones_like(found) if grad_output is None else grad_output)
    return found.detach(), heatmap.grad


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('loss', LOSSES)
def test_equals_a_loop(loss, shape):
    heatmap, mean = maps(*shape), points(*shape)
    sigmas = [1.2, 0.7, 2.0][: len(shape) - 2]
    for sigma in (1.0, 0.8, sigmas, tuple(sigmas)):
        q = gaussians(mean, shape[2:], sigma)
        found = loss(heatmap, mean, sigma_px=sigma)
        expected = [[by_loop(loss, *pair) for pair in zip(*rows)] for rows in zip(heatmap, q)]
        assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize(
    ('loss', 'theirs'), [(heatmap_js, dsntnn.js_reg_losses), (heatmap_kl, dsntnn.kl_reg_losses)]
)
def test_equals_dsntnn_with_gradient_of_logits(loss, theirs, shape):
    ours = torch.randn(shape, dtype=torch.float64)
    other = ours.clone().requires_grad_()
    ours.requires_grad_()
    mean = points(*shape)
    # Where the Gaussian falls below 1e-24, dsntnn's KL is another one: see below.
    found = loss(normalize_heatmap(ours), mean, sigma_px=2.0)
    expected = theirs(dsntnn.flat_softmax(other), mean, 2.0)
    assert_close(found, expected)
    grad_output = torch.randn(found.shape, dtype=torch.float64)
    found.backward(grad_output)
    expected.backward(grad_output)
    assert_close(ours.grad, other.grad)


def test_the_gradient_of_a_map_equals_that_of_dsntnn():
    heatmap, mean = maps(2, 3, 5, 7), points(2, 3, 5, 7)
    for ours, theirs, constant in (
        (heatmap_js, dsntnn.js_reg_losses, 0.0),
        (heatmap_kl, dsntnn.kl_reg_losses, 1.0),  # 1 - sum(p) is 0 for maps that sum to 1
    ):
        _, found = value_and_gradient(ours, heatmap, mean)
        leaf = heatmap.clone().requires_grad_()
        theirs(leaf, mean, 1.0).sum().backward()
        assert_close(found + constant, leaf.grad)


def test_mse_equals_dsntnn_gaussians():
    heatmap, mean = maps(2, 3, 5, 7), points(2, 3, 5, 7)
    q = dsntnn.make_gauss(mean, (5, 7), 1.0)
    assert_close(heatmap_mse_reg(heatmap, mean), (heatmap - q).square().sum((2, 3)))


@pytest.mark.parametrize('base', ['e', 2])
def test_js_equals_scipy(base):
    heatmap, mean = maps(2, 3, 5, 7), points(2, 3, 5, 7)
    found = heatmap_js(heatmap, mean, base=base)
    q = gaussians(mean, (5, 7))
    number = math.e if base == 'e' else base
    expected = jensenshannon(heatmap.flatten(2), q.flatten(2), base=number, axis=-1) ** 2
    assert_close(found, torch.from_numpy(expected))


def test_by_hand():
    # A mean halfway between two cells makes q = (1/2, 1/2), and p = (1, 0), m = (3/4, 1/4):
    # JS = 1/2 log(4/3) + 1/2 (1/2 log(2/3) + 1/2 log 2) = 1/2 log(4/3) + 1/4 log(4/3),
    # KL = log 2, MSE = 1/2.
    p, mean = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.0]]])
    assert_close(heatmap_js(p, mean).item(), 0.75 * math.log(4 / 3))
    assert_close(heatmap_kl(p, mean).item(), math.log(2))
    assert_close(heatmap_mse_reg(p, mean).item(), 0.5)
    # Slopes: 1/2 log(p / m) at the first cell, log(p / q), 2 (p - q).
    slopes = [value_and_gradient(loss, p, mean)[1][0, 0, 0].item() for loss in LOSSES]
    assert_close(slopes, [0.5 * math.log(4 / 3), math.log(2), 1.0])


@pytest.mark.parametrize('shape', [(2, 2, 3, 4), (2, 1, 13), (1, 2, 2, 2, 12)])
@pytest.mark.parametrize('loss', LOSSES)
def test_gradcheck(loss, shape):
    # A cell of 1e-6 would curve within the steps of gradcheck.
    heatmap, mean = normalize_heatmap(maps(*shape)).requires_grad_(), points(*shape)
    assert torch.autograd.gradcheck(lambda p: 3 * loss(p, mean, sigma_px=2.5), heatmap)
    if loss is heatmap_js:
        assert torch.autograd.gradcheck(lambda p: -loss(p, mean, sigma_px=2.5, base=2), heatmap)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.floats(0.1, 20), st.floats(0.05, 5))
def test_js_is_bounded_and_symmetric(seed, sharpness, sigma):
    generator = torch.Generator().manual_seed(seed)
    heatmap = normalize_heatmap(sharpness * torch.randn(2, 3, 5, 14, generator=generator))
    mean, other = 2 * torch.rand(2, 2, 3, 2, generator=generator) - 1
    for base, top in (('e', math.log(2)), (2, 1.0)):
        found = heatmap_js(heatmap, mean, sigma_px=sigma, base=base)
        assert ((found >= 0) & (found <= top * (1 + 1e-6))).all()
    p, q = (gaussians(each.double(), (5, 14), sigma).float() for each in (mean, other))
    there, back = (
        heatmap_js(p, other, sigma_px=sigma),
        heatmap_js(q, mean, sigma_px=sigma),
    )
    assert_close(there, back, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize('loss', LOSSES)
@pytest.mark.parametrize('size', [(7, 7), (9, 20)])
def test_zero_where_the_map_is_the_gaussian(loss, size):
    mean = points(2, 3, *size)
    value, slope = value_and_gradient(loss, gaussians(mean, size), mean)
    assert_close(value, torch.zeros_like(value), rtol=0, atol=1e-14)
    assert_close(slope, torch.zeros_like(slope), rtol=0, atol=1e-12)


@pytest.mark.parametrize('distance', [1e-1, 1e-2, 1e-3])
def test_js_of_nearly_equal_maps_does_not_cancel(distance):
    """JS is the small difference of large sums in dsntnn, which may even be negative there."""
    shape = (4, 5, 14, 14)
    mean = points(*shape)
    q = gaussians(mean, shape[2:], 2.0)
    p = normalize_heatmap(q.log() + distance * torch.randn(shape, dtype=torch.float64))
    exact = heatmap_js(p, mean, sigma_px=2.0)
    ours = heatmap_js(p.float(), mean.float(), sigma_px=2.0)
    theirs = dsntnn.js_reg_losses(p.float(), mean.float(), 2.0)
    error, their_error = ((each.double() / exact - 1).abs().max() for each in (ours, theirs))
    assert error < 3e-6 / distance
    assert ours.min() > 0
    if distance == 1e-3:
        assert their_error > 10 * error


@pytest.mark.parametrize('loss', LOSSES)
@pytest.mark.parametrize('far', [1.5, 5.0, 1e3, 1e5])
def test_means_far_off_the_map(loss, far):
    """The Gaussian is that of the cells that are there: most of its mass in the nearest one."""
    shape = (2, 3, 7, 13)
    heatmap, mean = maps(*shape, dtype=torch.float32), points(*shape, dtype=torch.float32)
    mean[..., 0] = far
    with value_checks(False):
        value, slope = value_and_gradient(loss, heatmap, mean)
    assert value.isfinite().all()
    assert slope.isfinite().all()
    assert (slope[..., -1].mean((0, 1)) < slope[..., 0].mean((0, 1))).all(), 'it pulls to the right'
    if far == 1e3:
        edge = torch.zeros(shape)
        nearest = ((mean[..., 1] + 1) * 3.5 - 0.5).round().long().clamp(0, 6)
        edge[..., -1] = torch.nn.functional.one_hot(nearest, 7)
        with value_checks(False):
            wide = loss(edge, mean, sigma_px=(1.0, 0.01))
        assert_close(wide, torch.zeros(2, 3), rtol=0, atol=1e-6)
        # dsntnn's Gaussian is all zeros there, whatever the map.
        assert dsntnn.make_gauss(mean, (7, 13), 1.0).sum() == 0


def test_kl_goes_on_growing_where_dsntnn_stops():
    heatmap = torch.zeros(1, 1, 1, 64)
    found, theirs, slopes = [], [], []
    for cell in (20, 40, 60):
        p = torch.zeros_like(heatmap)
        p[..., cell] = 1
        value, slope = value_and_gradient(heatmap_kl, p, torch.tensor([[[-63 / 64, 0.0]]]))
        found.append(value.item())
        slopes.append(slope[..., cell].item())
        theirs.append(dsntnn.kl_reg_losses(p, torch.tensor([[[-63 / 64, 0.0]]]), 1.0).item())
    # Half the squared distance and the log of the sum of the half Gaussian over the cells.
    constant = math.log(math.fsum(math.exp(-(i**2) / 2) for i in range(64)))
    assert_close(found, [200 + constant, 800 + constant, 1800 + constant])
    assert_close(slopes, found)
    assert theirs[0] == theirs[1] == theirs[2]


@pytest.mark.parametrize('loss', LOSSES)
def test_pieces_equal_the_whole(loss, monkeypatch):
    shape = (3, 5, 4, 14)
    heatmap, mean = maps(*shape), points(*shape)
    grad_output = torch.randn(3, 5, dtype=torch.float64)
    whole = value_and_gradient(loss, heatmap, mean, grad_output)
    for piece in (10, 56 * 2, 56 * 4 + 1):
        monkeypatch.setattr(_gaussian, 'PIECE', piece)
        assert_close(value_and_gradient(loss, heatmap, mean, grad_output), whole)
    backwards = heatmap.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    assert_close(value_and_gradient(loss, backwards, mean, grad_output), whole)


@pytest.mark.parametrize('loss', LOSSES)
def test_backward_twice(loss):
    heatmap, mean = maps(2, 3, 5, 7).requires_grad_(), points(2, 3, 5, 7)
    value = loss(heatmap, mean).sum()
    (first,) = torch.autograd.grad(value, heatmap, retain_graph=True)
    (second,) = torch.autograd.grad(value, heatmap)
    assert_close(first, second, rtol=0, atol=0)
    with torch.no_grad():
        assert_close(loss(heatmap, mean).sum(), value)


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize('where', ['heatmap', 'mean'])
@pytest.mark.parametrize('loss', LOSSES)
@pytest.mark.parametrize('shape', [(2, 3, 5, 7), (2, 3, 60, 60)])  # two ways to silence
def test_no_gradient_behind_a_weight_of_zero(loss, where, value, shape):
    heatmap, mean = maps(*shape), points(*shape)
    weight = torch.rand(2, 3, dtype=torch.float64) + 0.1
    weight[1, 0] = 0
    clean, expected = value_and_gradient(loss, heatmap, mean, weight)
    assert (expected[1, 0] == 0).all()
    (heatmap if where == 'heatmap' else mean)[1, 0] = value
    with value_checks(False):
        found, gradient = value_and_gradient(loss, heatmap, mean, weight)
    assert not found[1, 0].isfinite()
    assert_close(gradient, expected)
    assert_close(found[weight != 0], clean[weight != 0])


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('loss', LOSSES)
def test_half_maps_are_compared_in_float32(loss, dtype):
    shape = (2, 3, 5, 14)
    heatmap, mean = maps(*shape).to(dtype), points(*shape).to(dtype)
    found, slope = value_and_gradient(loss, heatmap, mean)
    exact, exact_slope = value_and_gradient(loss, heatmap.double(), mean.double())
    assert found.dtype == torch.float32
    assert slope.dtype == dtype
    assert_close(found.double(), exact, rtol=1e-5, atol=1e-6)
    assert_close(slope, exact_slope.to(dtype), rtol=1e-2, atol=1e-3)
    with torch.autocast('cpu', dtype=dtype):
        assert_close(value_and_gradient(loss, heatmap, mean), (found, slope), rtol=0, atol=0)


@pytest.mark.parametrize('loss', LOSSES)
@pytest.mark.parametrize('width', [7, 14])
def test_empty_batch_and_compile(loss, width):
    empty = torch.zeros(0, 3, 5, width, requires_grad=True)
    found = loss(empty, torch.zeros(0, 3, 2))
    found.sum().backward()
    assert found.shape == (0, 3)
    assert empty.grad.shape == empty.shape
    heatmap, mean = maps(2, 3, 5, width), points(2, 3, 5, width)
    compiled = torch.compile(loss, fullgraph=True, backend='aot_eager')
    expected = value_and_gradient(loss, heatmap, mean, sigma_px=(1.0, 1.5))
    assert_close(value_and_gradient(compiled, heatmap, mean, sigma_px=(1.0, 1.5)), expected)


@pytest.mark.parametrize('loss', LOSSES)
def test_bad_input(loss):
    what, heatmap, mean = loss.__name__, maps(2, 3, 5, 7), points(2, 3, 5, 7)
    for sigma in (0, -1.0, math.nan, math.inf, (1.0, 0.0)):
        with pytest.raises(ValueError, match=f'^{what}: sigma_px must be > 0 and finite, got'):
            loss(heatmap, mean, sigma_px=sigma)
    for sigma in ('1', None, [1.0, '2'], True):
        with pytest.raises(TypeError, match='sigma_px must be a number or one per axis'):
            loss(heatmap, mean, sigma_px=sigma)
    with pytest.raises(ValueError, match='one for each of the 2 axes'):
        loss(heatmap, mean, sigma_px=[1.0])
    for wrong in (mean[:, :2], mean[..., :1], mean[0], heatmap):
        with pytest.raises(ValueError, match=r'mean must have the shape \(B, K, D\) = \(2, 3, 2\)'):
            loss(heatmap, wrong)
    with pytest.raises(ValueError, match='mean must not require a gradient'):
        loss(heatmap, mean.clone().requires_grad_())
    with pytest.raises(TypeError, match='mean must be a tensor, got list'):
        loss(heatmap, mean.tolist())
    with pytest.raises(ValueError, match='heatmap must have the shape'):
        loss(heatmap[0, 0], mean)
    for bad in (31.5, math.nan):
        px = mean.clone()
        px[1, 2, 0] = bad
        with pytest.raises(
            ValueError, match=rf'within \[-1, 1\], got {bad:g} at index \(1, 2, 0\)'
        ):
            loss(heatmap, px)


@pytest.mark.parametrize('base', ['2', 10, math.e, None])
def test_bad_base(base):
    with pytest.raises(ValueError, match="heatmap_js: base must be 'e' or 2, got"):
        heatmap_js(maps(2, 3, 5, 7), points(2, 3, 5, 7), base=base)
