"""DiceLoss: which weights are factors and which lie in the sums, and the ratio over a batch."""

from __future__ import annotations

import math

import pytest
import torch
from mmdet.models.losses import DiceLoss as MMDetDiceLoss
from torch.testing import assert_close

from mmloss_plugins.functional import value_checks
from mmloss_plugins.losses import DiceLoss
from tests.contract.test_device import NoSync

SHAPES = {'batch': (1,), 'sample': (3,), 'channel': (3, 2)}
DB = dict(ratio_over='batch', smooth_numerator=0, smooth_denominator=1e-6)


def maps(shape=(3, 2, 4, 5), dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(shape, generator=generator, dtype=torch.float64)
    target = (torch.rand(shape, generator=generator) < 0.3).to(dtype)
    return logits.to(dtype).requires_grad_(), target


@pytest.mark.parametrize('ratio_over', SHAPES)
def test_reductions(ratio_over):
    logits, target = maps()
    loss = DiceLoss(ratio_over=ratio_over, reduction='none', loss_weight=2.0)(logits, target)
    assert loss.shape == SHAPES[ratio_over]
    assert_close(DiceLoss(ratio_over=ratio_over)(logits, target), loss.mean() / 2)
    assert_close(DiceLoss(ratio_over=ratio_over, reduction='sum')(logits, target), loss.sum() / 2)


@pytest.mark.parametrize('avg_factor', [None, 2.0])
@pytest.mark.parametrize('naive', [False, True])
def test_mmdetection(naive, avg_factor):
    logits, target = maps(dtype=torch.float32)
    weight = torch.tensor([1.0, 0.5, 0.0])
    host = MMDetDiceLoss(naive_dice=naive)(logits, target, weight, avg_factor=avg_factor)
    smooth = dict(smooth_numerator=1e-3, smooth_denominator=1e-3)
    if not naive:
        smooth = dict(smooth_numerator=0, smooth_denominator=2e-3)
    ours = DiceLoss(ratio_over='sample', power=1 if naive else 2, **smooth)
    assert_close(ours(logits, target, weight, avg_factor=avg_factor), host)


@pytest.mark.parametrize('ratio_over', ['sample', 'channel'])
def test_weights_of_the_ratios_are_factors(ratio_over):
    logits, target = maps()
    loss = DiceLoss(ratio_over=ratio_over, reduction='none')
    weight = torch.rand(SHAPES[ratio_over], dtype=torch.float64)
    assert_close(loss(logits, target, weight), weight * loss(logits, target))
    per_sample = torch.rand(3, dtype=torch.float64)
    factor = per_sample if ratio_over == 'sample' else per_sample[:, None]
    assert_close(loss(logits, target, per_sample), factor * loss(logits, target))
    padded = per_sample[:, None, None, None]
    assert_close(loss(logits, target, padded), factor * loss(logits, target))


def test_weights_of_classes():
    logits, target = maps()
    loss = DiceLoss(ratio_over='channel', reduction='none', activation='softmax')
    weight = torch.tensor([[0.0, 2.0]], dtype=torch.float64)
    assert_close(loss(logits, target, weight), weight * loss(logits, target))


@pytest.mark.parametrize('ratio_over', SHAPES)
@pytest.mark.parametrize('size', [(3, 2, 4, 5), (3, 1, 4, 5), (3, 2, 4), (1, 1, 1, 5)])
def test_weights_of_pixels_are_in_the_sums(size, ratio_over):
    logits, target = maps()
    weight = torch.rand(size, dtype=torch.float64)
    weight.view(-1)[1] = 0
    full = weight.reshape(*size, *[1] * (4 - len(size))).expand(3, 2, 4, 5)
    dims = tuple(range(0 if ratio_over == 'batch' else len(SHAPES[ratio_over]), 4))
    p = logits.sigmoid()
    overlap, total = (full * p * target).sum(dims), (full * (p + target)).sum(dims)
    expected = 1 - (2 * overlap + 1) / (total + 1)
    loss = DiceLoss(ratio_over=ratio_over, reduction='none')
    assert_close(loss(logits, target, weight), expected.reshape(SHAPES[ratio_over]))
    masked = loss(logits, target, weight != 0)
    assert_close(loss(logits, target, mask=weight != 0), masked)
    assert_close(loss(logits, target, 2 * weight, weight != 0), loss(logits, target, 2 * weight))


def test_weight_and_mask_of_pixels_together():
    logits, target = maps()
    weight = torch.rand(3, 1, 4, 5, dtype=torch.float64)
    mask = torch.rand(3, 1, 4, 5) < 0.7
    loss = DiceLoss()
    both = loss(logits, target, weight, mask)
    assert_close(both, loss(logits, target, weight * mask))
    weight[~mask] = math.nan
    assert_close(loss(logits, target, weight, mask), both)
    assert_close(
        DiceLoss(use_target_weight=False)(logits, target, weight, mask),
        loss(logits, target, mask=mask),
    )


def test_weights_of_the_samples_of_a_batch_are_in_the_sums():
    logits, target = maps()
    weight = torch.tensor([1.0, 0.0, 1.0])
    kept = DiceLoss()(logits[::2], target[::2])
    assert_close(DiceLoss()(logits, target, weight), kept)
    assert_close(DiceLoss()(logits, target, mask=weight > 0), kept)
    keypoints = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    assert_close(DiceLoss()(logits, target, keypoints), DiceLoss()(logits[:, :1], target[:, :1]))


@pytest.mark.parametrize('bad', [math.nan, math.inf])
def test_a_sample_that_is_left_out_of_the_batch_may_hold_anything(bad):
    logits, target = maps()
    weight = torch.tensor([1.0, 0.0, 1.0])
    expected = DiceLoss()(logits, target, weight)
    poisoned = logits.detach().clone()
    poisoned[1] = bad
    poisoned.requires_grad_()
    target[1] = bad
    with value_checks(False):
        loss = DiceLoss()(poisoned, target, weight)
    loss.backward()
    assert_close(loss, expected)
    assert (poisoned.grad[1] == 0).all()
    assert torch.isfinite(poisoned.grad).all()


def test_batch_all_masked():
    logits, target = maps()
    logits.data.fill_(math.nan)
    for weight in (torch.zeros(1), torch.zeros(3), torch.zeros(3, 1, 4, 5)):
        logits.grad = None
        loss = DiceLoss(**DB)(logits, target, weight)
        loss.backward()
        assert loss == 0
        assert (logits.grad == 0).all()


def test_batch_half_a_weight_on_the_whole():
    logits, target = maps()
    half = DiceLoss()(logits, target, torch.tensor([0.5]))
    assert_close(half, 0.5 * DiceLoss()(logits, target))


def test_batch_extremes_of_half_precision():
    logits, target = maps(dtype=torch.float16)
    values = torch.tensor([65504.0, -65504.0, 8.5, -8.5, 0.0], dtype=torch.float16)
    logits.data.copy_(values.expand_as(logits))
    for empty in (False, True):
        logits.grad = None
        loss = DiceLoss()(logits, target * (not empty))
        loss.backward()
        assert 0 < loss < 1
        assert torch.isfinite(logits.grad).all()
        assert (logits.grad != 0).any()


@pytest.mark.parametrize('ratio_over', SHAPES)
def test_no_sync(ratio_over):
    logits, target = maps()
    mask = torch.rand(3, 1, 4, 5) < 0.7
    with value_checks(False), NoSync():
        loss = DiceLoss(ratio_over=ratio_over, mean_over='valid')(logits, target, mask=mask)
        loss.backward()
    assert (logits.grad != 0).any()


@pytest.mark.parametrize('options', [DB, dict(ratio_over='channel', activation='softmax')])
def test_one_graph(options):
    logits, target = maps()
    mask = torch.rand(3, 1, 4, 5) < 0.7
    loss = DiceLoss(**options)
    compiled = torch.compile(loss, fullgraph=True, backend='aot_eager')
    expected = loss(logits, target, mask=mask)
    (slope,) = torch.autograd.grad(expected, logits)
    found = compiled(logits, target, mask=mask)
    assert_close(found, expected)
    assert_close(torch.autograd.grad(found, logits)[0], slope)


def test_valid_counts_ratios_with_a_pixel():
    logits, target = maps()
    mask = torch.ones(3, 2, 4, 5, dtype=torch.bool)
    mask[0] = mask[1, 1] = False
    for ratio_over, valid in (('sample', 2), ('channel', 3), ('batch', 1)):
        total = DiceLoss(ratio_over=ratio_over, reduction='sum')(logits, target, mask=mask)
        mean = DiceLoss(ratio_over=ratio_over, mean_over='valid')(logits, target, mask=mask)
        assert_close(mean, total / valid)
        half = torch.ones(SHAPES[ratio_over]) / 2
        weighted = DiceLoss(ratio_over=ratio_over, mean_over='valid')(logits, target, half, mask)
        assert_close(weighted, mean / 2)


def test_ignored_labels_of_a_whole_sample():
    logits, _ = maps()
    labels = torch.zeros(3, 4, 5, dtype=torch.long)
    labels[1] = -100
    loss = DiceLoss(activation='softmax', ratio_over='sample', reduction='none')
    assert loss(logits, labels)[1] == 0
    assert (loss(logits, labels)[::2] > 0).all()


def test_error_names_both_shapes():
    logits, target = maps()
    with pytest.raises(ValueError, match=r'weight must have the shape \(3,\) of the ratios or a '):
        DiceLoss(ratio_over='sample')(logits, target, torch.ones(3, 4, 5))
