"""The variance regulariser: dsntnn, autograd of the definition, units, extremes."""

from __future__ import annotations

import math

import dsntnn
import pytest
import torch
from torch.testing import assert_close

from mmloss_plugins.functional import heatmap_variance, heatmap_variance_loss, normalize_heatmap

SHAPES = [(2, 3, 6, 6), (2, 3, 5, 7), (3, 2, 13, 16), (2, 3, 9), (2, 2, 3, 4, 5), (1, 2, 2, 3, 13)]


def maps(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    return normalize_heatmap(2 * x).to(dtype)


def value_and_gradient(function, heatmap, grad_output=None, **options):
    heatmap = heatmap.detach().clone().requires_grad_()
    found = function(heatmap, **options)
    found.backward(torch.ones_like(found) if grad_output is None else grad_output)
    return found.detach(), heatmap.grad


def definition(heatmap, sigmas, unit='px'):
    """sum_a (E[(x - E x)^2] - sigma^2)^2 with full grids; autograd differentiates it."""
    total = 0
    for axis, sigma in enumerate(sigmas):
        dim = heatmap.dim() - 1 - axis
        size = heatmap.shape[dim]
        scale = 1.0 if unit == 'px' else 2 / size
        place = [1] * heatmap.dim()
        place[dim] = size
        x = scale * torch.arange(size, dtype=heatmap.dtype).view(place)
        cells = tuple(range(2, heatmap.dim()))
        mean = (heatmap * x).sum(cells, keepdim=True)
        variance = (heatmap * (x - mean) ** 2).sum(cells)
        total = total + (variance - (scale * sigma) ** 2) ** 2
    return total


@pytest.mark.parametrize('unit', ['px', 'normalized'])
@pytest.mark.parametrize('shape', SHAPES)
def test_equals_the_definition(shape, unit):
    heatmap = maps(*shape)
    sigmas = (1.3, 0.8, 2.0)[: len(shape) - 2]
    grad_output = torch.randn(shape[:2], dtype=torch.float64)
    options = dict(sigma_px=sigmas, unit=unit)
    found = value_and_gradient(heatmap_variance_loss, heatmap, grad_output, **options)
    expected = value_and_gradient(
        lambda heatmap: definition(heatmap, sigmas, unit), heatmap, grad_output
    )
    assert_close(found, expected)
    with torch.no_grad():
        assert_close(heatmap_variance_loss(heatmap, **options), expected[0])


@pytest.mark.parametrize('shape', SHAPES)
def test_pixels_equal_dsntnn_with_gradient(shape):
    found = value_and_gradient(heatmap_variance_loss, maps(*shape), sigma_px=1.3)
    expected = value_and_gradient(lambda p: dsntnn.variance_reg_losses(p, 1.3), maps(*shape))
    assert_close(found, expected)


def test_by_hand():
    # Half of the mass at each end of three cells: variance 1 px^2 along x, 0 along y.
    heatmap = torch.tensor([[[[0.5, 0.0, 0.5], [0.0, 0.0, 0.0]]]])
    assert_close(heatmap_variance_loss(heatmap).item(), 1.0)  # (1 - 1)^2 + (0 - 1)^2
    assert_close(heatmap_variance_loss(heatmap, sigma_px=(2.0, 0.5)).item(), 9.0 + 0.0625)
    # In a map 2 wide a cell is 2/3 wide and 1 high: (4/9 (1 - 4))^2 + (1 (0 - 1/4))^2.
    found = heatmap_variance_loss(heatmap, sigma_px=(2.0, 0.5), unit='normalized')
    assert_close(found.item(), (4 / 3) ** 2 + 0.0625)


def test_the_papers_weight_in_pixels():
    """100 in normalised units is 2.6e-3 in pixels of a map 28 wide."""
    heatmap = maps(2, 3, 28, 28)
    paper = 100 * heatmap_variance_loss(heatmap, unit='normalized')
    assert_close(paper, 100 * (2 / 28) ** 4 * heatmap_variance_loss(heatmap))
    assert_close(100 * (2 / 28) ** 4, 2.6e-3, rtol=2e-3, atol=0)


def test_zero_at_the_wanted_variance():
    heatmap = maps(2, 3, 5, 14)
    sigmas = heatmap_variance(heatmap)[1, 2].sqrt().tolist()
    value, slope = value_and_gradient(heatmap_variance_loss, heatmap, sigma_px=sigmas)
    assert_close(value[1, 2].item(), 0.0, rtol=0, atol=1e-24)
    assert_close(slope[1, 2], torch.zeros(5, 14, dtype=torch.float64), rtol=0, atol=1e-10)
    assert (value.flatten()[:-1] > 1e-6).all()


@pytest.mark.parametrize('unit', ['px', 'normalized'])
@pytest.mark.parametrize('mass', [1.0, 0.6])
def test_gradcheck(unit, mass):
    heatmap = (mass * maps(2, 2, 3, 4)).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda p: 3 * heatmap_variance_loss(p, sigma_px=(0.9, 1.2), unit=unit), heatmap
    )


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize('cells', [1, 35])
def test_no_gradient_behind_a_weight_of_zero(value, cells):
    heatmap = maps(2, 3, 5, 7)
    weight = torch.rand(2, 3, dtype=torch.float64) + 0.1
    weight[1, 0] = 0
    _, expected = value_and_gradient(heatmap_variance_loss, heatmap, weight)
    heatmap[1, 0].flatten()[-cells:] = value
    found, gradient = value_and_gradient(heatmap_variance_loss, heatmap, weight)
    assert not found[1, 0].isfinite()
    assert (gradient[1, 0] == 0).all()
    assert_close(gradient, expected)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('side', [7, 64])
