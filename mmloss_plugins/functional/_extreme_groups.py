"""Groups of a top, left, bottom and right point that pass ExtremeNet's tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mmloss_plugins.functional._extreme_peaks import Points

# Right points that are tested at a time: bounds the memory where nearly all groups pass.
TESTS_AT_A_TIME = 2**18
COLUMNS = 14
SCORE, CLASS = 4, 13


class Groups(NamedTuple):
    """One entry per group (G,): image, class, score; and its four points (4, G) in their lists."""

    image: Tensor
    label: Tensor
    score: Tensor
    members: Tensor


def group_points(
    points: Sequence[Points], center_probs: Tensor, center_thr: float, num_dets: int, agnostic: bool
) -> Groups:
    """Return the best ``num_dets`` groups of each image, sorted by image and score.

    Args:
        points: of the top, left, bottom and right maps.
        center_probs: shape (B, C, H, W).
        center_thr: least value at the centre.
        num_dets: most groups per image.
        agnostic: take the class of the centre.
    """
    centers = center_probs.max(1, keepdim=True) if agnostic else (center_probs, None)
    triples = _triples(*points[:3])
    step = max(1, TESTS_AT_A_TIME // points[3].x.shape[1])
    kept = []
    # Once is the rule; at least once, for an empty result of the right type.
    for start in range(0, max(1, triples.shape[1]), step):
        image, members = _with_right(triples[:, start : start + step], points)
        found = _with_center(image, members, points, centers, center_thr)
        kept.append(found)
        if len(kept) > 1:
            kept = [_best(Groups(*(torch.cat(parts, -1) for parts in zip(*kept))), num_dets)]
    return _best(kept[0], num_dets)


def _triples(top: Points, left: Points, bottom: Points) -> Tensor:
    """Return image and places of top, left and bottom points that go together, shape (4, N)."""
    pair = _column(top.valid) & _row(bottom.valid)
    pair &= _column(top.label) == _row(bottom.label)
    pair &= _column(top.y) <= _row(bottom.y)
    image, t, b = pair.nonzero(as_tuple=True)
    leftmost = torch.minimum(top.x[image, t], bottom.x[image, b]).unsqueeze(1)
    fits = left.valid[image] & (left.label[image] == top.label[image, t].unsqueeze(1))
    fits &= (left.y[image] >= top.y[image, t].unsqueeze(1)) & (left.x[image] <= leftmost)
    fits &= left.y[image] <= bottom.y[image, b].unsqueeze(1)
    place, found = fits.nonzero(as_tuple=True)
    return torch.stack((image[place], t[place], found, b[place]))


def _with_right(triples: Tensor, points: Sequence[Points]) -> tuple[Tensor, Tensor]:
    """Return image (G,) and members (4, G) of the triples with each right point that fits."""
    image, t, left_place, b = triples
    top, _, bottom, right = points
    # The left point is not to the right of the other two.
    rightmost = torch.maximum(top.x[image, t], bottom.x[image, b]).unsqueeze(1)
    fits = right.valid[image] & (right.label[image] == top.label[image, t].unsqueeze(1))
    fits &= (right.y[image] >= top.y[image, t].unsqueeze(1)) & (right.x[image] >= rightmost)
    fits &= right.y[image] <= bottom.y[image, b].unsqueeze(1)
    place, found = fits.nonzero(as_tuple=True)
    return image[place], torch.stack((t[place], left_place[place], b[place], found))


def _with_center(
    image: Tensor,
    members: Tensor,
    points: Sequence[Points],
    centers: Sequence[Tensor | None],
    center_thr: float,
) -> Groups:
    """Return those of the groups that have an object in their middle."""
    probs, classes = centers
    assert probs is not None
    top, left, bottom, right = (
        Points(*(values[image, place] for values in found)) for found, place in zip(points, members)
    )
    x = torch.div(left.x + right.x, 2, rounding_mode='floor')
    y = torch.div(top.y + bottom.y, 2, rounding_mode='floor')
    center = probs[image, top.label, y, x].to(top.score.dtype)
    score = (top.score + left.score + bottom.score + right.score + 2 * center) / 6
    kept = (center >= center_thr).nonzero().squeeze(1)
    label = top.label if classes is None else classes[image, 0, y, x]
    return Groups(image[kept], label[kept], score[kept], members[:, kept])


def _best(groups: Groups, num_dets: int) -> Groups:
    """Sort the groups by image and score, and drop those behind the best of each image."""
    order = groups.score.argsort(descending=True, stable=True)
    order = order[groups.image[order].argsort(stable=True)]
    order = order[_rank(groups.image[order]) < num_dets]
    image, label, score, members = groups
    return Groups(image[order], label[order], score[order], members[:, order])


def _rank(image: Tensor) -> Tensor:
    """Return the place of each group among those of its image; ``image`` is sorted."""
    return torch.arange(len(image), device=image.device) - torch.searchsorted(image, image)


def pack_detections(
    groups: Groups, coords: Sequence[tuple[Tensor, Tensor]], batch: int, num_dets: int
) -> Tensor:
    """Write the groups as rows (B, D, 14).

    Args:
        groups: sorted by image and score.
        coords: x and y (B, K) of the points of each map.
        batch: B.
        num_dets: D.
    """
    image = groups.image
    t, left, b, right = (
        (x[image, place], y[image, place]) for (x, y), place in zip(coords, groups.members)
    )
    score = groups.score
    box = (left[0], t[1], right[0], b[1])
    columns = (*box, score, *t, *left, *b, *right, groups.label.to(score.dtype))
    result = score.new_zeros(batch, num_dets, COLUMNS)
    result[..., SCORE] = result[..., CLASS] = -1
    result[image, _rank(image)] = torch.stack(columns, -1)
    return result


def _column(values: Tensor) -> Tensor:
    return values.unsqueeze(2)


def _row(values: Tensor) -> Tensor:
    return values.unsqueeze(1)
