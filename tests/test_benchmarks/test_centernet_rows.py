"""Rows of CenterNet in tiny sizes: both sides compute the same."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from benchmarks import harness
from benchmarks.rows import centernet

SIZES = dict(BATCH=2, LOSS_BATCH=2, OBJECTS=2, CLASSES=3, CHANNELS=4, CELLS=16, INPUT=64, TOP_K=5)
FLOOR = 'floor: convolutions of the heatmap alone'


@pytest.fixture
def rows(monkeypatch):
    for name, value in SIZES.items():
        monkeypatch.setattr(centernet, name, value)
    return {row.name: row for row in centernet.make_rows(torch.device('cpu'), seed=0)}


def built(row):
    return {name: contender.build() for name, contender in row.contenders.items()}


def test_names_and_bars(rows):
    bars = {
        name: [(bar.ours, bar.peer, bar.at_least) for bar in row.bars] for name, row in rows.items()
    }
    assert bars == {
        'targets': [('ours', 'MMDet', 40)],
        'loss': [('ours', 'MMDet', 3)],
        'head': [('ours', 'MMDet', 3)],
        'decode': [('ours', 'MMDet', 1)],
    }
    assert list(rows['head'].contenders) == ['ours', centernet.EVERYWHERE, 'MMDet', FLOOR]
    assert rows['head'].title == (
        'CenterNet. Step of the head on features of 4 channels: convolutions, targets, loss and '
        'gradient, 2 images with 2 boxes, 3 classes, 16 x 16'
    )


@pytest.mark.parametrize('name', ['targets', 'loss', 'head', 'decode'])
def test_both_sides_give_one_value(rows, name):
    harness._check_agreement(rows[name], built(rows[name]))
    compared = [c for c in rows[name].contenders.values() if c.factor is not None]
    assert len(compared) == (3 if name == 'head' else 2)


def test_a_step_of_the_head_ends_with_all_gradients(rows, monkeypatch):
    leaves = []
    keep = centernet.with_backward
    monkeypatch.setattr(
        centernet, 'with_backward', lambda *args: leaves.append(args[1]) or keep(*args)
    )
    steps = built(rows['head'])
    for step in steps.values():
        step.backward(step.forward())
    # Features, and weight and bias of two convolutions in each of three branches or of one.
    assert [len(each) for each in leaves] == [13, 13, 13, 5]
    assert all(leaf.grad is not None for each in leaves for leaf in each)
    ours, everywhere, theirs, _ = leaves
    assert_close([leaf.grad for leaf in ours], [leaf.grad for leaf in everywhere])
    assert_close(ours[0].grad, theirs[0].grad, rtol=1e-3, atol=1e-5)
    for step in steps.values():
        step.reset()
    assert all(leaf.grad is None for each in leaves for leaf in each)


def test_the_floor_of_the_head_is_one_of_its_branches(rows):
    steps = built(rows['head'])
    assert harness.peak_bytes(torch.device('cpu'), steps[FLOOR]) > 0
    less, more = (
        harness.peak_bytes(torch.device('cpu'), steps[name])
        for name in ('ours', centernet.EVERYWHERE)
    )
    assert less < more
