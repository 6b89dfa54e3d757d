"""CalibrationError: by hand, scikit-learn, the bins of the paper, forms of samples, NaN, errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.registry import METRICS as ROOT
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss

from mmloss_plugins.heads import SoftmaxHead
from mmloss_plugins.metrics import CalibrationError
from mmloss_plugins.metrics.calibration import expected_calibration_error


def evaluate(scores, labels, **options):
    metric = CalibrationError(**options)
    for score, label in zip(scores, labels):
        metric.process(None, [dict(scores=score, gt_label=dict(label=torch.tensor([label])))])
    values = metric.evaluate(size=len(labels))
    return {name.split('/')[1]: value for name, value in values.items()}


def random_batch(seed, samples=60, classes=4, scale=3.0):
    draw = torch.Generator().manual_seed(seed)
    scores = scale * torch.randn(samples, classes, generator=draw)
    return scores, torch.randint(classes, (samples,), generator=draw).tolist()


def test_by_hand():
    # Probabilities .9 .1, .7 .3, .6 .4, .45 .55 of classes 0, 1, 0, 1 in 2 bins: all four are in
    # the upper one, hits 1 0 1 1: |3/4 - (.9 + .7 + .6 + .55)/4| = .75 - .6875.
    scores = torch.tensor([[0.9, 0.1], [0.7, 0.3], [0.6, 0.4], [0.45, 0.55]]).log()
    found = evaluate(scores, [0, 1, 0, 1], num_bins=2)
    assert found['ece'] == pytest.approx(0.0625, abs=1e-6)
    assert found['confidence'] == pytest.approx(0.6875, abs=1e-6)
    nll = -(math.log(0.9) + math.log(0.3) + math.log(0.6) + math.log(0.55)) / 4
    assert found['nll'] == pytest.approx(nll, abs=1e-6)
    # In 8 bins .55 and .6 share (.5, .625], .7 is in (.625, .75], .9 in (.875, 1]:
    # (|2 - 1.15| + |0 - .7| + |1 - .9|) / 4.
    found = evaluate(scores, [0, 1, 0, 1], num_bins=8)
    assert found['ece'] == pytest.approx((0.85 + 0.7 + 0.1) / 4, abs=1e-6)


def test_a_bin_holds_its_upper_border_alone():
    # (0, .5] and (.5, 1]: .5 is below, so that gaps of .5 and -.4 do not cancel.
    confidence = torch.tensor([0.5, 0.9], dtype=torch.float64)
    hits = torch.tensor([1.0, 0.5], dtype=torch.float64)
    assert expected_calibration_error(confidence, hits, 2) == pytest.approx((0.5 + 0.4) / 2)
    # In one bin they do.
    assert expected_calibration_error(confidence, hits, 1) == pytest.approx(0.05)
    # A probability of 1, and above by rounding, is in the last bin.
    sure = torch.tensor([1.0, 1 + 2.3e-16], dtype=torch.float64)
    assert sure[1] > 1
    found = expected_calibration_error(sure, torch.ones(2).double(), 15)
    assert found == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize('num_bins', [1, 7, 15])
def test_as_scikit_learn(num_bins):
    scores, labels = random_batch(3)
    probs = scores.double().softmax(1).numpy()
    confidence, hits = probs.max(1), probs.argmax(1) == labels
    shares, means = calibration_curve(hits, confidence, n_bins=num_bins)
    counts, _ = np.histogram(confidence, np.linspace(0, 1, num_bins + 1))
    found = evaluate(scores, labels, num_bins=num_bins)
    expected = (counts[counts > 0] * np.abs(shares - means)).sum() / len(labels)
    assert found['ece'] == pytest.approx(expected, abs=1e-12)
    assert found['nll'] == pytest.approx(log_loss(labels, probs, labels=range(4)), abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), num_bins=st.integers(1, 40), scale=st.floats(0.1, 50))
def test_bounds_and_invariances(seed, num_bins, scale):
    scores, labels = random_batch(seed, samples=12, scale=scale)
    found = evaluate(scores, labels, num_bins=num_bins)
    assert 0 <= found['ece'] <= 1
    assert 0.25 <= found['confidence'] <= 1
    accuracy = (scores.argmax(1) == torch.tensor(labels)).double().mean()
    # One bin is the gap of the means, and more bins can only raise the sum of absolute gaps.
    assert found['ece'] >= abs(accuracy - found['confidence']) - 1e-9
    # Order of the samples and a constant for all logits of a sample change nothing.
    moved = evaluate(scores.flip(0).double() + 7, labels[::-1], num_bins=num_bins)
    assert moved == pytest.approx(found, abs=1e-4)


def test_a_guess_and_an_oracle():
    # Equal logits: confidence 1/C, right for class 0 alone, -log(1/C).
    guess = evaluate(torch.zeros(4, 4), [0, 1, 2, 3])
    assert guess == pytest.approx(dict(ece=0, confidence=0.25, nll=math.log(4)))
    oracle = evaluate(60 * torch.eye(3), [0, 1, 2])
    assert oracle == pytest.approx(dict(ece=0, confidence=1, nll=0), abs=1e-9)
    # Sure and always wrong.
    wrong = evaluate(60 * torch.eye(3), [1, 2, 0])
    assert wrong == pytest.approx(dict(ece=1, confidence=1, nll=60), abs=1e-9)


def test_ignored_samples_do_not_count_whatever_their_scores_are():
    scores, labels = random_batch(5, samples=6)
    expected = evaluate(scores[1:], labels[1:])
    for bad in (math.nan, math.inf, 9.0):
        scores[0] = bad
        assert evaluate(scores, [-1, *labels[1:]]) == pytest.approx(expected)
    assert evaluate(scores, [9, *labels[1:]], ignore_index=9) == pytest.approx(expected)


@pytest.mark.parametrize('bad', [math.nan, math.inf])
def test_nan_is_not_hidden(bad):
    scores, labels = random_batch(5, samples=6)
    scores[4, 2] = bad
    assert all(math.isnan(value) for value in evaluate(scores, labels).values())


def test_minus_infinity_is_a_probability_of_0():
    scores = torch.tensor([[0.0, -math.inf], [0.0, -math.inf]])
    assert evaluate(scores, [0, 0]) == dict(ece=0, confidence=1, nll=0)
    assert evaluate(scores, [0, 1])['nll'] == math.inf
    assert evaluate(scores, [0, 1])['ece'] == 0.5


def test_nothing_counts():
    values = evaluate(torch.zeros(2, 3), [-1, -1])
    assert len(values) == 3
    assert all(math.isnan(value) for value in values.values())


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_scores_at_the_end_of_their_range(dtype):
    top = torch.finfo(dtype).max
    found = evaluate(torch.tensor([[top, 0.0], [0.0, -top]], dtype=dtype), [0, 0])
    assert found == dict(ece=0, confidence=1, nll=0)


def test_as_the_heads_predict():
    head = SoftmaxHead(2, 3, with_scores=True)
    features, labels = torch.randn(5, 2), torch.tensor([0, 2, 1, -1, 2])
    metric = CalibrationError()
    metric.process(None, head.predict(features, dict(gt_label=labels)))
    with torch.no_grad():
        expected = torch.nn.functional.cross_entropy(head.logits(features), labels, ignore_index=-1)
    assert metric.evaluate(size=5)['calibration/nll'] == pytest.approx(expected.item(), rel=1e-5)


def test_built_by_a_config_of_any_host():
    metric = ROOT.build(dict(type='mmloss_plugins.CalibrationError', prefix='digits'))
    metric.process(None, [dict(scores=torch.zeros(2), gt_label=0)])
    assert metric.evaluate(size=1)['digits/ece'] == 0.5


@pytest.mark.parametrize('num_bins', [0, -1, 2.0, '15', True])
def test_bins(num_bins):
    with pytest.raises(ValueError, match=r'num_bins must be a positive integer, got .* paper has'):
        CalibrationError(num_bins=num_bins)


@pytest.mark.parametrize(
    ('sample', 'text'),
    [
        (dict(gt_label=1), r'scores must be logits of the shape \(C,\), got None. Build the head'),
        (dict(gt_label=1, scores=torch.zeros(2, 3)), r'got \(2, 3\) of torch.float32'),
        (dict(gt_label=1, scores=torch.zeros(3).long()), r'got \(3,\) of torch.int64'),
        (dict(scores=torch.zeros(3)), 'gt_label must hold one class, got None. Give each sample'),
        (dict(scores=torch.zeros(3), gt_label=3), 'a class from 0 to 2, .* got 3. Check num_cl'),
        (dict(scores=torch.zeros(3), gt_label=-2), 'a class from 0 to 2, .* got -2. Check num_c'),
    ],
)
def test_bad_samples(sample, text):
    with pytest.raises(ValueError, match=text):
        CalibrationError().process(None, [sample])
