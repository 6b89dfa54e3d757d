"""Ghost suppression: values by hand, and the loop of the authors."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from benchmarks.rows.extremenet import loop_ghosts
from mmloss_plugins import functional as F
from tests.test_functional.extreme_oracles import generator

ROW = torch.tensor([[0.0, 0, 9, 3], [0, 0, 3, 3], [3, 0, 6, 3], [6, 0, 9, 3]])
SAME = torch.zeros(4, dtype=torch.long)


@pytest.mark.parametrize(
    ('options', 'own', 'is_ghost'),
    # The three inside have 1.8 together. Without itself: 3 s < 1.8, s < 0.6. With itself and 3:
    # 3 s < 1.8 + s, s < 0.9. With itself and 4: as without itself and 3.
    [
        ({}, 0.59, True),
        ({}, 0.61, False),
        (dict(include_self=True), 0.89, True),
        (dict(include_self=True), 0.91, False),
        (dict(include_self=True, ratio=4.0), 0.59, True),
        (dict(include_self=True, ratio=4.0), 0.61, False),
        ({}, 0.2, False),  # not above the threshold
        (dict(score_thr=0.1), 0.2, True),
    ],
)
def test_ghosts_by_hand(options, own, is_ghost):
    scores = torch.tensor([own, 0.6, 0.6, 0.6])
    expected = torch.tensor([own / 2 if is_ghost else own, 0.6, 0.6, 0.6])
    assert_close(F.suppress_ghosts(ROW, scores, SAME, **options), expected)


def test_other_classes_and_boxes_partly_outside_do_not_count():
    scores = torch.tensor([0.3, 0.6, 0.6, 0.6])
    labels = torch.tensor([0, 0, 1, 0])
    assert F.suppress_ghosts(ROW, scores, labels)[0] == 0.15  # 1.2 > 0.9
    labels[3] = 1
    assert F.suppress_ghosts(ROW, scores, labels)[0] == scores[0]
    boxes = ROW.clone()
    boxes[1:3, 1] -= 0.5
    assert F.suppress_ghosts(boxes, scores, SAME)[0] == scores[0]


def random_boxes(number, seed):
    gen = generator(seed)
    low = torch.rand(number, 2, generator=gen) * 5
    boxes = torch.cat((low, low + torch.rand(number, 2, generator=gen) ** 2 * 8), 1)
    scores = torch.rand(number, generator=gen).sort(descending=True).values
    return boxes, scores, torch.randint(2, (number,), generator=gen)


@pytest.mark.parametrize('seed', range(8))
def test_in_sequence_it_is_the_loop_of_the_authors(seed):
    case = random_boxes(120, seed)
    expected = loop_ghosts(*case)
    found = F.suppress_ghosts(*case, include_self=True, order='sequential')
    assert_close(found, expected)
    assert (found != case[1]).sum() > 5


def test_in_sequence_a_weakened_box_counts_with_its_new_score():
    # The first, 0.5, holds three others of 0.6: 1.8 > 1.5, so 0.25. The last holds it and them:
    # 0.25 + 1.8 = 2.05 < 3 * 0.7, but 0.5 + 1.8 = 2.3 > 2.1.
    boxes = torch.cat((ROW, torch.tensor([[-1.0, -1, 10, 10]])))
    scores = torch.tensor([0.5, 0.6, 0.6, 0.6, 0.7])
    labels = torch.zeros(5)
    joint = F.suppress_ghosts(boxes, scores, labels)
    assert_close(joint, torch.tensor([0.25, 0.6, 0.6, 0.6, 0.35]))
    sequential = F.suppress_ghosts(boxes, scores, labels, order='sequential')
    assert_close(sequential, torch.tensor([0.25, 0.6, 0.6, 0.6, 0.7]))


def test_jointly_the_order_of_the_boxes_has_no_effect():
    boxes, scores, labels = random_boxes(80, 3)
    order = torch.randperm(80)
    expected = F.suppress_ghosts(boxes, scores, labels)[order]
    assert_close(F.suppress_ghosts(boxes[order], scores[order], labels[order]), expected)
    assert (expected != scores[order]).any()


@pytest.mark.parametrize('order', ['joint', 'sequential'])
def test_a_batch_with_filled_up_rows(order):
    cases = [random_boxes(40, seed) for seed in (1, 2)]
    boxes, scores, labels = (torch.stack(parts) for parts in zip(*cases))
    boxes[1, 30:], scores[1, 30:] = 0, -1
    found = F.suppress_ghosts(boxes, scores, labels, order=order)
    assert_close(found[0], F.suppress_ghosts(*cases[0], order=order))
    alone = [part[:30] for part in cases[1]]
    assert_close(found[1, :30], F.suppress_ghosts(*alone, order=order))
    assert (found[1, 30:] == -1).all()


def test_no_boxes():
    assert F.suppress_ghosts(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0)).shape == (0,)


@pytest.mark.parametrize(
    ('change', 'text'),
    [
        (dict(boxes=ROW[:3]), r'boxes must have the shape \(4, 4\)'),
        (dict(labels=SAME[:3]), r'labels must have the shape \(4,\)'),
        (dict(ratio=0), 'ratio must be > 0, got 0'),
        (dict(factor=2), r'factor must be within \[0, 1\], got 2'),
        (dict(order='sorted'), "order must be one of 'joint', 'sequential'"),
    ],
)
def test_ghosts_refuse_bad_arguments(change, text):
    arguments = dict(boxes=ROW, scores=torch.full((4,), 0.5), labels=SAME) | change
    with pytest.raises(ValueError, match=text):
        F.suppress_ghosts(**arguments)
