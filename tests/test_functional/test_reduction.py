"""Weights and reductions: values by hand and the messages of wrong shapes."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from mmloss_plugins.functional import expand_weight, reduce_loss

LOSS = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
WEIGHT = torch.tensor([[1.0, 0.5, 0.0], [2.0, 0.0, 1.0]])
# Weighted: 1 + 1 + 0 + 8 + 0 + 6 = 16.


def test_values_by_hand():
    assert_close(reduce_loss(LOSS), torch.tensor(3.5))
    assert_close(reduce_loss(LOSS, reduction='sum'), torch.tensor(21.0))
    assert_close(reduce_loss(LOSS, WEIGHT, reduction='sum'), torch.tensor(16.0))
    assert_close(reduce_loss(LOSS, WEIGHT), torch.tensor(16.0 / 6))
    assert_close(reduce_loss(LOSS, WEIGHT, avg_factor=4), torch.tensor(4.0))
    assert_close(reduce_loss(LOSS, WEIGHT, reduction='none'), LOSS * WEIGHT)
    mask = torch.tensor([True, False])
    assert_close(reduce_loss(LOSS, WEIGHT, mask, reduction='sum'), torch.tensor(2.0))


def test_avg_factor_is_ignored_without_reduction():
    assert_close(reduce_loss(LOSS, avg_factor=9.0, reduction='none'), LOSS)


def test_avg_factor_may_be_a_tensor_and_a_fraction():
    assert_close(reduce_loss(LOSS, avg_factor=torch.tensor(0.5)), torch.tensor(42.0))
    assert_close(reduce_loss(LOSS, avg_factor=0.5), torch.tensor(42.0))


def test_nothing_to_average():
    assert reduce_loss(torch.zeros(0, 3)) == 0
    assert reduce_loss(torch.zeros(0, 3), torch.ones(0, 3), avg_factor=0) == 0


@pytest.mark.parametrize('bad', [math.nan, math.inf, -math.inf])
def test_zero_weight_stops_what_is_not_finite(bad):
    loss = LOSS.clone()
    loss[0, 2] = loss[1, 1] = bad
    loss.requires_grad_()
    value = reduce_loss(loss, WEIGHT, reduction='sum')
    value.backward()
    assert_close(value.detach(), torch.tensor(16.0))
    assert_close(loss.grad, WEIGHT, rtol=0, atol=0)


@pytest.mark.parametrize(
    ('size', 'expected'),
    [
        ((4,), (4, 1, 1)),
        ((4, 5), (4, 5, 1)),
        ((4, 5, 6), (4, 5, 6)),
        ((4, 5, 1), (4, 5, 1)),
        ((4, 5, 1, 1, 1), (4, 5, 1)),
        ((1, 5), (1, 5, 1)),
        ((), (1, 1, 1)),
    ],
)
def test_dimensions_match_from_the_left(size, expected):
    assert expand_weight(torch.ones(size), torch.Size((4, 5, 6)), 'test').shape == expected


def test_equal_sizes_are_read_as_samples():
    weight = torch.tensor([1.0, 0.0])
    expected = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    assert_close(reduce_loss(torch.ones(2, 2), weight, reduction='none'), expected)


@pytest.mark.parametrize('size', [(5,), (5, 4), (4, 6), (4, 5, 6, 2), (4, 5, 6, 1, 2)])
def test_other_shapes_are_refused(size):
    with pytest.raises(ValueError) as caught:
        expand_weight(torch.ones(size), torch.Size((4, 5, 6)), 'SomeLoss', 'mask')
    assert str(caught.value) == (
        f'SomeLoss: mask must have the shape (4, 5, 6) or a left part of it, got {size}. '
        'Pass one factor per sample or per keypoint.'
    )


def test_misspelt_reduction_does_not_fall_through_to_the_mean():
    with pytest.raises(ValueError, match=r"reduction must be one of .*, got 'avg'"):
        reduce_loss(LOSS, reduction='avg')


sizes = st.lists(st.integers(1, 4), min_size=1, max_size=4)


@given(sizes, st.integers(0, 10**6), st.data())
@settings(max_examples=50, deadline=None)
def test_weight_of_any_left_part_is_a_loop_over_it(size, seed, data):
    generator = torch.Generator().manual_seed(seed)
    loss = torch.rand(size, generator=generator, dtype=torch.float64)
    left = data.draw(st.integers(0, len(size)))
    weight = torch.rand(size[:left], generator=generator, dtype=torch.float64)
    expected = sum(
        weight[tuple(index[:left])] * loss[tuple(index)]
        for index in torch.ones(size).nonzero().tolist()
    )
    assert_close(reduce_loss(loss, weight, reduction='sum'), expected)
