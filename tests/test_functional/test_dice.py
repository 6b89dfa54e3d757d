"""Dice loss against values by hand, loops, MMDetection's functions and plain autograd."""

from __future__ import annotations

import math

import pytest
import torch
from mmdet.models.losses.dice_loss import dice_loss as mmdet_dice_loss
from torch.testing import assert_close

from mmloss_plugins.functional import dice_loss, value_checks

RATIOS = {'batch': (), 'sample': (3,), 'channel': (3, 2)}
DB = dict(smooth_numerator=0.0, smooth_denominator=1e-6)


def maps(shape=(3, 2, 4, 5), dtype=torch.float64, seed=0):
    """Return logits, soft targets and weights with zeros, none of them contiguous."""
    generator = torch.Generator().manual_seed(seed)

    def draw():
        backwards = tuple(reversed(range(len(shape))))
        values = torch.randn(shape[::-1], generator=generator, dtype=torch.float64)
        return values.permute(backwards)

    logits, target, weight = 2 * draw(), draw().sigmoid(), draw().clamp(min=0)
    return logits.to(dtype), target.to(dtype), weight.to(dtype)


def plain(p, target, weight, dims, power=1, above=1.0, below=1.0):
    """The formula in plain operators, with autograd's gradient."""
    overlap = (weight * p * target).sum(dims)
    size = (weight * (p**power + target**power)).sum(dims)
    return 1 - (2 * overlap + above) / (size + below)


def dims_of(ratio_over, total=4):
    return tuple(range(['batch', 'sample', 'channel'].index(ratio_over), total))


def activated(logits, activation):
    if activation == 'softmax':
        return logits.softmax(1)
    return logits.sigmoid() if activation == 'sigmoid' else logits


def test_by_hand():
    # p = 1/2 and t = 1, 0: the overlap is 1/2, the sums are 1 and 1.
    logits, target = torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])
    # 1 - (2 * 1/2 + 1) / (1 + 1 + 1) = 1/3
    assert_close(dice_loss(logits, target), torch.tensor([1 / 3]))
    # DB: 1 - 1 / 2
    assert_close(dice_loss(logits, target, **DB), torch.tensor([0.5]))
    # squares: 1 - 1 / (1/4 + 1/4 + 1)
    assert_close(dice_loss(logits, target, power=2, **DB), torch.tensor([1 / 3]))


@pytest.mark.parametrize('weighted', [False, True])
@pytest.mark.parametrize('power', [1, 2])
@pytest.mark.parametrize('ratio_over', RATIOS)
@pytest.mark.parametrize('activation', ['sigmoid', 'softmax', 'none'])
def test_value_and_gradient_are_those_of_the_formula(activation, ratio_over, power, weighted):
    logits, target, weight = maps()
    logits = logits.sigmoid() if activation == 'none' else logits
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    options = dict(smooth_numerator=0.7, smooth_denominator=1.3, power=power)
    found = dice_loss(
        ours,
        target,
        weight if weighted else None,
        activation=activation,
        ratio_over=ratio_over,
        **options,
    )
    weight = weight if weighted else torch.ones_like(weight)
    p = activated(theirs, activation)
    expected = plain(p, target, weight, dims_of(ratio_over), power, 0.7, 1.3)
    assert found.shape == (RATIOS[ratio_over] or (1,))
    assert_close(found, expected.reshape(found.shape))
    factor = torch.rand_like(found)
    (found * factor).sum().backward()
    (expected.reshape(found.shape) * factor).sum().backward()
    assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize('activation', ['sigmoid', 'softmax', 'none'])
@pytest.mark.parametrize('ratio_over', RATIOS)
def test_gradcheck(ratio_over, activation):
    logits, target, weight = maps((2, 3, 2, 2))
    logits.requires_grad_()
    options = dict(ratio_over=ratio_over, activation=activation, power=2)
    assert torch.autograd.gradcheck(lambda x: -2 * dice_loss(x, target, weight, **options), logits)


@pytest.mark.parametrize('naive', [False, True])
def test_mmdetection(naive):
    logits, target, _ = maps(dtype=torch.float32)
    expected = mmdet_dice_loss(
        logits.sigmoid(), target, eps=1e-3, reduction='none', naive_dice=naive
    )
    options = dict(power=1, smooth_numerator=1e-3, smooth_denominator=1e-3)
    if not naive:
        options = dict(power=2, smooth_numerator=0, smooth_denominator=2e-3)
    assert_close(dice_loss(logits, target, ratio_over='sample', **options), expected)


