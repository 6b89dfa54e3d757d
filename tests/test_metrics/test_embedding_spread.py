"""EmbeddingSpread: by hand, loops in float64, scikit-learn, invariances, NaN, errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.registry import METRICS as ROOT
from sklearn.metrics import davies_bouldin_score

from mmloss_plugins.metrics import EmbeddingSpread


def evaluate(features, labels, **options):
    metric = EmbeddingSpread(**options)
    samples = [
        dict(pred_feature=torch.as_tensor(feature), gt_label=dict(label=torch.tensor([label])))
        for feature, label in zip(features, labels)
    ]
    # In two batches, so that a class is spread over batches.
    metric.process(None, samples[:2])
    metric.process(None, samples[2:])
    values = metric.evaluate(size=len(samples))
    return {name.split('/')[1]: value for name, value in values.items()}


def random_embeddings(seed, samples=17, dims=3, classes=4):
    draw = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), draw.integers(0, classes, samples - classes)])
    return draw.normal(size=(samples, dims)) + 2 * np.eye(classes, dims)[labels], labels


def loops(features, labels):
    """Both values sample by sample."""
    angles, within = [], []
    means = {label: features[labels == label].mean(0) for label in set(labels)}
    for x, label in zip(features, labels):
        own = [each / math.sqrt((each**2).sum()) for each in features[labels == label]]
        direction = sum(own) / len(own)
        cosine = x @ direction / math.sqrt((x @ x) * (direction @ direction))
        angles.append(math.degrees(math.acos(min(1.0, cosine))))
        within.append(math.dist(x, means[label]))
    nearest = [
        min(math.dist(mean, other) for key, other in means.items() if key != label)
        for label, mean in means.items()
    ]
    return dict(angle=np.median(angles), distance=np.mean(within) / np.mean(nearest))


def test_by_hand():
    # Class 0 at -10, 0 and 40 degrees: the sum of the directions is (2.7509, .4691), at 9.678
    # degrees, 19.678, 9.678 and 30.322 from them; class 1 at its own direction four times.
    # Median of 0 0 0 0 9.678 19.678 30.322: 0.
    turn = [(math.cos(math.radians(a)), math.sin(math.radians(a))) for a in (-10, 0, 40)]
    features = torch.tensor([*turn, *[(-5.0, 0.0)] * 4], dtype=torch.float64)
    assert evaluate(features, [0, 0, 0, 1, 1, 1, 1])['angle'] == pytest.approx(0, abs=1e-5)
    assert evaluate(features[:3], [0, 0, 0])['angle'] == pytest.approx(19.678, abs=1e-3)


def test_distances_by_hand():
    # Means (0, 0), (10, 0), (13, 4); distances within 3, 3, 1, 1, 0, 0 of mean 8/6. Nearest other
    # mean: 10, 5, 5 of mean 20/3.
    features = torch.tensor(
        [[-3.0, 0.0], [3.0, 0.0], [10.0, 1.0], [10.0, -1.0], [13.0, 4.0], [13.0, 4.0]]
    )
    found = evaluate(features, [4, 4, 0, 0, 7, 7])
    assert found['distance'] == pytest.approx((8 / 6) / (20 / 3))


@pytest.mark.parametrize('seed', range(4))
def test_as_loops(seed):
    features, labels = random_embeddings(seed)
    assert evaluate(features, labels.tolist()) == pytest.approx(loops(features, labels), abs=1e-6)


def test_distance_of_two_classes_is_half_of_davies_and_bouldin():
    # With two classes of the same size their index is (s_0 + s_1) / d, ours ((s_0 + s_1) / 2) / d.
    features, _ = random_embeddings(1, samples=12)
    labels = [0, 1] * 6
    found = evaluate(features, labels)['distance']
    assert found == pytest.approx(davies_bouldin_score(features, labels) / 2, rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), factor=st.floats(1e-3, 1e3))
def test_scale_rotation_and_names_of_the_classes_change_nothing(seed, factor):
    features, labels = random_embeddings(seed)
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    expected = evaluate(features, labels.tolist())
    moved = evaluate(factor * features @ rotation, (100 - 7 * labels).tolist())
    assert moved == pytest.approx(expected, rel=1e-6)


def test_distances_alone_do_not_depend_on_the_origin():
    features, labels = random_embeddings(2)
    near, far = (evaluate(features + shift, labels.tolist()) for shift in (0.0, 100.0))
    assert far['distance'] == pytest.approx(near['distance'], rel=1e-6)
    assert far['angle'] < near['angle'] / 10


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32])
def test_points_of_a_class_in_one_place_are_0(dtype):
    features = torch.tensor([[3.0, 1.0], [3.0, 1.0], [-1.0, 2.0]], dtype=dtype)
    assert evaluate(features, [0, 0, 1]) == dict(angle=pytest.approx(0, abs=1e-5), distance=0)


def test_ignored_samples_do_not_count_whatever_they_hold():
    features, labels = random_embeddings(3)
    expected = evaluate(features, labels.tolist())
    bad = np.concatenate([[[math.nan] * 3], features])
    assert evaluate(bad, [-1, *labels.tolist()]) == pytest.approx(expected)
    assert evaluate(bad, [9, *labels.tolist()], ignore_index=9) == pytest.approx(expected)


@pytest.mark.parametrize('bad', [math.nan, math.inf])
def test_nan_is_not_hidden(bad):
    features, labels = random_embeddings(3)
    features[5, 1] = bad
    assert all(math.isnan(value) for value in evaluate(features, labels.tolist()).values())


def test_too_little():
    one = evaluate(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), [2, 2])
    assert one['angle'] == pytest.approx(45)
    assert math.isnan(one['distance'])
    none = evaluate(torch.ones(2, 2), [-1, -1])
    assert len(none) == 2
    assert all(math.isnan(value) for value in none.values())


def test_built_by_a_config_of_any_host():
    metric = ROOT.build(dict(type='mmloss_plugins.EmbeddingSpread', prefix='digits'))
    metric.process(None, [dict(pred_feature=torch.tensor([0.0, 2.0]), gt_label=1)])
    assert metric.evaluate(size=1)['digits/angle'] == 0


@pytest.mark.parametrize(
    ('sample', 'text'),
    [
        (dict(gt_label=1), r'pred_feature must have the shape \(D,\), got None. Evaluate Embed'),
        (dict(gt_label=1, pred_feature=torch.ones(2, 3)), r'got \(2, 3\)'),
        (dict(pred_feature=torch.ones(2)), 'gt_label must hold one class, got None'),
    ],
)
def test_bad_samples(sample, text):
    with pytest.raises(ValueError, match=text):
        EmbeddingSpread().process(None, [sample])
