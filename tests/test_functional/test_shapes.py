"""Checks that the element-wise losses share."""

from __future__ import annotations

import math

import pytest
import torch

from mmloss_plugins.functional import value_checks
from mmloss_plugins.functional.shapes import check_range, check_same_shape, refuse_gradient


def test_one_shape_passes():
    assert check_same_shape('loss', torch.zeros(2, 3), torch.zeros(2, 3)) is None


@pytest.mark.parametrize('target', [torch.zeros(3, 2), torch.zeros(3), torch.zeros(2, 3, 1)])
def test_another_shape_is_refused(target):
    with pytest.raises(
        ValueError, match=r'^loss: target must have the shape \(2, 3\) of pred, got'
    ):
        check_same_shape('loss', torch.zeros(2, 3), target)


@pytest.mark.parametrize('bad', [None, [0.0, 1.0], 1.0])
def test_what_is_no_tensor_is_refused(bad):
    with pytest.raises(TypeError, match=f'pred must be a tensor, got {type(bad).__name__}'):
        check_same_shape('loss', bad, torch.zeros(2))
    with pytest.raises(TypeError, match=f'target must be a tensor, got {type(bad).__name__}'):
        check_same_shape('loss', torch.zeros(2), bad)


def test_a_target_with_a_gradient_is_refused():
    target = torch.zeros(2, requires_grad=True)
    for check in (
        lambda: refuse_gradient('loss', target),
        lambda: check_same_shape('loss', torch.zeros(2), target),
    ):
        with pytest.raises(ValueError, match=r'must not require a gradient, got.*Detach it'):
            check()


@pytest.mark.parametrize('bad', [-0.1, 1.1, math.nan, math.inf])
def test_range_names_the_first_bad_value(bad):
    target = torch.zeros(2, 3)
    target[1, 2] = bad
    with pytest.raises(ValueError, match=rf'within \[0, 1\], got {bad:g} at index \(1, 2\)'):
        check_range('loss', target, 0, 1)
    with value_checks(False):
        assert check_range('loss', target, 0, 1) is None


def test_range_includes_its_ends():
    assert check_range('loss', torch.tensor([0, 5]), 0, 5) is None
    with pytest.raises(ValueError, match=r'within \[0, 4\], got 5 at index'):
        check_range('loss', torch.tensor([0, 5]), 0, 4)
