"""SearchMetric: values by hand, loops by the definition, scikit-learn and MMDetection, errors."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.registry import METRICS as ROOT

from mmloss_plugins.metrics import SearchMetric
from mmloss_plugins.metrics import search as module

KEYS = ('label', 'camera', 'query')


def samples_of(features, rows):
    return [
        dict(
            pred_feature=torch.as_tensor(feature),
            gt_label=dict(label=torch.tensor([label])),
            camera_id=camera,
            is_query=query,
        )
        for feature, (label, camera, query) in zip(features, rows)
    ]


def evaluate(features, rows, **options):
    metric = SearchMetric(**options)
    samples = samples_of(features, rows)
    # In two batches, so that samples of different batches are compared.
    metric.process(None, samples[:3])
    metric.process(None, samples[3:])
    values = metric.evaluate(size=len(samples))
    return {name.split('/')[1]: value for name, value in values.items()}


def at_angles(degrees):
    radians = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack((radians.cos(), radians.sin()), 1)


class TestByHand:
    def test_average_precision_and_ranks(self):
        # One query at 0 degrees; hits at 20 and 40, another identity at 10, 30 and 50.
        x = at_angles([0.0, 10.0, 20.0, 30.0, 40.0, 50.0])
        rows = [(5, 1, True)] + [(5 if i % 2 else 0, 2, False) for i in range(5)]
        values = evaluate(x, rows, ranks=(1, 2, 3))
        # Precision 1/2 at the second and 2/4 at the fourth place.
        assert values == pytest.approx({'mAP': 0.5, 'rank-1': 0, 'rank-2': 1, 'rank-3': 1})

    def test_the_own_camera_and_junk_are_not_seen(self):
        x = at_angles([0.0, 1.0, 2.0, 30.0, 40.0])
        rows = [(5, 1, True), (5, 1, False), (-1, 2, False), (5, 2, False), (7, 1, False)]
        # Without both, the picture at 30 degrees is the first; that at 40 is another identity.
        assert evaluate(x, rows, ranks=(1,)) == {'mAP': 1, 'rank-1': 1}
        # Junk counts as another identity where the label of junk is another one.
        values = evaluate(x, rows, ranks=(1,), ignore_index=-9)
        assert values == {'mAP': 0.5, 'rank-1': 0}

    def test_another_identity_by_the_own_camera_is_seen(self):
        x = at_angles([0.0, 5.0, 30.0])
        rows = [(5, 1, True), (7, 1, False), (5, 2, False)]
        assert evaluate(x, rows, ranks=(1, 2)) == {'mAP': 0.5, 'rank-1': 0, 'rank-2': 1}

    def test_queries_are_not_in_the_gallery(self):
        x = at_angles([0.0, 1.0, 30.0, 60.0])
        rows = [(5, 1, True), (5, 2, True), (6, 1, False), (5, 3, False)]
        # Both find the hit behind the other identity, although they are next to each other.
        assert evaluate(x, rows, ranks=(1,)) == {'mAP': 0.5, 'rank-1': 0}

    def test_a_query_without_a_hit_does_not_count(self):
        x = at_angles([0.0, 10.0, 20.0, 30.0])
        rows = [(5, 1, True), (6, 1, True), (5, 2, False), (6, 1, False)]
        assert evaluate(x, rows, ranks=(1,)) == {'mAP': 1, 'rank-1': 1}

    def test_length_counts_for_distances_only(self):
        x = torch.tensor([[1.0, 0.0], [9.0, 0.1], [1.0, 0.5]])
        rows = [(5, 1, True), (5, 2, False), (6, 2, False)]
        assert evaluate(x, rows, ranks=(1,))['rank-1'] == 1
        assert evaluate(x, rows, ranks=(1,), similarity='euclidean')['rank-1'] == 0


class TestLimits:
    def test_collapsed_embeddings_score_as_badly_as_can_be(self):
        x = torch.ones(11, 3) / 7
        rows = [(5, 1, True)] + [(i % 2 * 5, 2, False) for i in range(10)]
        for similarity in ('cosine', 'euclidean'):
            values = evaluate(x, rows, ranks=(5, 6), similarity=similarity)
            # Five others first, then the five hits: precision 1/6, 2/7, ... 5/10.
            expected = sum(i / (5 + i) for i in range(1, 6)) / 5
            assert values == pytest.approx({'mAP': expected, 'rank-5': 0, 'rank-6': 1})

    @pytest.mark.parametrize('bad', [math.nan, math.inf])
    def test_broken_embeddings_are_nan(self, bad):
        x = at_angles([0.0, 10.0, 50.0])
        x[2, 1] = bad
        values = evaluate(x, [(5, 1, True), (5, 2, False), (6, 2, False)])
        assert set(values) == {'mAP', 'rank-1', 'rank-5', 'rank-10'}
        assert all(math.isnan(value) for value in values.values())

    def test_no_query_counts(self):
        values = evaluate(at_angles([0.0, 10.0]), [(5, 1, True), (5, 1, False)])
        assert all(math.isnan(value) for value in values.values())


def loops(features, rows, ranks):
    """Return the values of their definitions, one query and one picture at a time."""
    unit = [np.array(f) / math.sqrt(sum(v * v for v in f)) for f in features]
    precisions, firsts = [], []
    for i, (label, camera, query) in enumerate(rows):
        if not query:
            continue
        hits, others = [], []
        for j, (its_label, its_camera, its_query) in enumerate(rows):
            if its_query or its_label == -1 or (its_label == label and its_camera == camera):
                continue
            score = round(float(np.dot(unit[i], unit[j])), 9)
            (hits if its_label == label else others).append(score)
        if not hits:
            continue
        hits.sort(reverse=True)
        # The place of a hit: the hits up to it, and all others that are at least as similar.
        places = [n + 1 + sum(other >= hit for other in others) for n, hit in enumerate(hits)]
        precisions.append(np.mean([(n + 1) / place for n, place in enumerate(places)]))
        firsts.append(places[0])
    if not precisions:
        return dict.fromkeys(['mAP', *(f'rank-{k}' for k in ranks)], math.nan)
    shares = {f'rank-{k}': np.mean([first <= k for first in firsts]) for k in ranks}
    return {'mAP': np.mean(precisions), **shares}


POINT = st.tuples(st.integers(-3, 3), st.integers(-3, 3)).filter(any)
ROW = st.tuples(st.sampled_from([-1, 0, 5, 6, 7]), st.integers(1, 3), st.booleans())
SET = st.lists(st.tuples(POINT, ROW), min_size=4, max_size=16).filter(
    lambda each: len({row[2] for _, row in each}) == 2
)


@settings(max_examples=150, deadline=None)
@given(SET)
def test_loops_by_the_definition(given_set):
    features = [tuple(map(float, point)) for point, _ in given_set]
    rows = [row for _, row in given_set]
    # Nobody searches for junk.
    rows = [(5 if query and label == -1 else label, camera, query) for label, camera, query in rows]
    found = evaluate(torch.tensor(features, dtype=torch.float64), rows, ranks=(1, 2, 5))
    assert found == pytest.approx(loops(features, rows, (1, 2, 5)), nan_ok=True)


def noisy(count=240, identities=15):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(identities, (count,), generator=generator)
    cameras = torch.randint(1, 7, (count,), generator=generator).tolist()
    centres = torch.randn(identities, 6, generator=generator)
    x = centres[labels] + 0.9 * torch.randn(count, 6, generator=generator)
    rows = [
        (int(label), camera, i % 5 == 0) for i, (label, camera) in enumerate(zip(labels, cameras))
    ]
    return x, rows


class TestAgainstOthers:
    def test_average_precision_of_scikit_learn(self):
        sklearn = pytest.importorskip('sklearn.metrics')
        x, rows = noisy()
        labels, cameras, query = (np.array(column) for column in zip(*rows))
        unit = torch.nn.functional.normalize(x.double(), dim=1).numpy()
        expected = []
        for i in np.flatnonzero(query):
            seen = ~query & ~((labels == labels[i]) & (cameras == cameras[i]))
            expected.append(
                sklearn.average_precision_score(labels[seen] == labels[i], unit[seen] @ unit[i])
            )
        found = evaluate(x, rows)
        assert 0.2 < found['mAP'] < 0.95
        assert found['mAP'] == pytest.approx(np.mean(expected), abs=1e-6)

    def test_one_query_at_a_time_is_what_mmdetection_has(self):
        """Its metric has no cameras and searches among all; so give each picture its own camera."""
        metrics = pytest.importorskip('mmdet.evaluation.metrics')
        x, rows = noisy(count=60, identities=6)
        labels = [row[0] for row in rows]
        theirs = metrics.ReIDMetrics(['mAP', 'CMC'], dict(rank_list=[1, 5], max_rank=5))
        theirs.process({}, samples_of(x, rows))
        expected = theirs.evaluate(size=60)
        found = [
            evaluate(x, [(label, j, i == j) for j, label in enumerate(labels)],
                     ranks=(1, 5), similarity='euclidean')
            for i in range(60)
        ]  # fmt: skip
        for ours, name in (('mAP', 'mAP'), ('rank-1', 'R1'), ('rank-5', 'R5')):
            mean = np.mean([values[ours] for values in found])
            assert 0.1 < mean < 0.99
            # Theirs is rounded to three digits.
            assert mean == pytest.approx(expected[f'reid-metric/{name}'], abs=6e-4)

    def test_blocks_and_the_order_of_the_set_change_nothing(self, monkeypatch):
        x, rows = noisy()
        expected = evaluate(x, rows)
        monkeypatch.setattr(module, 'BLOCK', 7)
        assert evaluate(x, rows) == pytest.approx(expected, abs=1e-12)
        assert evaluate(x.flip(0), rows[::-1]) == pytest.approx(expected, abs=1e-12)


class TestErrors:
    @pytest.mark.parametrize(
        ('options', 'error', 'text'),
        [
            (dict(ranks=(0,)), ValueError, 'ranks must hold positive integers, got (0,)'),
            (dict(ranks=1), TypeError, 'ranks must be a sequence, got 1'),
            (dict(ignore_index='no'), TypeError, "ignore_index must be an integer, got 'no'"),
            (dict(similarity='cos'), ValueError, "similarity must be one of 'cosine', 'euclidean'"),
        ],
    )
    def test_mistakes_die_in_the_constructor(self, options, error, text):
        with pytest.raises(error, match=re.escape(f'SearchMetric: {text}')):
            SearchMetric(**options)

    @pytest.mark.parametrize(
        ('missing', 'text'),
        [
            ('pred_feature', 'pred_feature must have the shape (D,), got None. Evaluate'),
            ('gt_label', 'gt_label must hold one class, got None'),
            ('camera_id', 'camera_id must be a number or a flag of the sample, got None. Keep it'),
            ('is_query', 'is_query must be a number or a flag of the sample, got None. Keep it wi'),
        ],
    )
    def test_samples_without_what_is_needed(self, missing, text):
        (sample,) = samples_of(torch.ones(1, 3), [(5, 1, True)])
        sample.pop(missing)
        with pytest.raises(ValueError, match=re.escape(f'SearchMetric: {text}')):
            SearchMetric().process(None, [sample])

    @pytest.mark.parametrize(('query', 'got'), [(True, '2 of 2'), (False, '0 of 2')])
    def test_only_one_half(self, query, got):
        text = f'data must hold queries and a gallery, got {got} samples with is_query. Take Mark'
        with pytest.raises(ValueError, match=text):
            evaluate(torch.ones(2, 3), [(5, 1, query), (5, 2, query)])


def test_half_features_and_flags_of_numpy_from_any_host():
    metric = ROOT.build(dict(type='mmloss_plugins.SearchMetric', prefix='market', ranks=(1,)))
    for x, query in ((0.0, np.True_), (0.1, np.False_)):
        sample = dict(pred_feature=torch.tensor([1.0, x]).half(), gt_label=5, is_query=query)
        metric.process(None, [dict(sample, camera_id=np.int64(1 + (not query)))])
    assert metric.evaluate(size=2) == {'market/mAP': 1.0, 'market/rank-1': 1.0}
