"""Normalisation of heatmaps: values by hand, dsntnn, loops in float64, extremes of half types."""

from __future__ import annotations

import math

import dsntnn
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from mmloss_plugins.functional import dsnt, normalize_heatmap
from mmloss_plugins.functional.dsnt_layer import NORMALIZATIONS

SHAPES = [(2, 3, 6, 6), (2, 3, 5, 7), (2, 3, 4, 14), (2, 3, 9), (2, 2, 3, 4, 5)]
EXTREMES = [0.0, 65504.0, -65504.0, 1e4, -1e4, 8.5, 6e-8, -6e-8]


def maps(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)


def loop(x, rectify):
    """f(x_i) / sum_j f(x_j) of each map in Python floats."""
    result = torch.empty_like(x)
    for b, sample in enumerate(x):
        for k, one in enumerate(sample):
            values = [rectify(value) for value in one.flatten().tolist()]
            total = math.fsum(values)
            shares = torch.tensor([value / total for value in values], dtype=x.dtype)
            result[b, k] = shares.reshape(one.shape)
    return result


RECTIFIERS = {
    'softmax': math.exp,
    'thresholded_softmax': lambda x: math.exp(x) if x >= -0.5 else 0.0,
    'abs': abs,
    'relu': lambda x: max(x, 0.0),
    'sigmoid': lambda x: 1 / (1 + math.exp(-x)),
}


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('method', NORMALIZATIONS)
def test_equals_a_loop(method, shape):
    x = maps(*shape)
    assert_close(normalize_heatmap(x, method), loop(x, RECTIFIERS[method]))


@pytest.mark.parametrize('shape', SHAPES)
def test_softmax_equals_dsntnn_with_gradient(shape):
    ours, theirs = (maps(*shape).requires_grad_() for _ in range(2))
    grad_output = maps(*shape, seed=1)
    found, expected = normalize_heatmap(ours), dsntnn.flat_softmax(theirs)
    assert_close(found, expected)
    found.backward(grad_output)
    expected.backward(grad_output)
    assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize('method', NORMALIZATIONS)
def test_gradcheck(method):
    x = maps(2, 2, 3, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: normalize_heatmap(x, method), x)


def test_by_hand():
    # exp(0), exp(ln 3) = 1, 3; |x| = 2, 1, 1; max(x, 0) = 0, 3, 1; sigmoid(-ln 3, 0) = 1/4, 1/2.
    ln3 = math.log(3)
    for method, values, expected in (
        ('softmax', [0.0, ln3], [0.25, 0.75]),
        ('abs', [-2.0, 1.0, 1.0], [0.5, 0.25, 0.25]),
        ('relu', [-2.0, 3.0, 1.0], [0.0, 0.75, 0.25]),
        ('sigmoid', [-ln3, 0.0], [1 / 3, 2 / 3]),
        ('thresholded_softmax', [-0.6, 0.0, ln3], [0.0, 0.25, 0.75]),
    ):
        assert_close(normalize_heatmap(torch.tensor([[values]]), method)[0, 0].tolist(), expected)


def test_beta_and_threshold_by_hand():
    x = torch.tensor([[[0.0, math.log(3) / 2]]])
    assert_close(normalize_heatmap(x, beta=2.0), torch.tensor([[[0.25, 0.75]]]))
    above = normalize_heatmap(x, 'thresholded_softmax', threshold=0.1, beta=2.0)
    assert_close(above, torch.tensor([[[0.0, 1.0]]]))


