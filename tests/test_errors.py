"""One form for every message."""

from __future__ import annotations

import pytest

from mmloss_plugins.errors import check_choice, message, refuse_unknown


def test_form():
    text = message('DemoLoss', 'beta', 'be positive', -1, 'Use 1')
    assert text == 'DemoLoss: beta must be positive, got -1. Use 1.'


@pytest.mark.parametrize('step', ['Use 1.', 'Use 1?'])
def test_one_mark_at_the_end(step):
    assert message('a', 'b', 'be c', 'd', step) == f'a: b must be c, got d. {step}'


def test_a_choice_passes():
    assert check_choice('DemoLoss', 'reduction', 'mean', ('mean', 'sum')) is None


def test_near_miss_is_suggested():
    with pytest.raises(ValueError) as caught:
        check_choice('DemoLoss', 'reduction', 'maen', ('none', 'mean', 'sum'))
    assert str(caught.value) == (
        "DemoLoss: reduction must be one of 'none', 'mean', 'sum', got 'maen'. Did you mean 'mean'?"
    )


@pytest.mark.parametrize('value', ['xyz', None, 3])
def test_far_miss_is_not_guessed(value):
    with pytest.raises(ValueError, match='Remove it or take one of these') as caught:
        check_choice('DemoLoss', 'reduction', value, iter(['mean', 'sum']))
    assert f'got {value!r}' in str(caught.value)


def test_nothing_unknown_passes():
    assert refuse_unknown('DemoLoss', {}, ['beta']) is None


def test_unknown_argument_is_a_type_error():
    with pytest.raises(TypeError) as caught:
        refuse_unknown('DemoLoss', {'betta': 1}, iter(['beta', 'reduction']))
    assert str(caught.value) == (
        "DemoLoss: argument must be one of beta, reduction, got 'betta'. Did you mean 'beta'?"
    )
