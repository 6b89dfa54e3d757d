"""VerificationMetric: values by hand, loops over all pairs, MMDetection's CMC, limits, errors."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.registry import METRICS as ROOT

from mmloss_plugins.metrics import VerificationMetric, verification


def samples_of(features, labels):
    return [
        dict(pred_feature=torch.as_tensor(feature), gt_label=dict(label=torch.tensor([label])))
        for feature, label in zip(features, labels)
    ]


def evaluate(features, labels, **options):
    metric = VerificationMetric(**options)
    samples = samples_of(features, labels)
    # In two batches, so that samples of different batches are compared.
    metric.process(None, samples[:2])
    metric.process(None, samples[2:])
    values = metric.evaluate(size=len(samples))
    return {name.split('/')[1]: value for name, value in values.items()}


def at_angles(degrees):
    radians = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack((radians.cos(), radians.sin()), 1)


class TestByHand:
    # Pairs of one class: 10 and 30 degrees apart; of two: 50, 80, 40, 70.
    X = at_angles([0.0, 10.0, 50.0, 80.0])
    LABELS = (3, 3, 8, 8)

    def test_classes_that_a_threshold_separates(self):
        values = evaluate(self.X, self.LABELS, far=(0.1,))
        assert values['accuracy'] == values['recall@1'] == values['TAR@FAR=0.1'] == 1
        assert values['threshold'] == pytest.approx(math.cos(math.radians(30)))

    def test_classes_that_none_separates(self):
        # Labels swapped: pairs of one class at 50 and 70 degrees, of two at 10, 30, 40, 80.
        values = evaluate(self.X, (3, 8, 3, 8), far=(0.5, 0.76), recall_at=(1, 2, 3))
        # The best threshold is 70 degrees: all of one class, and 3 of 4 of two are accepted.
        assert values['accuracy'] == pytest.approx((1 + 1 / 4) / 2)
        assert values['threshold'] == pytest.approx(math.cos(math.radians(70)))
        # At two of four, 30 degrees, nothing is accepted; at three, 40 to 70 degrees, all.
        assert (values['TAR@FAR=0.5'], values['TAR@FAR=0.76']) == (0, 1)
        # 0: 10, own 50. 10: 10, 40, own 70. 50: 30, 40, own 50. 80: 30, own 70.
        assert [values[f'recall@{k}'] for k in (1, 2, 3)] == [0, 0.5, 1]

    def test_length_counts_for_distances_only(self):
        x = torch.tensor([[1.0, 0.0], [9.0, 0.0], [1.0, 0.5], [1.0, 0.6]])
        assert evaluate(x, self.LABELS)['recall@1'] == 1
        # Only (1, 0) is nearer to another class, 0.5, than to its own, 8.
        values = evaluate(x, self.LABELS, similarity='euclidean')
        assert values['recall@1'] == 0.75
        # One class: 8 and 0.1 apart; two: 0.5, 0.6, 8.02, 8.02; the best accepts 0.1, or 8 also.
        assert (values['accuracy'], values['threshold']) == pytest.approx((0.75, -0.1), abs=1e-6)

    def test_alone_in_its_class_is_never_searched_for(self):
        x = at_angles([0.0, 10.0, 50.0])
        values = evaluate(x, (1, 1, 2), recall_at=(1,))
        assert values['recall@1'] == 1
        assert evaluate(x, (1, 2, 1), recall_at=(1,))['recall@1'] == 0


class TestLimits:
    def test_collapsed_embeddings_are_chance(self):
        x = torch.ones(40, 3) / 7
        labels = [i % 4 for i in range(40)]
        for similarity in ('cosine', 'euclidean'):
            values = evaluate(x, labels, recall_at=(1, 30, 31), similarity=similarity)
            # 30 of other classes are as near.
            found = [values[f'recall@{k}'] for k in (1, 30, 31)]
            assert (values['accuracy'], values['TAR@FAR=0.001']) == (0.5, 0)
            assert found == [0, 0, 1]

    @pytest.mark.parametrize('bad', [math.nan, math.inf])
    def test_broken_embeddings_are_nan(self, bad):
        x = at_angles([0.0, 10.0, 50.0, 80.0])
        x[2, 1] = bad
        assert all(math.isnan(value) for value in evaluate(x, (3, 3, 8, 8)).values())

    def test_one_class(self):
        values = evaluate(at_angles([0.0, 10.0, 50.0]), (3, 3, 3))
        assert values['recall@1'] == 1
        assert math.isnan(values['accuracy'])

    def test_nothing_but_pairs_of_two(self):
        values = evaluate(at_angles([0.0, 10.0, 50.0]), (1, 2, 3))
        assert all(math.isnan(value) for value in values.values())
        assert set(values) == {'recall@1', 'accuracy', 'threshold', 'TAR@FAR=0.001'}


def loops(features, labels, recall_at, far):
    """Return the values of their definitions, one pair, sample and threshold at a time."""
    unit = [np.array(f) / math.sqrt(sum(v * v for v in f)) for f in features]
    count = len(unit)
    score = [[round(float(np.dot(a, b)), 9) for b in unit] for a in unit]
    same, other, ranks = [], [], []
    for i in range(count):
        for j in range(i):
            (same if labels[i] == labels[j] else other).append(score[i][j])
        own = [score[i][j] for j in range(count) if j != i and labels[j] == labels[i]]
        if own:
            wrong = [score[i][j] for j in range(count) if labels[j] != labels[i]]
            ranks.append(sum(value >= max(own) for value in wrong))
    values = {f'recall@{k}': np.mean([rank < k for rank in ranks]) for k in recall_at}
    best, tar = 0.0, dict.fromkeys(far, 0.0)
    for threshold in [*same, *other, 2.0]:
        accepted = np.mean([value >= threshold for value in same])
        wrongly = np.mean([value >= threshold for value in other])
        best = max(best, (accepted + 1 - wrongly) / 2)
        for rate in far:
            if wrongly <= rate:
                tar[rate] = max(tar[rate], accepted)
    return {**values, 'accuracy': best, **{f'TAR@FAR={rate:g}': tar[rate] for rate in far}}


POINT = st.tuples(st.integers(-3, 3), st.integers(-3, 3)).filter(any)
SET = st.lists(st.tuples(POINT, st.integers(0, 2)), min_size=4, max_size=14).filter(
    lambda each: 1 < len({label for _, label in each}) < len(each)
)


@settings(max_examples=60, deadline=None)
@given(SET)
def test_loops_over_all_pairs(given_set):
    features = [tuple(map(float, point)) for point, _ in given_set]
    labels = [label for _, label in given_set]
    options = dict(recall_at=(1, 2, 5), far=(0.1, 0.4))
    expected = loops(features, labels, **options)
    found = evaluate(torch.tensor(features, dtype=torch.float64), labels, **options)
    found.pop('threshold')
    assert found == pytest.approx(expected)


def noisy(count=300, classes=40):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(classes, (count,), generator=generator)
    centres = torch.randn(classes, 8, generator=generator)
    return centres[labels] + 0.8 * torch.randn(count, 8, generator=generator), labels.tolist()


class TestAgainstOthers:
    def test_recall_is_the_cmc_of_mmdetection(self):
        metrics = pytest.importorskip('mmdet.evaluation.metrics')
        x, labels = noisy()
        theirs = metrics.ReIDMetrics('CMC', dict(rank_list=[1, 5], max_rank=5))
        theirs.process({}, samples_of(x, labels))
        expected = theirs.evaluate(size=len(x))
        found = evaluate(x, labels, recall_at=(1, 5), similarity='euclidean')
        for k in (1, 5):
            assert 0.1 < found[f'recall@{k}'] < 0.99
            # Theirs is rounded to three digits.
            assert found[f'recall@{k}'] == pytest.approx(expected[f'reid-metric/R{k}'], abs=6e-4)

    def test_blocks_and_the_order_of_the_set_change_nothing(self, monkeypatch):
        x, labels = noisy()
        expected = evaluate(x, labels)
        monkeypatch.setattr(verification, 'BLOCK', 7)
        assert evaluate(x, labels) == pytest.approx(expected, abs=1e-12)
        back = evaluate(x.flip(0), labels[::-1])
        assert back == pytest.approx(expected, abs=1e-12)

    def test_fewer_pairs(self):
        x, labels = noisy()
        full, some = (
            evaluate(x, labels, far=(0.01,)),
            evaluate(x, labels, max_pairs=400, far=(0.01,)),
        )
        assert some['recall@1'] == full['recall@1']
        assert some != full
        for name in ('accuracy', 'threshold', 'TAR@FAR=0.01'):
            assert some[name] == pytest.approx(full[name], abs=0.1)
        assert evaluate(x, labels, max_pairs=400, far=(0.01,)) == some

    def test_as_many_pairs_as_asked_for(self, monkeypatch):
        x, labels = noisy(50, 4)
        monkeypatch.setattr(verification, 'BLOCK', 7)
        labels = torch.tensor(labels)
        pairs = verification.collect_pairs(x.double(), labels, 'cosine', 100)
        alike = int(((labels == labels.unsqueeze(1)).sum() - 50) / 2)
        for found, total in ((pairs.same, alike), (pairs.other, 1225 - alike)):
            # Every n-th, from the first.
            assert len(found) == math.ceil(total / math.ceil(total / 100))


class TestErrors:
    @pytest.mark.parametrize(
        ('options', 'error', 'text'),
        [
            (dict(recall_at=(0,)), ValueError, 'recall_at must hold positive integers, got (0,)'),
            (dict(recall_at=1), TypeError, 'recall_at must be a sequence, got 1'),
            (dict(far=(0.0,)), ValueError, 'far must hold numbers between 0 and 1, got (0.0,)'),
            (dict(far='0.1'), TypeError, "far must be a sequence, got '0.1'"),
            (dict(max_pairs=0), ValueError, 'max_pairs must hold a positive integer'),
            (dict(similarity='cos'), ValueError, "similarity must be one of 'cosine', 'euclidean'"),
        ],
    )
    def test_mistakes_die_in_the_constructor(self, options, error, text):
        with pytest.raises(error, match=re.escape(f'VerificationMetric: {text}')):
            VerificationMetric(**options)

    @pytest.mark.parametrize(
        ('sample', 'text'),
        [
            (dict(gt_label=1), 'pred_feature must have the shape (D,), got None'),
            (dict(gt_label=1, pred_feature=torch.ones(2, 3)), 'got (2, 3). Evaluate Embedding'),
            (dict(pred_feature=torch.ones(3)), 'gt_label must hold one class, got None'),
            (
                dict(pred_feature=torch.ones(3), gt_label=dict(label=torch.ones(2))),
                'gt_label must hold one class, got tensor([1., 1.])',
            ),
        ],
    )
    def test_samples_without_what_is_needed(self, sample, text):
        with pytest.raises(ValueError, match=re.escape(text)):
            VerificationMetric().process(None, [sample])

    def test_without_scikit_learn(self, monkeypatch):
        monkeypatch.setattr(verification, 'find_spec', lambda name: None)
        with pytest.raises(ImportError, match=r'scikit-learn must be installed, got none\. Run'):
            VerificationMetric()


def test_labels_may_be_numbers_and_the_type_resolves_anywhere():
    metric = ROOT.build(dict(type='mmloss_plugins.VerificationMetric', prefix='faces', far=()))
    for label, angle in enumerate((0.0, 1.0, 2.0)):
        for shift in (0.0, 0.1):
            feature = torch.tensor([math.cos(angle + shift), math.sin(angle + shift)])
            metric.process(None, [dict(pred_feature=feature.half(), gt_label=label)])
    values = metric.evaluate(size=6)
    assert sorted(values) == ['faces/accuracy', 'faces/recall@1', 'faces/threshold']
    assert values['faces/recall@1'] == 1
