"""Heatmap losses: values by hand, loops in float64, hosts and PyTorch as oracles, limits."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import entropy
from torch.testing import assert_close

from mmloss_plugins.functional import (
    heatmap_mse,
    heatmaps_to_classes,
    pixel_softmax_ce,
    spatial_softmax_ce,
    value_checks,
)

CHUNKED = (3, 5, 71, 67)  # more elements than a chunk of the closed form, by no multiple of one


def maps(*shape, seed=0, dtype=torch.float64):
    """Return (logits, targets in [0, 1]), not contiguous, shape (B, K, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    pred, target = torch.randn((2, *shape[::-1]), generator=generator, dtype=torch.float64)
    return (2 * pred.permute(3, 2, 1, 0)).to(dtype), target.permute(3, 2, 1, 0).sigmoid().to(dtype)


def gradient_of(function, pred, *args, **options):
    """Return (value, gradient) behind a grad_output that differs from element to element."""
    pred = pred.detach().clone().requires_grad_()
    value = function(pred, *args, **options)
    factor = torch.arange(1, value.numel() + 1, dtype=value.dtype).reshape(value.shape)
    value.backward(factor)
    return value.detach(), pred.grad


def gaussian(height, width, x, y, sigma):
    rows = torch.arange(height, dtype=torch.float64)[:, None] - y
    columns = torch.arange(width, dtype=torch.float64)[None] - x
    return torch.exp(-(rows**2 + columns**2) / (2 * sigma**2))


# --- squared error ---------------------------------------------------------------------------


def test_mse_by_hand():
    pred, target = torch.tensor([[0.5, 0.25]]), torch.tensor([[1.0, 0.0]])
    # 1/2 * 0.5^2 and 1/2 * 0.25^2; the foreground factor 1 + 3 t is 4 and 1.
    value, gradient = gradient_of(heatmap_mse, pred, target)
    assert_close(value, torch.tensor([[0.125, 0.03125]]))
    assert_close(gradient, torch.tensor([[-0.5, 2 * 0.25]]))
    assert_close(heatmap_mse(pred, target, foreground_weight=4.0), torch.tensor([[0.5, 0.03125]]))
    half = torch.tensor([[0.5]])  # factor 1 + 3 / 2, distance 1/2
    assert_close(heatmap_mse(half - 0.5, half, foreground_weight=4.0), 2.5 / 8 * torch.ones(1, 1))


@pytest.mark.parametrize('shape', [(2, 3, 4, 5), (1, 1, 1, 1), CHUNKED])
def test_mse_is_half_of_torch(shape):
    pred, target = maps(*shape)
    value, gradient = gradient_of(heatmap_mse, pred, target)
    expected = gradient_of(
        lambda x, t: torch.nn.functional.mse_loss(x, t, reduction='none') / 2, pred, target
    )
    assert_close((value, gradient), expected)
    assert_close(heatmap_mse(pred, target, scale='mmpose'), 2 * expected[0])
    assert_close(heatmap_mse(pred, target, summed=True), expected[0].sum())


def test_mse_foreground_gradient_is_that_of_the_value():
    pred, target = maps(2, 2, 3, 4)
    pred.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: heatmap_mse(x, target, foreground_weight=7.0, scale='mmpose'), pred
    )


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        ({'scale': 'mmdet'}, "scale must be one of 'author', 'mmpose'"),
        ({'foreground_weight': 0}, 'foreground_weight must be positive, got 0'),
        ({'foreground_weight': math.nan}, 'foreground_weight must be positive, got nan'),
    ],
)
def test_mse_refuses(options, text):
    with pytest.raises(ValueError, match=text):
        heatmap_mse(torch.zeros(2, 2), torch.zeros(2, 2), **options)


def test_mse_target_out_of_range_with_a_foreground_weight():
    target = torch.tensor([[2.0]])
    assert heatmap_mse(target, target) == 0
    with pytest.raises(ValueError, match=r'within \[0, 1\], got 2 at index \(0, 0\)'):
        heatmap_mse(target, target, foreground_weight=2.0)
    with pytest.raises(ValueError, match='got nan'):
        heatmap_mse(target, target * math.nan)


# --- softmax over the map --------------------------------------------------------------------