def test_db():
    """The authors' ratio over the batch, pixel by pixel."""
    logits, target, weight = maps()
    mask = weight > 0
    overlap = size = 0.0
    for x, t, known in zip(
        logits.flatten().tolist(), target.flatten().tolist(), mask.flatten().tolist()
    ):
        if known:
            p = 1 / (1 + math.exp(-x))
            overlap += p * t
            size += p + t
    found = dice_loss(logits, target, mask, **DB)
    assert found.item() == pytest.approx(1 - 2 * overlap / (size + 1e-6), rel=1e-12)


def test_empty_target():
    target = torch.zeros(1, 1, 20, 20)
    # Nothing there, nothing found: 1 - (0 + 1) / (0 + 0 + 1).
    assert dice_loss(torch.full_like(target, -100.0), target) == 0
    # DB, MMOCR and MMDetection say 1, however good the prediction.
    assert dice_loss(torch.full_like(target, -100.0), target, **DB) == 1
    # P = 400 p; L = 1 - 1 / (P + 1) falls with it.
    values = [dice_loss(torch.full_like(target, x), target) for x in (0.0, -3.0, -6.0, -9.0)]
    total = 400 * torch.tensor([0.0, -3.0, -6.0, -9.0]).sigmoid()
    assert_close(torch.cat(values), 1 - 1 / (total + 1))


@pytest.mark.parametrize('smooth', [0.0, 1.0])
@pytest.mark.parametrize('shape', [(2, 0, 4), (0, 2, 4)])
@pytest.mark.parametrize('ratio_over', RATIOS)
def test_no_pixel_at_all(ratio_over, shape, smooth):
    logits = torch.zeros(shape, requires_grad=True)
    options = dict(ratio_over=ratio_over, smooth_numerator=smooth)
    loss = dice_loss(logits, torch.zeros(shape), **options)
    first = RATIOS[ratio_over]
    assert loss.shape == (shape[: len(first)] if first else (1,))
    assert not loss.any()
    loss.sum().backward()
    assert logits.grad.shape == shape


@pytest.mark.parametrize('ratio_over', RATIOS)
def test_a_ratio_without_weight_is_zero(ratio_over):
    logits, target, _ = maps()
    logits.requires_grad_()
    weight = torch.ones(3, 2, 4, 5)
    weight[1] = 0
    loss = dice_loss(logits, target, weight, ratio_over=ratio_over, **DB)
    if ratio_over != 'batch':
        assert not loss[1].any()
    loss.sum().backward()
    assert not logits.grad[1].any()
    assert (logits.grad[0] != 0).all()
    nothing = dice_loss(logits, target, 0 * weight, ratio_over=ratio_over, **DB)
    assert not nothing.any()


