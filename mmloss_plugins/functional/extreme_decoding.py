"""From the five heatmaps of ExtremeNet to boxes: edge aggregation, grouping, ghost boxes.

Zhou, Zhuo, Kraehenbuehl, Bottom-up Object Detection by Grouping Extreme and Center Points, CVPR
2019, arXiv 1901.08043 (ExtremeNet), section 4. The four extreme points are always ordered top,
left, bottom, right.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmloss_plugins.errors import check_choice, message
from mmloss_plugins.functional._extreme_checks import (
    FourMaps,
    check_decode_maps,
    check_decode_options,
)
from mmloss_plugins.functional._extreme_groups import group_points, pack_detections
from mmloss_plugins.functional._extreme_peaks import aggregate_lines, extreme_peaks, take_offsets
from mmloss_plugins.functional.closed_form import compute_dtype

AXES = ('x', 'y')
GHOST_ORDERS = ('joint', 'sequential')


@torch.no_grad()
def edge_aggregate(probs: Tensor, axis: str, weight: float = 0.1) -> Tensor:
    r"""Add to each cell what lies on its slopes, so that a flat edge gets one clear extreme point.

    .. math::
        \tilde h_i = h_i + \lambda \sum_{j \in N^-(i)} h_j + \lambda \sum_{j \in N^+(i)} h_j

    where the cells N before and behind i are those over which h falls monotonically, or stays
    equal, on the way from i; i itself is in neither. An object with a straight top has many weak
    responses along it; their mass is collected at the highest one.

    Args:
        probs: h, shape (..., H, W), in [0, 1]; half precision is computed in float32.
        axis: 'x' along the rows, for the maps of top and bottom points; 'y' along the columns,
            for left and right.
        weight: lambda, in [0, 1]; 0.1 in the paper.

    Returns:
        Same shape, float32 (float64 for float64 ``probs``), at least ``probs``; may exceed 1. No
        gradient.

    Raises:
        ValueError: ``axis`` is unknown, or ``weight`` outside [0, 1].

    Differs from:
        The authors' ``_h_aggregate`` and ``_v_aggregate``, which walk over the cells in a Python
        loop; this takes log2(W) steps, and the values are theirs.

    Reference:
        https://arxiv.org/abs/1901.08043, section 4.3.

    Example:
        >>> import torch
        >>> edge_aggregate(torch.tensor([[0.1, 0.2, 0.3, 0.3, 0.2]]), 'x')
        tensor([[0.1000, 0.2100, 0.3800, 0.3800, 0.2000]])
    """
    check_choice('edge_aggregate', 'axis', axis, AXES)
    if not 0 <= weight <= 1:
        step = 'The paper takes 0.1; 0 leaves the map as it is'
        raise ValueError(message('edge_aggregate', 'weight', 'be within [0, 1]', weight, step))
    probs = probs.to(compute_dtype(probs))
    if axis == 'x':
        return aggregate_lines(probs, weight)
    return aggregate_lines(probs.transpose(-1, -2), weight).transpose(-1, -2)


@torch.no_grad()
def extreme_decode(
    extreme_probs: FourMaps,
    center_probs: Tensor,
    offsets: FourMaps | None = None,
    *,
    top_k: int = 40,
    num_dets: int = 1000,
    score_thr: float = 0.1,
    center_thr: float = 0.1,
    aggr_weight: float = 0.1,
) -> Tensor:
    r"""Group the peaks of four extreme-point maps into boxes with an object at their centre.

    A group of a top, left, bottom and right point is a detection if all have one class, each lies
    on its side of the other three, all four scores reach ``score_thr`` and the centre map reaches
    ``center_thr`` at the cell in the middle. Its score is

    .. math::
        s = (t + l + b + r + 2 c) / 6

    All products of four of the 40 peaks of each map are 2.56 million groups. Here pairs of top
    and bottom points of one class are extended by a left point and then by a right one, and only
    what passes all tests on the way is kept.

    Args:
        extreme_probs: the four maps, each (B, C, H, W) in [0, 1], or their stack
            (4, B, C, H, W); class-agnostic maps (B, 1, H, W) take the class of the centre.
        center_probs: shape (B, C, H, W), in [0, 1].
        offsets: from cell to point, the four maps (B, 2, H, W), (x, y) in cells, or their stack.
            None: points in the middle of their cells.
        top_k: K, number of peaks (3 x 3 maxima) that are taken from each map.
        num_dets: D, number of rows.
        score_thr: least score of an extreme point, in [0, 1].
        center_thr: least value of the centre map, in [0, 1].
        aggr_weight: weight of :func:`edge_aggregate`, in [0, 1]; 0 leaves it out. The score of a
            peak is at most 1 after it.

    Returns:
        Shape (B, D, 14), float32 (float64 for float64 maps), in cells, best first: x1, y1, x2, y2,
        score, x and y of the top, left, bottom and right point, class. Rows without a detection
        have the score and the class -1 and zeros; detections have scores >= 0. No gradient.

    Raises:
        ValueError: shapes do not fit, or an option is outside its range. With
            :func:`value_checks` also maps outside [0, 1].

    Differs from:
        The authors' decode, which fills up with groups that failed a test; it subtracts 1 for
        each test, and they drop these rows later by ``score > 0``. Among more than K peaks that
        the aggregation lifts to 1 or more, the first ones in the map count, as theirs on a
        CPU with their 80 classes; with few classes, or on a GPU, theirs are any.

    Reference:
        https://arxiv.org/abs/1901.08043, section 4.2 and algorithm 1.

    Example:
        >>> import torch
        >>> maps = torch.zeros(5, 1, 1, 8, 8)
        >>> top, left, bottom, right, center = maps
        >>> top[0, 0, 1, 4] = left[0, 0, 4, 2] = bottom[0, 0, 6, 3] = right[0, 0, 3, 7] = 0.6
        >>> center[0, 0, 3, 4] = 0.9
        >>> extreme_decode(maps[:4], center)[0, 0, :5]  # (4 * 0.6 + 2 * 0.9) / 6 = 0.7
        tensor([2.5000, 1.5000, 7.5000, 6.5000, 0.7000])
    """
    check_decode_options(
        top_k=top_k,
        num_dets=num_dets,
        score_thr=score_thr,
        center_thr=center_thr,
        aggr_weight=aggr_weight,
    )
    check_decode_maps(extreme_probs, center_probs, offsets)
    points = [
        extreme_peaks(probs, side, top_k, score_thr, aggr_weight)
        for side, probs in enumerate(extreme_probs)
    ]
    agnostic = extreme_probs[0].shape != center_probs.shape
    groups = group_points(points, center_probs, center_thr, num_dets, agnostic)
    coords = [
        take_offsets(found, None if offsets is None else offsets[side])
        for side, found in enumerate(points)
    ]
    return pack_detections(groups, coords, len(center_probs), num_dets)


def suppress_ghosts(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    *,
    ratio: float = 3.0,
    include_self: bool = False,
    factor: float = 0.5,
    score_thr: float = 0.2,
    order: str = 'joint',
) -> Tensor:
    r"""Weaken a box that spans several objects of its class: a ghost.

    Three equal objects in a row can be grouped across: the left point of the first, the right
    point of the third, and the centre of the second.

    .. math::
        s_i' = f s_i \quad \text{if} \quad s_i > \tau \;\text{and}\;
            \sum_{j \ne i,\, j \subseteq i} s_j > \rho s_i, \qquad \text{else } s_i

    with the sum over the boxes of the same class inside box i, borders included. All sums are of
    the scores as given, so that the order of the boxes has no effect.

    Args:
        boxes: shape (..., N, 4), x1, y1, x2, y2.
        scores: s, shape (..., N); negative ones count as 0 in the sums.
        labels: classes, shape (..., N).
        ratio: rho, > 0. 3 in the paper.
        include_self: add the box's own score to its sum. The authors have two versions: their
            script for result files (``tools/suppress_ghost.py``) takes 4 times with itself, which
            is 3 times without; their test code (``test/coco_extreme.py``) 3 times with itself,
            that is 2 times without.
        factor: f, what a ghost's score is multiplied with, in [0, 1].
        score_thr: tau; boxes with lower scores stay.
        order: 'joint', the equation. 'sequential': one box after another as in the authors' code,
            so that a box that was weakened counts with its new score for the later ones; with
            ``include_self=True`` and boxes sorted as theirs it is the result of their test code.

    Returns:
        New scores, shape (..., N).

    Raises:
        ValueError: shapes do not fit, an unknown ``order``, or an option outside its range.

    Differs from:
        The authors' loops over all pairs of boxes in Python.

    Reference:
        https://arxiv.org/abs/1901.08043, section 4.2, ghost box suppression.

    Example:
        >>> import torch
        >>> boxes = [[0, 0, 9, 3], [0, 0, 3, 3], [3, 0, 6, 3], [6, 0, 9, 3], [0, 0, 9, 9]]
        >>> scores = torch.tensor([0.25, 0.6, 0.6, 0.6, 0.6])
        >>> suppress_ghosts(torch.tensor(boxes), scores, torch.tensor([1, 1, 1, 1, 2]))
        tensor([0.1250, 0.6000, 0.6000, 0.6000, 0.6000])
    """
    _check_ghosts(boxes, scores, labels, ratio, factor, order)
    inside = _inside(boxes, labels)
    if not include_self:
        inside &= ~torch.eye(inside.shape[-1], dtype=torch.bool, device=inside.device)
    inside = inside.double()
    given = scores.double()
    mass = given.clamp(min=0)
    able = scores > score_thr
    ghost = able & (_sums(inside, mass) > ratio * given)
    if order == 'sequential':
        ghost = _settle(inside, mass, able, ratio * given, factor)
    return torch.where(ghost, scores * factor, scores)


def _inside(boxes: Tensor, labels: Tensor) -> Tensor:
    """Return whether box j is inside box i and of its class, shape (..., N, N), i first."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    inside = labels.unsqueeze(-1) == labels.unsqueeze(-2)
    for low in (x1, y1):
        inside &= low.unsqueeze(-2) >= low.unsqueeze(-1)
    for high in (x2, y2):
        inside &= high.unsqueeze(-2) <= high.unsqueeze(-1)
    return inside


