"""Laws 3, 5 and 9: zero weight is no element, w counts as w, and nothing hides NaN."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from mmloss_plugins.functional import value_checks
from tests.contract.subject import loss_and_gradients
from tests.contract.trees import float_leaves, map_floats

NOT_FINITE = [math.nan, math.inf, -math.inf]


def poison(subject, tree, index, value):
    """Return a copy of ``tree`` that holds ``value`` everywhere in the element ``index``."""
    tree = map_floats(lambda leaf: leaf.detach().clone(), tree)
    for leaf in float_leaves(tree):
        subject.case.select(leaf, index).fill_(value)
    return tree


def switch_off(subject, index, how):
    """Return (weight, mask) that leave out the element ``index``."""
    weight, mask = torch.ones(subject.shape()), None
    if how == 'weight':
        weight[index] = 0
    if how == 'mask':
        mask = torch.ones(subject.shape(), dtype=torch.bool)
        mask[index] = False
    return weight, mask


def test_half_a_weight_is_half_the_loss(subject):
    loss = subject.build(reduction='none')
    full, slope = loss_and_gradients(loss, *subject.make(), torch.ones(subject.shape()))
    half, half_slope = loss_and_gradients(loss, *subject.make(), torch.full(subject.shape(), 0.5))
    assert_close(half, full / 2, rtol=0, atol=0)
    assert_close(half_slope, [gradient / 2 for gradient in slope], rtol=0, atol=0)


def test_a_weight_counts_once(separable):
    weight = separable.weight()
    assert weight.unique().numel() > 3
    loss = separable.build(reduction='none')
    assert_close(loss(*separable.make(), weight), weight * loss(*separable.make()))


def test_no_weight_is_weight_one(subject):
    ones = torch.ones(subject.shape())
    loss = subject.build(reduction='none')
    assert_close(loss(*subject.make()), loss(*subject.make(), ones), rtol=0, atol=0)
    assert_close(loss(*subject.make()), loss(*subject.make(), ones, ones.bool()), rtol=0, atol=0)


def test_weights_match_from_the_left(separable):
    loss = separable.build(reduction='none')
    unweighted = loss(*separable.make())
    whole = separable.shape()
    for left in range(1, len(whole) + 1):
        weight = torch.rand(whole[:left])
        padded = weight.reshape(*weight.shape, *[1] * (len(whole) - left))
        expected = unweighted * padded
        assert_close(loss(*separable.make(), weight), expected)
        assert_close(loss(*separable.make(), padded), expected)
        assert_close(loss(*separable.make(), padded[..., None]), expected)


@pytest.mark.parametrize('dtype', [torch.bool, torch.int64, torch.float16, torch.float64])
def test_weights_of_any_type(subject, dtype):
    weight = (subject.weight() != 0).to(dtype)
    loss = subject.build()
    called = loss(*subject.make(), weight)
    assert called.dtype == torch.float32
    assert_close(called, loss(*subject.make(), weight.float()), rtol=0, atol=0)


def test_use_target_weight_false_ignores_the_weight(subject):
    loss = subject.build(use_target_weight=False)
    reference = loss_and_gradients(loss, *subject.make())
    assert_close(
        loss_and_gradients(loss, *subject.make(), subject.weight()), reference, rtol=0, atol=0
    )
    nan = torch.full(subject.shape(), math.nan)
    assert_close(loss_and_gradients(loss, *subject.make(), nan), reference, rtol=0, atol=0)


def test_use_target_weight_false_keeps_the_mask(separable):
    mask = separable.weight() != 0
    loss = separable.build(use_target_weight=False, reduction='none')
    assert_close(
        loss(*separable.make(), None, mask), mask * loss(*separable.make()), rtol=0, atol=0
    )


@pytest.mark.parametrize('how', ['weight', 'mask'])
@pytest.mark.parametrize('value', NOT_FINITE)
@pytest.mark.parametrize('where', ['pred', 'target', 'both'])
def test_an_element_switched_off_does_not_count(separable, where, value, how):
    index = separable.middle()
    weight, mask = switch_off(separable, index, how)
    pred, target = separable.make()
    poisoned = (
        pred if where == 'target' else poison(separable, pred, index, value),
        target if where == 'pred' else poison(separable, target, index, value),
    )
    elements = separable.build(reduction='none')(pred, target).detach()
    without = elements.clone()
    without[index] = 0
    loss = separable.build(reduction='sum')
    _, clean = loss_and_gradients(loss, pred, target, weight, mask)
    # The checks cannot know the weight, and a label that is switched off may be anything.
    with value_checks(False):
        total, found = loss_and_gradients(loss, *poisoned, weight, mask)
    assert_close(total, without.sum())
    assert elements[index] > 0
    for gradient, expected in zip(found, clean):
        assert (separable.case.select(gradient, index) == 0).all()
        assert_close(gradient, expected)
        assert (gradient != 0).any()


@pytest.mark.parametrize('reduction', ['none', 'sum', 'mean'])
@pytest.mark.parametrize('value', NOT_FINITE)
@pytest.mark.parametrize('weighted', [False, True])
def test_nan_and_inf_with_weight_are_visible(subject, reduction, value, weighted):
    index = subject.middle()
    pred, target = subject.make()
    weight = torch.ones(subject.shape()) if weighted else None
    found = subject.build(reduction=reduction)(poison(subject, pred, index, value), target, weight)
    found = found[index] if reduction == 'none' else found
    assert not torch.isfinite(found)


def test_nan_in_the_weight_is_visible(subject):
    weight = torch.ones(subject.shape())
    weight[subject.middle()] = math.nan
    assert torch.isnan(subject.build()(*subject.make(), weight))


@pytest.mark.parametrize('avg_factor', [math.nan, torch.tensor(math.nan)])
def test_nan_in_avg_factor_is_visible(subject, avg_factor):
    assert torch.isnan(subject.build()(*subject.make(), avg_factor=avg_factor))


NOTHING = {
    'zero weight': lambda subject: dict(weight=torch.zeros(subject.shape())),
    'false mask': lambda subject: dict(mask=torch.zeros(subject.shape(), dtype=torch.bool)),
    'disjoint': lambda subject: dict(
        weight=(subject.weight() != 0).float(), mask=subject.weight() == 0
    ),
}


@pytest.mark.parametrize('mean_over', ['all', 'valid'])
@pytest.mark.parametrize('reduction', ['none', 'sum', 'mean'])
@pytest.mark.parametrize('nothing', NOTHING)
def test_all_masked(subject, nothing, reduction, mean_over):
    if mean_over == 'valid' and not subject.variant.can_mean_over_valid:
        return
    loss = subject.build(reduction=reduction, mean_over=mean_over)
    pred, target = subject.make()
    pred = map_floats(lambda leaf: leaf.detach() * math.nan, pred)
    value, found = loss_and_gradients(loss, pred, target, **NOTHING[nothing](subject))
    assert (value == 0).all()
    assert all((gradient == 0).all() for gradient in found)


@pytest.mark.parametrize('mean_over', ['all', 'valid'])
@pytest.mark.parametrize('reduction', ['none', 'sum', 'mean'])
@pytest.mark.parametrize('avg_factor', [None, 0.0])
def test_empty_batch(subject, reduction, mean_over, avg_factor):
    if mean_over == 'valid' and not subject.variant.can_mean_over_valid:
        return
    if reduction == 'sum' and avg_factor is not None:
        return
    loss = subject.build(reduction=reduction, mean_over=mean_over)
    pred, target = subject.make(batch=0)
    weight = torch.ones(subject.shape(batch=0))
    for arguments in ((), (weight,), (weight, weight.bool())):
        value = loss(pred, target, *arguments, avg_factor=avg_factor)
        assert value.requires_grad, 'not attached to the graph'
        value.sum().backward()
        assert (value == 0).all()
        assert value.shape == (subject.shape(batch=0) if reduction == 'none' else ())


def test_documented_zeros(plain):
    assert plain.case.zeros, 'no target is known that gives zero'
    for name, make in plain.case.zeros.items():
        options, pred, target = make()
        value, found = loss_and_gradients(plain.build(**options, reduction='none'), pred, target)
        assert_close(value, torch.zeros_like(value), rtol=0, atol=1e-12, msg=f'{name}: {value}')
        assert_close(found, [torch.zeros_like(gradient) for gradient in found], rtol=0, atol=1e-12)