def test_every_half_value_is_finite(dtype, side):
    rows = [[65504.0], [-65504.0], [65504.0, -65504.0, 0.0], [6e-8, 65504.0], [0.0]]
    cells = side * side
    flat = torch.tensor([(row * cells)[:cells] for row in rows]).to(dtype)
    value, slope = value_and_gradient(heatmap_variance_loss, flat.view(1, -1, side, side))
    assert value.dtype == torch.float32
    assert slope.dtype == dtype
    assert value.isfinite().all()
    assert slope.isfinite().all()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_maps_are_summed_in_float32(dtype):
    heatmap = maps(2, 3, 5, 14).to(dtype)
    found, slope = value_and_gradient(heatmap_variance_loss, heatmap)
    exact, exact_slope = value_and_gradient(heatmap_variance_loss, heatmap.double())
    assert_close(found.double(), exact, rtol=1e-4, atol=1e-5)
    assert_close(slope, exact_slope.to(dtype), rtol=2e-2, atol=1e-2)
    with torch.autocast('cpu', dtype=dtype):
        assert_close(heatmap_variance_loss(heatmap), found, rtol=0, atol=0)


def test_keeps_little_for_backward():
    kept = []
    heatmap = maps(4, 5, 16, 16).requires_grad_()

    def pack(tensor):
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        heatmap_variance_loss(heatmap)
    assert sum(kept) <= 6 * 4 * 5  # three numbers per map and axis


def test_layout_empty_batch_and_compile():
    heatmap = maps(7, 5, 3, 2).permute(3, 2, 1, 0)
    expected = value_and_gradient(heatmap_variance_loss, heatmap.contiguous())
    assert_close(value_and_gradient(heatmap_variance_loss, heatmap), expected)
    compiled = torch.compile(heatmap_variance_loss, fullgraph=True, backend='aot_eager')
    assert_close(value_and_gradient(compiled, heatmap), expected)
    empty = torch.zeros(0, 3, 4, 5, requires_grad=True)
    found = heatmap_variance_loss(empty)
    found.sum().backward()
    assert found.shape == (0, 3)
    assert empty.grad.shape == empty.shape


def test_bad_input():
    heatmap = maps(2, 3, 5, 7)
    with pytest.raises(ValueError, match="unit must be one of 'px', 'normalized', got 'pixel'"):
        heatmap_variance_loss(heatmap, unit='pixel')
    with pytest.raises(ValueError, match="Did you mean 'normalized'"):
        heatmap_variance_loss(heatmap, unit='normalised')
    with pytest.raises(ValueError, match='sigma_px must be > 0 and finite, got 0'):
        heatmap_variance_loss(heatmap, sigma_px=0)
    with pytest.raises(ValueError, match='one for each of the 2 axes'):
        heatmap_variance_loss(heatmap, sigma_px=(1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match='heatmap must have the shape'):
        heatmap_variance_loss(heatmap[0, 0])
