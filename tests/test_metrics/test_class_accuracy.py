"""ClassAccuracy: by hand, forms of labels, errors."""

from __future__ import annotations

import math

import pytest
import torch
from mmengine.registry import METRICS as ROOT

from mmloss_plugins.metrics import ClassAccuracy


def evaluate(pairs, **options):
    metric = ClassAccuracy(**options)
    for label, found in pairs:
        sample = dict(gt_label=dict(label=torch.tensor([label])), pred_label=torch.tensor(found))
        metric.process(None, [sample])
    return metric.evaluate(size=len(pairs))


def test_by_hand():
    # 2 of 3 that are not ignored.
    assert evaluate([(0, 0), (5, 5), (5, 0), (-1, -1)]) == {'class/accuracy': pytest.approx(2 / 3)}
    assert evaluate([(0, 0), (5, 0)], ignore_index=5) == {'class/accuracy': 1}


def test_nothing_counts():
    assert math.isnan(evaluate([(-1, 0)])['class/accuracy'])


def test_built_by_a_config_of_any_host():
    metric = ROOT.build(dict(type='mmloss_plugins.ClassAccuracy', prefix='digits'))
    metric.process(None, [dict(gt_label=3, pred_label=dict(label=torch.tensor([3])))])
    assert metric.evaluate(size=1) == {'digits/accuracy': 1}


@pytest.mark.parametrize(
    ('sample', 'text'),
    [
        (dict(gt_label=1), 'pred_label must hold one class, got None. Build the head with with_sc'),
        (dict(pred_label=1), 'gt_label must hold one class, got None. Give each sample a gt_label'),
    ],
)
def test_samples_without_a_label(sample, text):
    with pytest.raises(ValueError, match=text):
        ClassAccuracy().process(None, [sample])