def spatial_loop(logits, target, beta=1.0, label='soft'):
    """Definition, one map after the other, with SciPy's logsumexp."""
    rows = []
    for x, t in zip(logits.double().flatten(0, -3), target.double().flatten(0, -3)):
        x, t = beta * x.flatten().numpy(), t.flatten().numpy()
        if t.sum() == 0:
            rows.append(0.0)
            continue
        log_p = x - logsumexp(x)
        if label == 'one_hot':
            rows.append(-log_p[t.argmax()])
        else:
            rows.append(-math.fsum(share * value for share, value in zip(t / t.sum(), log_p)))
    return torch.tensor(rows, dtype=torch.float64).reshape(logits.shape[:-2])


# p = (1/4, 3/4) on a map of 1 x 2, target (2, 1): y = (2/3, 1/3) or (1, 0).
LOG_3 = torch.tensor([[[[0.0, math.log(3.0)]]]], dtype=torch.float64)
TWO_ONE = torch.tensor([[[[2.0, 1.0]]]], dtype=torch.float64)


def test_spatial_by_hand():
    value, gradient = gradient_of(spatial_softmax_ce, LOG_3, TWO_ONE)
    # 2/3 log 4 + 1/3 log(4/3); gradient p - y.
    assert_close(value.item(), 2 / 3 * math.log(4) + 1 / 3 * math.log(4 / 3))
    assert_close(gradient.flatten().tolist(), [1 / 4 - 2 / 3, 3 / 4 - 1 / 3])
    value, gradient = gradient_of(spatial_softmax_ce, LOG_3, TWO_ONE, label='one_hot')
    assert_close(value.item(), math.log(4))
    assert_close(gradient.flatten().tolist(), [-3 / 4, 3 / 4])
    # beta = 2: p = (1/10, 9/10), gradient 2 (p - y).
    value, gradient = gradient_of(spatial_softmax_ce, LOG_3, TWO_ONE, label='one_hot', beta=2.0)
    assert_close(value.item(), math.log(10))
    assert_close(gradient.flatten().tolist(), [-1.8, 1.8])


@pytest.mark.parametrize('shape', [(2, 3, 4, 5), (1, 1, 7, 3), (3, 1, 1, 1), (0, 2, 3, 4)])
@pytest.mark.parametrize('label', ['soft', 'one_hot'])
@pytest.mark.parametrize('beta', [1.0, 0.3])
def test_spatial_equals_the_loop(shape, label, beta):
    logits, target = maps(*shape)
    target[:1, :1] = 0
    value, gradient = gradient_of(spatial_softmax_ce, logits, target, beta=beta, label=label)
    assert_close(value, spatial_loop(logits, target, beta, label))
    assert value.shape == shape[:2]
    assert (gradient[:1, :1] == 0).all()


@pytest.mark.parametrize('label', ['soft', 'one_hot'])
def test_spatial_equals_torch(label):
    """PyTorch's cross-entropy with probabilities or an index, value and gradient."""
    logits, target = maps(2, 3, 5, 4)

    def expected(x, t):
        x, t = x.flatten(2), t.flatten(2)
        y = t / t.sum(-1, keepdim=True) if label == 'soft' else t.argmax(-1)
        y = y.flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(x.flatten(0, 1), y, reduction='none')
        return loss.reshape(x.shape[:2])

    found = gradient_of(spatial_softmax_ce, logits, target, label=label)
    assert_close(found, gradient_of(expected, logits, target))


def test_spatial_gradcheck():
    logits, target = maps(2, 2, 3, 4)
    logits.requires_grad_()
    for label in ('soft', 'one_hot'):
        assert torch.autograd.gradcheck(
            lambda x, label=label: spatial_softmax_ce(x, target, beta=1.7, label=label), logits
        )


def test_spatial_limits():
    # A Gaussian far from the border: the entropy 1 + log(2 pi sigma^2) at the label itself.
    target = gaussian(41, 37, 18.0, 20.0, 3.0)
    perfect = spatial_softmax_ce(target.log(), target)
    assert_close(perfect.item(), 1 + math.log(2 * math.pi * 9), rtol=1e-4, atol=0)
    assert_close(perfect.item(), entropy(target.flatten().numpy()))
    # A uniform prediction: log(H W) whatever the target.
    uniform = spatial_softmax_ce(torch.full_like(target, 7.0), target)
    assert_close(uniform.item(), math.log(41 * 37))
    assert_close(spatial_softmax_ce(10 * target, target, beta=1e-9).item(), math.log(41 * 37))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 999), scale=st.floats(1e-3, 1e3), level=st.floats(-50, 50))
