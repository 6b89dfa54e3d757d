"""Pixel AP against values by hand and a loop over thresholds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.registry import METRICS as ROOT

from mmloss_plugins.metrics import PixelAveragePrecision, pixel_average_precision


def evaluate(samples, **options):
    metric = PixelAveragePrecision(**options)
    for prob, target in samples:
        metric.process(None, [dict(prob=torch.as_tensor(prob), target=torch.as_tensor(target))])
    return metric.evaluate(size=len(samples))


def values_of(prob, target, **options):
    return evaluate([([[prob]], [[target]])], **options)


class TestByHand:
    def test_two_positives(self):
        # Positives at ranks 1 and 3: the mean of 1/1 and 2/3.
        values = values_of([0.9, 0.8, 0.7, 0.1], [1.0, 0.0, 1.0, 0.0])
        assert values['pixel/AP'] == pytest.approx(5 / 6)

    def test_ties_enter_together(self):
        # Both precisions are 2/4, whatever the order.
        for order in ([1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]):
            assert values_of([0.3] * 4, order)['pixel/AP'] == 0.5

    def test_perfect_worst_and_none(self):
        score = np.arange(10) / 10
        assert values_of(score, (score > 0.6).astype(float))['pixel/AP'] == 1
        # The one positive comes last of ten.
        assert values_of(score, (score == 0).astype(float))['pixel/AP'] == pytest.approx(0.1)
        values = values_of(score, np.zeros(10))
        assert math.isnan(values['pixel/AP'])
        assert math.isnan(values['pixel/F1'])

    def test_f1(self):
        # One hit, precision 1/3, recall 1/2: 2 * 1 / (3 + 2).
        target = [1.0, 0.0, 0.0, 1.0]
        assert values_of([0.9, 0.8, 0.7, 0.1], target)['pixel/F1'] == pytest.approx(0.4)
        assert values_of([0.1] * 4, target)['pixel/F1'] == 0


SCORED = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=40).filter(
    lambda pairs: any(positive for _, positive in pairs)
)


def loop_over_thresholds(score, target):
    area, recall = 0.0, 0.0
    for threshold in sorted(set(score), reverse=True):
        hits = sum(t for s, t in zip(score, target) if s >= threshold)
        found = sum(1 for s in score if s >= threshold)
        area += (hits / sum(target) - recall) * hits / found
        recall = hits / sum(target)
    return area


@given(SCORED)
@settings(max_examples=40, deadline=None)
def test_equals_a_loop_over_thresholds(pairs):
    score, target = zip(*pairs)
    expected = loop_over_thresholds(score, target)
    values = values_of(np.array(score) / 6, np.array(target, dtype=float))
    assert values['pixel/AP'] == pytest.approx(expected)


def test_missing_scikit_learn_is_said_before_the_run(monkeypatch):
    monkeypatch.setattr(pixel_average_precision, 'find_spec', lambda name: None)
    with pytest.raises(ImportError, match=r'scikit-learn must be installed .*\[claims\]'):
        PixelAveragePrecision()


class TestMetric:
    def test_all_pixels_of_all_images_together(self):
        # Rows 1 and 2 of the set, by rank: .9 hit, .8 miss, .7 hit, .2 miss, over two images.
        samples = [([[[0.9, 0.8]]], [[[1.0, 0.0]]]), ([[[0.7, 0.2]]], [[[1.0, 0.0]]])]
        values = evaluate(samples)
        assert values['pixel/AP'] == pytest.approx(5 / 6)
        assert values['pixel/F1'] == pytest.approx(2 * 2 / (3 + 2))
        assert values['pixel/max_prob'] == pytest.approx(0.9)

    def test_threshold(self):
        samples = [([[[0.9, 0.8]]], [[[1.0, 0.0]]])]
        assert evaluate(samples, threshold=0.85)['pixel/F1'] == 1
        with pytest.raises(ValueError, match=r'threshold must be between 0 and 1, got 1\.5'):
            PixelAveragePrecision(threshold=1.5)

    def test_prefix_and_images_of_different_sizes(self):
        samples = [([[[0.9]]], [[[1.0]]]), ([[[0.2, 0.1], [0.3, 0.1]]], [[[0.0, 0], [0, 0]]])]
        assert evaluate(samples, prefix='dots') == {
            'dots/AP': 1.0,
            'dots/F1': 1.0,
            'dots/max_prob': pytest.approx(0.9),
        }

    def test_half_precision_probabilities(self):
        metric = PixelAveragePrecision()
        prob = torch.tensor([[[0.75, 0.25]]], dtype=torch.float16)
        metric.process(None, [dict(prob=prob, target=torch.tensor([[[1.0, 0.0]]]))])
        assert metric.evaluate(1)['pixel/AP'] == 1

    def test_keeps_five_bytes_per_pixel(self):
        metric = PixelAveragePrecision()
        metric.process(None, [dict(prob=torch.rand(1, 20, 30), target=torch.zeros(1, 20, 30))])
        ((prob, target),) = metric.results
        assert prob.nbytes + target.nbytes == 5 * 600

    def test_built_by_a_config_of_any_host(self):
        metric = ROOT.build(dict(type='mmloss_plugins.PixelAveragePrecision'))
        assert type(metric) is PixelAveragePrecision