@pytest.mark.parametrize('bad', [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize('activation', ['sigmoid', 'softmax', 'none'])
@pytest.mark.parametrize('ratio_over', RATIOS)
def test_pixels_without_weight_may_hold_anything(ratio_over, activation, bad):
    logits, target, _ = maps()
    logits = logits.sigmoid() if activation == 'none' else logits
    weight = torch.ones(3, 1, 4, 5)
    weight[1, 0, 2, 3] = weight[2, 0, 0] = 0
    off = (weight == 0).expand_as(logits)
    options = dict(ratio_over=ratio_over, activation=activation)
    clean = logits.clone().requires_grad_()
    expected = dice_loss(clean, target, weight, **options)
    expected.sum().backward()
    poisoned = logits.masked_fill(off, bad).requires_grad_()
    with value_checks(False):
        found = dice_loss(poisoned, target.masked_fill(off, bad), weight, **options)
    found.sum().backward()
    assert_close(found, expected, rtol=0, atol=0)
    assert_close(poisoned.grad, clean.grad, rtol=0, atol=0)
    assert (poisoned.grad[off] == 0).all()


def test_a_channel_that_does_not_count_may_have_any_target():
    logits, target, _ = maps()
    logits.requires_grad_()
    target[1, 1] = math.nan
    with value_checks(False):
        loss = dice_loss(logits, target, activation='softmax', ratio_over='channel')
    torch.where(target.isnan().any(-1).any(-1), 0, loss).sum().backward()
    assert (logits.grad != 0).all()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize('bad', [math.nan, math.inf, -math.inf])
def test_nan_and_infinite_logits_are_visible(bad):
    logits, target, _ = maps()
    logits[1, 1, 2, 3] = bad
    loss = dice_loss(logits, target, ratio_over='channel')
    assert torch.isnan(loss[1, 1])
    assert loss.isnan().sum() == 1


def test_weights_are_inside_the_sums():
    logits, target, weight = maps((1, 1, 4, 5))
    loss = dice_loss(logits, target, weight, **DB)
    # A common factor cancels; weight 2 is a pixel that is there twice.
    assert_close(dice_loss(logits, target, 3 * weight, **DB), loss, rtol=1e-6, atol=0)
    twice = torch.ones(1, 1, 4, 5)
    twice[..., -1] = 2
    doubled = [torch.cat([x, x[..., -1:]], dim=-1) for x in (logits, target)]
    assert_close(dice_loss(logits, target, twice), dice_loss(*doubled))


def labels_and_loops(ignored):
    """Return logits, labels and the dice loss of each channel of each sample, by loops."""
    logits, _, _ = maps((2, 3, 4, 5))
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(0, 3, (2, 4, 5), generator=generator)
    labels[0, 1, 2:] = ignored
    expected = torch.zeros(2, 3, dtype=torch.float64)
    for b in range(2):
        for c in range(3):
            overlap = size = 0.0
            for y in range(4):
                for x in range(5):
                    if labels[b, y, x] == ignored:
                        continue
                    scores = [math.exp(logits[b, k, y, x]) for k in range(3)]
                    p, t = scores[c] / sum(scores), float(labels[b, y, x] == c)
                    overlap, size = overlap + p * t, size + p + t
            expected[b, c] = 1 - (2 * overlap + 1) / (size + 1)
    return logits, labels, expected


@pytest.mark.parametrize('ignored', [-100, 255])
def test_class_labels(ignored):
    logits, labels, expected = labels_and_loops(ignored)
    options = dict(activation='softmax', ratio_over='channel', ignore_index=ignored)
    assert_close(dice_loss(logits, labels, **options), expected)
    assert_close(dice_loss(logits, labels.int(), **options), expected)
    known = labels != ignored
    one_hot = torch.nn.functional.one_hot(labels * known, 3).permute(0, 3, 1, 2).double()
    assert_close(dice_loss(logits, one_hot, known[:, None], **options), expected)
    weight = torch.rand(2, 1, 4, 5, dtype=torch.float64)
    assert_close(
        dice_loss(logits, labels, weight, **options),
        dice_loss(logits, one_hot, weight * known[:, None], **options),
    )


def test_ignored_pixels_get_no_gradient():
    logits, labels, _ = labels_and_loops(-100)
    logits.requires_grad_()
    dice_loss(logits, labels, activation='softmax').sum().backward()
    off = (labels == -100)[:, None].expand_as(logits)
    assert (logits.grad[off] == 0).all()
    assert (logits.grad[~off] != 0).all()


def test_half_precision_sums_beyond_its_range():
    """In float16 the 262144 ones of this map add up to infinity, and the loss to 1."""
    logits = torch.full((1, 1, 512, 512), 9.0, dtype=torch.float16, requires_grad=True)
    target = torch.ones(1, 1, 512, 512)
    loss = dice_loss(logits, target)
    assert loss.dtype == torch.float32
    assert_close(loss, dice_loss(logits.float(), target))
    assert 0 < loss < 1e-3
    loss.sum().backward()
    assert logits.grad.dtype == torch.float16


def test_bad_arguments():
    x = torch.zeros(2, 3, 4)
    with pytest.raises(ValueError, match="activation must be one of 'sigmoid', 'softmax', 'none'"):
        dice_loss(x, x, activation='tanh')
    with pytest.raises(ValueError, match=r'power must be 1 or 2, got 1\.5'):
        dice_loss(x, x, power=1.5)
    with pytest.raises(ValueError, match='smooth_denominator must be positive, got 0'):
        dice_loss(x, x, smooth_denominator=0)
    with pytest.raises(ValueError, match='smooth_numerator must be zero or positive'):
        dice_loss(x, x, smooth_numerator=-1)
    with pytest.raises(ValueError, match='target must have the shape'):
        dice_loss(x, x[:, :2])
    with pytest.raises(ValueError, match='target must have the shape'):
        dice_loss(x, x[:, 0].long())
    with pytest.raises(ValueError, match='pred must have the shape'):
        dice_loss(x[0, 0], x[0, 0], ratio_over='channel')
    with pytest.raises(ValueError, match='weight must have the shape'):
        dice_loss(x, x, torch.ones(3))
    with pytest.raises(ValueError, match='target must be finite and within'):
        dice_loss(x, x + 2)
    with pytest.raises(ValueError, match='hold class indices from 0 to 2 or ignore_index, got 3'):
        dice_loss(x, torch.full((2, 4), 3), activation='softmax')
    with pytest.raises(ValueError, match='not require a gradient'):
        dice_loss(x, x.clone().requires_grad_())