def test_spatial_knows_neither_the_mass_of_the_target_nor_the_level_of_the_logits(
    seed, scale, level
):
    logits, target = maps(2, 2, 3, 4, seed=seed)
    value, gradient = gradient_of(spatial_softmax_ce, logits, target)
    assert_close(gradient_of(spatial_softmax_ce, logits + level, scale * target), (value, gradient))
    entropies = [entropy(t) for t in target.flatten(2).flatten(0, 1).numpy()]
    assert (value.flatten() >= torch.tensor(entropies) - 1e-12).all()
    # The gradient of a softmax sums to zero over the map.
    assert_close(gradient.sum((-2, -1)), torch.zeros(2, 2, dtype=torch.float64))


def test_spatial_at_the_ends_of_half_precision():
    logits = torch.full((1, 2, 2, 3), -65504.0, dtype=torch.float16)
    logits[0, 0, 1, 2] = 65504.0
    target = torch.zeros(1, 2, 2, 3)
    target[..., 0, 0] = 6e-8  # a tail of a Gaussian beyond the border is the whole label
    value, gradient = gradient_of(spatial_softmax_ce, logits, target)
    # The wrong pixel is ahead by 131,008; the flat map gives log 6.
    assert_close(value, torch.tensor([[131008.0, math.log(6)]]))
    assert gradient.dtype == torch.float16
    assert gradient[0, 0, 0, 0] == -1
    assert gradient[0, 0, 1, 2] == 1


def test_spatial_nan_in_the_target_is_visible():
    logits, target = maps(1, 2, 2, 2)
    for label in ('soft', 'one_hot'):
        for bad in (math.nan, math.inf):
            target[0, 1] = bad
            with value_checks(False):
                value = spatial_softmax_ce(logits, target, label=label)
            assert value.isfinite().tolist() == [[True, False]]


@pytest.mark.parametrize(
    ('shape', 'options', 'text'),
    [
        ((2, 2), {'label': 'hard'}, "label must be one of 'soft', 'one_hot'"),
        ((2, 2), {'beta': -1}, 'beta must be positive, got -1'),
        ((4,), {}, r'logits must have the shape \(\.\.\., H, W\) with pixels, got \(4,\)'),
        ((2, 0, 3), {}, r'got \(2, 0, 3\)'),
    ],
)
def test_spatial_refuses(shape, options, text):
    with pytest.raises(ValueError, match=text):
        spatial_softmax_ce(torch.zeros(shape), torch.zeros(shape), **options)


def test_spatial_refuses_negative_targets():
    with pytest.raises(ValueError, match=r'within \[0, inf\], got -1 at index \(0, 1\)'):
        spatial_softmax_ce(torch.zeros(1, 2), torch.tensor([[0.0, -1.0]]))


# --- softmax over the classes ----------------------------------------------------------------


