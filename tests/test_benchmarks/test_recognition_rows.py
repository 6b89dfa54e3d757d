"""Rows of recognition in tiny sizes: all formulas compute the same, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from benchmarks import harness
from benchmarks.rows import class_counts, recognition
from benchmarks.rows.class_counts import LOGITS, SAMPLED, SPARSE
from benchmarks.rows.recognition import (
    CHUNKED,
    FLOOR,
    INSIGHTFACE,
    METRIC_LEARNING,
    OURS,
    SOURCE,
    Sizes,
)

CPU = torch.device('cpu')


@pytest.fixture
def rows(monkeypatch):
    monkeypatch.setattr(recognition, 'FACES', Sizes(4, 8, 50))
    monkeypatch.setattr(recognition, 'MILLION', Sizes(3, 8, 70))
    return {row.name: row for row in recognition.make_rows(CPU, seed=0)}


def test_names_and_bars(rows):
    bars = [(bar.ours, bar.peer, bar.at_least, bar.of) for bar in rows['arcface'].bars]
    assert bars == [
        (OURS, SOURCE, 2.5, 'total'),
        (OURS, FLOOR, 1 / 1.5, 'total'),
        (CHUNKED, SOURCE, 8, 'memory'),
        (CHUNKED, OURS, 1 / 1.3, 'total'),
        (OURS, INSIGHTFACE, 1, 'total'),
        (OURS, INSIGHTFACE, 1, 'memory'),
        (OURS, METRIC_LEARNING, 1, 'total'),
        (OURS, METRIC_LEARNING, 1, 'memory'),
    ]
    assert not rows['million'].bars
    assert rows['million'].title == (
        'ArcFace and cross-entropy, features (3, 8), 70 classes, float32; '
        'memory beside the gradient of the weights'
    )
    full = recognition.arcface_row(Sizes(256, 512, 100_000), CPU, 0)
    assert full.title.startswith(
        'ArcFace and cross-entropy, features (256, 512), 100,000 classes, float32; '
    )
    assert full.result_bytes == 4 * 512 * 100_000


def test_the_limit_of_the_million_counts_weights_features_and_gradient():
    row = recognition.million_row(Sizes(128, 128, 1_000_000), CPU, 0)
    (limit,) = row.limits
    assert (limit.ours, limit.name) == (CHUNKED, '4 GiB with weights and gradient')
    assert limit.at_most == 4_294_967_296
    # 512,000,000 bytes of weights and 65,536 of features; the gradient is part of the peak.
    assert limit.input_bytes == 512_065_536
    assert row.result_bytes == 512_000_000


@pytest.mark.parametrize('name', ['arcface', 'million'])
def test_all_formulas_give_one_value(rows, name):
    steps = {key: contender.build() for key, contender in rows[name].contenders.items()}
    harness._check_agreement(rows[name], steps)
    assert set(steps) - {FLOOR} == {
        key for key, contender in rows[name].contenders.items() if contender.factor == 1
    }


def test_gradients_are_those_of_the_source():
    """insightface's is that of the plain cosine."""
    scene = recognition.LazyScene(Sizes(4, 8, 50), CPU, 0)
    features, weights = scene.leaves
    found = {}
    for formula in (
        recognition.source,
        recognition.ours,
        recognition.chunked,
        recognition.our_logits,
        recognition.insightface,
    ):
        step = scene.step(formula)
        step.backward(step.forward())
        found[formula.__name__] = features.grad, weights.grad
        step.reset()
        assert features.grad is None
        assert weights.grad is None
    other = found.pop('insightface')
    for name, gradients in found.items():
        assert_close(gradients, found['source'], rtol=1e-4, atol=1e-5, msg=name)
    assert not torch.allclose(other[0], found['source'][0], rtol=1e-2)


def test_the_floor_has_the_three_products():
    scene = recognition.LazyScene(Sizes(4, 8, 50), CPU, 0)
    step = scene.products()
    shapes = [grad.shape for grad in step.backward(step.forward())]
    assert shapes == [(4, 8), (50, 8)]
    assert step.forward().shape == (4, 50)


def test_a_row_is_measured(rows):
    outcome = harness.measure(rows['arcface'], 1, 0.0, 0, lambda text: None)
    assert set(outcome['contenders']) == set(rows['arcface'].contenders)
    assert all(line['peak_bytes'] > 0 for line in outcome['contenders'].values())
    assert CHUNKED in {pair['ours'] for pair in outcome['ratios']}
    asked = {
        (pair['ours'], pair['other']): (pair['bar'], pair['memory_bar'])
        for pair in outcome['ratios']
        if (pair['bar'], pair['memory_bar']) != (None, None)
    }
    assert asked == {
        (OURS, SOURCE): (2.5, None),
        (OURS, FLOOR): (1 / 1.5, None),
        (CHUNKED, SOURCE): (None, 8),
        (CHUNKED, OURS): (1 / 1.3, None),
        (OURS, INSIGHTFACE): (1, 1),
        (OURS, METRIC_LEARNING): (1, 1),
    }


def test_bytes_of_the_weights_are_those_of_their_gradient():
    sizes = Sizes(4, 8, 50)
    _, weights = recognition.LazyScene(sizes, CPU, 0).leaves
    assert sizes.weight_bytes == weights.numel() * weights.element_size() == 1600


@pytest.fixture
def counts(monkeypatch):
    monkeypatch.setattr(class_counts, 'BATCH', 4)
    monkeypatch.setattr(class_counts, 'DIMS', (8, 16))
    monkeypatch.setattr(class_counts, 'CLASSES', (50, 3000))
    return {row.name: row for row in class_counts.make_rows(CPU, seed=0)}


def test_rows_of_class_counts(counts):
    assert list(counts) == ['8d_50', '8d_3000', '16d_50', '16d_3000']
    assert counts['16d_3000'].title == (
        'ArcFace and cross-entropy, features (4, 16), 3,000 classes, float32; '
        'memory with the gradient of the weights'
    )
    outcome = harness.measure(counts['16d_3000'], 1, 0.0, 0, lambda text: None)
    assert {pair['other'] for pair in outcome['ratios']} == {LOGITS}
    assert [pair['ours'] for pair in outcome['ratios']] == [
        class_counts.ONE_PIECE,
        CHUNKED,
        SAMPLED,
        SPARSE,
    ]
    peaks = {name: line['peak_bytes'] for name, line in outcome['contenders'].items()}
    # The gradient of the weights alone is 192,000 bytes; a tenth of the rows is not.
    assert peaks[SPARSE] < 192_000 < peaks[SAMPLED] < peaks[LOGITS]


def test_what_is_sampled_has_the_gradient_of_a_tenth_of_the_classes(counts):
    gradients = {}
    scene = recognition.LazyScene(Sizes(4, 8, 50), CPU, 0)
    for formula in (class_counts.sampled, class_counts.sampled_sparse):
        torch.manual_seed(0)
        step = scene.step(formula)
        step.backward(step.forward())
        gradients[formula.__name__] = scene.leaves[1].grad
        step.reset()
    assert gradients['sampled_sparse'].is_sparse
    assert_close(gradients['sampled_sparse'].to_dense(), gradients['sampled'])
    assert gradients['sampled'].ne(0).any(1).sum() == 5
