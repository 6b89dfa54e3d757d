"""Rows of recognition in tiny sizes: all formulas compute the same, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from benchmarks import harness
from benchmarks.rows import recognition
from benchmarks.rows.recognition import CHUNKED, FLOOR, OURS, SOURCE, Sizes

CPU = torch.device('cpu')


@pytest.fixture
def rows(monkeypatch):
    monkeypatch.setattr(recognition, 'FACES', Sizes(4, 8, 50))
    monkeypatch.setattr(recognition, 'MILLION', Sizes(3, 8, 70))
    return {row.name: row for row in recognition.make_rows(CPU, seed=0)}


def test_names_and_bars(rows):
    bars = [(bar.ours, bar.peer, bar.at_least) for bar in rows['arcface'].bars]
    assert bars == [(OURS, SOURCE, 2.5), (OURS, FLOOR, 1 / 1.5)]
    assert not rows['million'].bars
    assert rows['million'].title == (
        'ArcFace and cross-entropy, features (3, 8), 70 classes, float32'
    )
    full = recognition.arcface_row(Sizes(256, 512, 100_000), CPU, 0)
    assert full.title == 'ArcFace and cross-entropy, features (256, 512), 100,000 classes, float32'


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