def pixels(batch, channels, height, width, seed=0):
    logits, _ = maps(batch, channels, height, width, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    return logits, torch.randint(0, channels, (batch, height, width), generator=generator)


def test_pixel_by_hand():
    # Two keypoints and background with x = (0, log 2, log 5): p = (1/8, 2/8, 5/8).
    logits = torch.tensor([0.0, math.log(2), math.log(5)]).reshape(1, 3, 1, 1).expand(1, 3, 2, 2)
    target = torch.tensor([[[0, 1], [2, 255]]])
    value, gradient = gradient_of(pixel_softmax_ce, logits, target, class_weight=[2.0, 1.0, 0.5])
    expected = [[2 * math.log(8), math.log(4)], [0.5 * math.log(8 / 5), 0.0]]
    assert_close(value, torch.tensor([expected]))
    # Behind the factors 1, 2, 3 of gradient_of: factor * weight * (p - one-hot).
    assert_close(gradient[0, :, 0, 0], 2 * torch.tensor([-7 / 8, 2 / 8, 5 / 8]))
    assert_close(gradient[0, :, 0, 1], 2 * torch.tensor([1 / 8, -6 / 8, 5 / 8]))
    assert_close(gradient[0, :, 1, 0], 1.5 * torch.tensor([1 / 8, 2 / 8, -3 / 8]))
    assert (gradient[0, :, 1, 1] == 0).all()


@pytest.mark.parametrize('shape', [(2, 4, 3, 5), (1, 2, 1, 1), (3, 2, 7, 2), (0, 3, 2, 4)])
@pytest.mark.parametrize('kind', [torch.int64, torch.int32, torch.uint8])
def test_pixel_equals_torch(shape, kind):
    logits, target = pixels(*shape)
    factors = torch.linspace(0.2, 3, shape[1], dtype=torch.float64)
    found = gradient_of(
        pixel_softmax_ce, logits, target.to(kind), class_weight=factors, ignore_index=1
    )
    expected = gradient_of(
        lambda x: torch.nn.functional.cross_entropy(
            x, target, weight=factors, ignore_index=1, reduction='none'
        ),
        logits,
    )
    assert_close(found, expected)


def test_pixel_gradcheck():
    logits, target = pixels(2, 3, 2, 4)
    logits.requires_grad_()
    weight = [1.0, 0.0, 0.3]
    assert torch.autograd.gradcheck(
        lambda x: pixel_softmax_ce(x, target, class_weight=weight), logits
    )


def test_pixel_ignored_nan_is_silent_and_another_is_not():
    logits, target = pixels(1, 3, 2, 2)
    logits[0, :, 0, 0] = math.nan
    target[0, 0, 0] = 255
    value, gradient = gradient_of(pixel_softmax_ce, logits, target)
    assert value[0, 0, 0] == 0
    assert value.isfinite().all()
    assert gradient.isfinite().all()
    target[0, 0, 0] = 1
    assert torch.isnan(pixel_softmax_ce(logits, target)[0, 0, 0])


def test_pixel_at_the_ends_of_half_precision():
    logits = torch.tensor([65504.0, -65504.0, 0.0], dtype=torch.float16).reshape(1, 3, 1, 1)
    value, gradient = gradient_of(pixel_softmax_ce, logits, torch.tensor([[[1]]]))
    assert value.item() == 131008
    assert gradient.flatten().tolist() == [1, -1, 0]


@pytest.mark.parametrize(
    ('target', 'error', 'text'),
    [
        (torch.zeros(1, 2, 2), TypeError, 'must be a tensor of integers, got torch.float32'),
        (torch.zeros(1, 2, 2, dtype=torch.bool), TypeError, 'got torch.bool'),
        ([[[0]]], TypeError, 'got list'),
        (torch.zeros(1, 2, 3, dtype=torch.long), ValueError, r'must have the shape \(B, H, W\)'),
        (torch.zeros(1, 3, 2, 2, dtype=torch.long), ValueError, r'got \(1, 3, 2, 2\)'),
        (torch.full((1, 2, 2), 3), ValueError, r'within \[0, 2\], got 3'),
        (torch.full((1, 2, 2), -1), ValueError, r'within \[0, 2\], got -1'),
    ],
)
def test_pixel_refuses(target, error, text):
    with pytest.raises(error, match=text):
        pixel_softmax_ce(torch.zeros(1, 3, 2, 2), target)


def test_pixel_refuses_a_wrong_number_of_class_weights():
    with pytest.raises(ValueError, match=r'class_weight must hold 3 factors, .* got \(2,\)'):
        pixel_softmax_ce(
            torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2, dtype=torch.long), class_weight=[1, 2]
        )


def test_classes_of_heatmaps():
    first = gaussian(5, 7, 1.0, 2.0, 1.0)
    second = gaussian(5, 7, 5.0, 2.0, 1.0)
    heatmaps = torch.stack([first, second])[None]
    # exp(-r^2 / 2) >= 0.5 up to r = sqrt(2 log 2) = 1.18: the centre and its four neighbours.
    found = heatmaps_to_classes(heatmaps)
    assert found.tolist() == [
        [
            [2, 2, 2, 2, 2, 2, 2],
            [2, 0, 2, 2, 2, 1, 2],
            [0, 0, 0, 2, 1, 1, 1],
            [2, 0, 2, 2, 2, 1, 2],
            [2, 2, 2, 2, 2, 2, 2],
        ]
    ]
    # The nearer keypoint wins where both are above the threshold.
    assert heatmaps_to_classes(heatmaps, 1e-9)[0, 0].tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert (heatmaps_to_classes(torch.zeros(2, 3, 4, 5)) == 3).all()
    assert heatmaps_to_classes(torch.ones(0, 3, 4, 5)).shape == (0, 4, 5)