def _sums(inside: Tensor, mass: Tensor) -> Tensor:
    return (inside @ mass.unsqueeze(-1)).squeeze(-1)


def _settle(inside: Tensor, mass: Tensor, able: Tensor, limit: Tensor, factor: float) -> Tensor:
    """Return the ghosts if box i is judged after boxes 0 to i - 1 have been weakened.

    After n rounds the first n boxes are final; as boxes are seldom nested, two or three rounds
    settle all.
    """
    # Of itself a box counts with the score that it is judged by.
    later = _sums(inside.triu(), mass)
    earlier = inside.tril(-1)
    ghost = torch.zeros_like(able)
    while True:
        weakened = torch.where(ghost, mass * factor, mass)
        found = able & (later + _sums(earlier, weakened) > limit)
        if torch.equal(found, ghost):
            return ghost
        ghost = found


def _check_ghosts(
    boxes: Tensor, scores: Tensor, labels: Tensor, ratio: float, factor: float, order: str
) -> None:
    what = 'suppress_ghosts'
    check_choice(what, 'order', order, GHOST_ORDERS)
    if boxes.shape != (*scores.shape, 4):
        rule = f'have the shape {(*scores.shape, 4)}, that of scores and 4'
        step = 'Pass one score per box'
        raise ValueError(message(what, 'boxes', rule, tuple(boxes.shape), step))
    if labels.shape != scores.shape:
        rule = f'have the shape {tuple(scores.shape)} of scores'
        raise ValueError(message(what, 'labels', rule, tuple(labels.shape), 'Pass one per box'))
    if not ratio > 0:
        raise ValueError(message(what, 'ratio', 'be > 0', ratio, 'The paper takes 3'))
    if not 0 <= factor <= 1:
        raise ValueError(message(what, 'factor', 'be within [0, 1]', factor, 'The paper takes 0.5'))