@pytest.mark.parametrize('beta', [100.0, 1e30])
def test_large_beta_is_argmax(beta):
    x = torch.stack([torch.randperm(35).double() for _ in range(6)]).view(2, 3, 5, 7)
    top = x.flatten(2).argmax(-1)
    found = dsnt(normalize_heatmap(x, beta=beta))
    assert_close(found[..., 0], (2 * (top % 7) + 1) / 7 - 1.0, check_dtype=False)
    assert_close(found[..., 1], (2 * (top // 7) + 1) / 5 - 1.0, check_dtype=False)


def test_beta_keeps_the_digits_of_large_logits():
    x = (1e4 + maps(2, 3, 4, 5, dtype=torch.float32)).requires_grad_()
    found = normalize_heatmap(x, beta=0.7)
    assert_close(found, normalize_heatmap(x.double(), beta=0.7).float(), rtol=1e-6, atol=1e-7)
    copy = x.detach().double().requires_grad_()
    found[:, :, 1].sum().backward()
    torch.softmax(0.7 * copy.flatten(2), -1).view(copy.shape)[:, :, 1].sum().backward()
    assert_close(x.grad, copy.grad.float(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('method', NORMALIZATIONS)
def test_logits_of_ten_thousand_in_half_precision(method, dtype):
    x = (1e4 * maps(2, 3, 5, 7).clamp(-1, 1)).to(dtype)
    found = normalize_heatmap(x, method)
    assert found.dtype == torch.float32
    assert_close(found.double(), normalize_heatmap(x.double(), method), rtol=1e-6, atol=1e-30)
    with torch.autocast('cpu', dtype=dtype):
        assert_close(normalize_heatmap(x, method), found, rtol=0, atol=0)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('method', NORMALIZATIONS)
def test_every_half_value_gives_a_distribution_and_a_finite_gradient(method, dtype):
    rows = [[value] * 12 for value in EXTREMES] + [[a, b] * 6 for a in EXTREMES for b in EXTREMES]
    x = torch.tensor(rows).to(dtype).view(1, -1, 3, 4).requires_grad_()
    found = normalize_heatmap(x, method)
    assert (found >= 0).all()
    assert_close(found.flatten(2).sum(-1), torch.ones(1, len(rows)))
    found.backward(torch.rand(found.shape))
    assert x.grad.isfinite().all()


def test_sums_beyond_float32():
    x = torch.full((1, 1, 2, 2), 3e38)
    assert_close(normalize_heatmap(x, 'abs'), torch.full_like(x, 0.25))
    assert_close(normalize_heatmap(1e-44 * x.sign(), 'softmax'), torch.full_like(x, 0.25))


def test_relu_of_all_negatives_is_softmax_and_can_recover():
    x = -maps(2, 3, 4, 5).abs() - 0.1
    x[1] = maps(3, 4, 5)  # maps beside it are not touched
    x.requires_grad_()
    found = normalize_heatmap(x, 'relu')
    assert_close(found[0], torch.softmax(x[0].flatten(1), -1).view(3, 4, 5))
    assert_close(found[1], loop(x.detach()[1:], RECTIFIERS['relu'])[0])
    (-found[0, :, 2, 3].log()).sum().backward()
    assert (x.grad[0, :, 2, 3] < 0).all(), 'descent raises the cell that is asked for'
    assert_close(x.grad[0].sum((1, 2)), torch.zeros(3, dtype=torch.float64))


def test_other_maps_without_mass_are_softmax():
    zeros = torch.zeros(1, 2, 2, 2)
    assert_close(normalize_heatmap(zeros, 'abs'), zeros + 0.25)
    below = maps(1, 2, 3, 4) - 50
    assert_close(normalize_heatmap(below, 'thresholded_softmax'), normalize_heatmap(below))
    tiny = torch.full((1, 1, 2, 2), 6e-8, dtype=torch.float16)
    tiny[..., 0, 0] = 0
    assert_close(normalize_heatmap(tiny, 'abs'), torch.full((1, 1, 2, 2), 0.25))
    assert normalize_heatmap(tiny.float(), 'abs')[0, 0, 0, 0] == 0, 'float32 has the digits'


@pytest.mark.parametrize('method', NORMALIZATIONS)
@pytest.mark.parametrize('value', [math.nan, math.inf])
def test_nan_and_inf_show(method, value):
    x = maps(2, 2, 3, 4)
    x[1, 0, 1, 2] = value
    found = normalize_heatmap(x, method)
    if method != 'sigmoid' or math.isnan(value):  # sigmoid(inf) is 1
        assert not found[1, 0].isfinite().all()
    assert found[0].isfinite().all()
    assert found[1, 1].isfinite().all()


@pytest.mark.parametrize('method', NORMALIZATIONS)
def test_layout_empty_batch_and_compile(method):
    x = maps(7, 5, 3, 2).permute(3, 2, 1, 0)
    expected = normalize_heatmap(x.contiguous(), method)
    assert_close(normalize_heatmap(x, method), expected)
    empty = torch.zeros(0, 3, 4, 5, requires_grad=True)
    normalize_heatmap(empty, method).sum().backward()
    assert empty.grad.shape == empty.shape
    compiled = torch.compile(normalize_heatmap, fullgraph=True, backend='aot_eager')
    assert_close(compiled(x, method), expected)


@settings(deadline=None, max_examples=30)
@given(
    st.sampled_from(NORMALIZATIONS),
    st.lists(st.floats(-1e5, 1e5, width=32), min_size=6, max_size=6),
)
def test_is_a_distribution(method, values):
    found = normalize_heatmap(torch.tensor(values).view(1, 1, 2, 3), method)
    assert (found >= 0).all()
    assert_close(found.sum(), torch.tensor(1.0))


@pytest.mark.parametrize(
    ('error', 'words', 'x', 'options'),
    [
        (ValueError, "Did you mean 'softmax'", (2, 2, 3, 3), {'method': 'softmaks'}),
        (ValueError, 'beta must be > 0 and finite, got 0', (2, 2, 3, 3), {'beta': 0}),
        (ValueError, 'beta must be > 0 and finite, got nan', (2, 2, 3, 3), {'beta': math.nan}),
        (ValueError, 'no temperature', (2, 2, 3, 3), {'method': 'relu', 'beta': 2.0}),
        (ValueError, r'x must have the shape .* got \(2, 3\)', (2, 3), {}),
        (ValueError, 'with cells', (2, 3, 0, 4), {}),
    ],
)
def test_bad_input(error, words, x, options):
    with pytest.raises(error, match=words):
        normalize_heatmap(torch.zeros(x), **options)


def test_bad_types():
    with pytest.raises(TypeError, match=r'floating-point tensor, got torch\.int64'):
        normalize_heatmap(torch.zeros(2, 3, 4, 4, dtype=torch.int64))
    with pytest.raises(TypeError, match='floating-point tensor, got list'):
        normalize_heatmap([0.0])
