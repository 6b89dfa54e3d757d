"""Laws 1 and 2: both hosts' calls, and MMDetection's reductions."""

from __future__ import annotations

import inspect

import pytest
import torch
from mmdet.models.losses.utils import weight_reduce_loss
from torch.testing import assert_close

from mmloss_plugins.losses.base import BaseLoss
from tests.contract.subject import loss_and_gradients


def test_forward_takes_the_arguments_of_the_contract(plain):
    parameters = inspect.signature(type(plain.build()).forward).parameters
    assert list(parameters) == list(inspect.signature(BaseLoss.forward).parameters)


def test_positional_call_of_mmpose_heads(subject):
    pred, target = subject.make()
    loss, weight = subject.build(), subject.weight()
    called = loss(pred, target, weight)
    assert called.shape == ()
    assert_close(called, loss(pred=pred, target=target, weight=weight), rtol=0, atol=0)


def test_keyword_call_of_mmdet_heads(subject):
    pred, target = subject.make()
    loss, weight = subject.build(), subject.weight()
    called = loss(pred, target, weight=weight, avg_factor=7.0, reduction_override='mean')
    assert_close(called, loss(pred, target, weight, reduction_override='sum') / 7)


@pytest.mark.parametrize('avg_factor', [None, 7.0, torch.tensor(7.0), torch.tensor(7)])
@pytest.mark.parametrize('reduction', ['none', 'sum', 'mean'])
def test_reductions_are_those_of_mmdet(subject, reduction, avg_factor):
    if reduction == 'sum' and avg_factor is not None:
        return  # refused: test_avg_factor_with_sum_is_refused
    pred, target = subject.make()
    weight = subject.weight()
    elements = subject.build(reduction='none')
    if subject.variant.coupled:  # elements of weight 0 may decide which others count
        expected = weight_reduce_loss(elements(pred, target, weight), None, reduction, avg_factor)
    else:
        expected = weight_reduce_loss(elements(pred, target), weight, reduction, avg_factor)
    if reduction == 'mean' and avg_factor is None:
        expected = expected * subject.variant.mean_factor(subject.shape())
        if subject.variant.mean_divisor is not None:
            expected = expected * weight.numel() / subject.variant.mean_divisor(target, weight)
    assert_close(
        subject.build(reduction=reduction)(pred, target, weight, avg_factor=avg_factor), expected
    )
    override = subject.build(reduction='sum' if reduction == 'none' else 'none')
    called = override(pred, target, weight, avg_factor=avg_factor, reduction_override=reduction)
    assert_close(called, expected)


def test_gradient_is_that_of_the_reduction(subject):
    weight = subject.weight()
    _, unreduced = loss_and_gradients(subject.build(reduction='none'), *subject.make(), weight)
    _, summed = loss_and_gradients(subject.build(reduction='sum'), *subject.make(), weight)
    _, averaged = loss_and_gradients(subject.build(), *subject.make(), weight, avg_factor=4.0)
    assert any(gradient.abs().sum() > 0 for gradient in summed)
    assert_close(unreduced, summed)
    assert_close([4 * gradient for gradient in averaged], summed)


def test_avg_factor_with_sum_is_refused(subject):
    with pytest.raises(ValueError, match=r"avg_factor must be None with reduction='sum', got 2"):
        subject.build(reduction='sum')(*subject.make(), avg_factor=2)


def test_negative_avg_factor_is_refused(subject):
    with pytest.raises(ValueError, match='avg_factor must be zero or positive, got -1'):
        subject.build()(*subject.make(), avg_factor=-1)


@pytest.mark.parametrize('avg_factor', [0, 0.0, torch.tensor(0.0), torch.tensor(0)])
def test_avg_factor_zero_divides_by_one(subject, avg_factor):
    loss = subject.build()
    called, gradient = loss_and_gradients(loss, *subject.make(), avg_factor=avg_factor)
    expected, slope = loss_and_gradients(loss, *subject.make(), avg_factor=1.0)
    assert_close(called, expected, rtol=0, atol=0)
    assert_close(gradient, slope, rtol=0, atol=0)


@pytest.mark.parametrize('reduction', ['none', 'sum', 'mean'])
def test_loss_weight_is_linear(subject, reduction):
    weight = subject.weight()
    plain = loss_and_gradients(subject.build(reduction=reduction), *subject.make(), weight)
    tripled = loss_and_gradients(
        subject.build(reduction=reduction, loss_weight=3.0), *subject.make(), weight
    )
    assert_close(tripled[0], 3 * plain[0])
    assert_close(tripled[1], [3 * gradient for gradient in plain[1]])


def test_mean_over_valid_divides_by_the_valid_elements(subject):
    if not subject.variant.can_mean_over_valid:
        with pytest.raises(ValueError, match='mean_over must'):
            subject.build(mean_over='valid')
        return
    pred, target = subject.make()
    weight, mask = subject.weight(), subject.mask()
    valid = int(((weight != 0) & mask).sum())
    assert 1 < valid < weight.numel() - 1
    total = subject.build(reduction='sum')(pred, target, weight, mask)
    assert_close(subject.build(mean_over='valid')(pred, target, weight, mask), total / valid)
    assert_close(
        subject.build(mean_over='valid')(pred, target),
        subject.build(reduction='sum')(pred, target) / weight.numel(),
    )


def test_avg_factor_wins_over_mean_over_valid(subject):
    if not subject.variant.can_mean_over_valid:
        return
    weight = subject.weight()
    called = subject.build(mean_over='valid')(*subject.make(), weight, avg_factor=3.0)
    assert_close(called, subject.build()(*subject.make(), weight, avg_factor=3.0), rtol=0, atol=0)
