"""The scale of AdaCos and weights on a circle, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from mmloss_plugins.functional import adacos_scale, circle_directions


@pytest.mark.parametrize(('classes', 'scale'), [(3, 0.98026), (10, 3.10734), (100_000, 16.28172)])
def test_scale_by_hand(classes, scale):
    # 1.41421 * 0.69315, * 2.19722, * 11.51292 (log 99999)
    assert adacos_scale(classes) == pytest.approx(scale, abs=1e-5)


def test_the_scale_makes_45_degrees_the_steepest():
    # AdaCos: P = exp(s cos t) / (exp(s cos t) + C - 1); P is 1/2 at 45 degrees.
    classes = 50
    own = math.exp(adacos_scale(classes) * math.cos(math.pi / 4))
    assert own / (own + classes - 1) == pytest.approx(0.5)


@pytest.mark.parametrize('classes', [2, 0, 3.0, True])
def test_no_scale_for_fewer_than_three(classes):
    with pytest.raises(ValueError, match='adacos_scale: num_classes must be an integer of at leas'):
        adacos_scale(classes)


@pytest.mark.parametrize('classes', [1, 2, 7, 10])
def test_equal_angles(classes):
    w = circle_directions(classes)
    assert_close(w.norm(dim=1), torch.ones(classes))
    following = (w * w.roll(-1, 0)).sum(1)
    assert_close(following, torch.full((classes,), math.cos(2 * math.pi / classes)))
    assert len({tuple(row) for row in w.mul(1e4).round().tolist()}) == classes


def test_one_class_or_more():
    with pytest.raises(ValueError, match='circle_directions: num_classes must be a positive int'):
        circle_directions(0)
