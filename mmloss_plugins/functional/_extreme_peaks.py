"""Peaks of ExtremeNet's four extreme-point maps, found without a pass of pooling over the maps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from mmloss_plugins.functional.closed_form import compute_dtype

# Number of cells that are looked at first, per wanted peak; in noise every third is a peak.
CELLS_PER_PEAK = 8
# Cells whose edges are aggregated at a time: few for the caches, many for the calls.
PIECE = 2**17
# Above the rounding of a sum over a line.
ROUNDING = 1e-5


class Points(NamedTuple):
    """The best peaks of one map, each (B, K): x and y in cells, class, score, whether it counts.

    Behind the last peak of an image ``valid`` is False and the rest arbitrary.
    """

    x: Tensor
    y: Tensor
    label: Tensor
    score: Tensor
    valid: Tensor


def aggregate_lines(lines: Tensor, weight: float) -> Tensor:
    """Aggregate edges along the last axis; see :func:`edge_aggregate`."""
    if weight == 0:
        return lines.clone()
    slopes = _run_sums(lines, backwards=False)
    slopes += _run_sums(lines, backwards=True)
    return slopes.mul_(weight).add_(lines)


def _run_sums(lines: Tensor, backwards: bool) -> Tensor:
    """Return the sum over the cells that climb up to each one from the left, without itself.

    Doubling: the sums over the last 1, 2, 4, ... cells where all of them climb. In contrast to
    differences of a cumulative sum nothing cancels, so that equal cells stay equal.

    Args:
        lines: shape (..., W).
        backwards: take those from the right.
    """

    def ahead(values: Tensor, reach: int) -> Tensor:
        """Return the cells that have one ``reach`` cells before them."""
        return values[..., :-reach] if backwards else values[..., reach:]

    def before(values: Tensor, reach: int) -> Tensor:
        return values[..., reach:] if backwards else values[..., :-reach]

    def start(values: Tensor, reach: int) -> Tensor:
        return values[..., -reach:] if backwards else values[..., :reach]

    climbs, sums, new_climbs, new_sums = (torch.empty_like(lines) for _ in range(4))
    start(climbs, 1).zero_()
    start(sums, 1).zero_()
    # As numbers: on a CPU what selects by a boolean tensor costs five times as much.
    torch.ge(ahead(lines, 1), before(lines, 1), out=ahead(climbs, 1))
    torch.mul(before(lines, 1), ahead(climbs, 1), out=ahead(sums, 1))
    reach = 1
    # On a GPU the few steps left cost less than to ask whether a run is left.
    while reach < lines.shape[-1] and (lines.is_cuda or bool(climbs.amax() > 0)):
        start(new_sums, reach).copy_(start(sums, reach))
        # The sum of the cells before counts if all between them and this one climb.
        addends = before(sums, reach), ahead(climbs, reach)
        torch.addcmul(ahead(sums, reach), *addends, out=ahead(new_sums, reach))
        start(new_climbs, reach).zero_()
        torch.mul(before(climbs, reach), ahead(climbs, reach), out=ahead(new_climbs, reach))
        sums, new_sums, climbs, new_climbs = new_sums, sums, new_climbs, climbs
        reach *= 2
    return sums


def extreme_peaks(
    probs: Tensor, side: int, top_k: int, score_thr: float, aggr_weight: float
) -> Points:
    """Return the ``top_k`` largest 3 x 3 maxima of the aggregated map that reach ``score_thr``.

    Args:
        probs: map of the top, left, bottom or right points, shape (B, C, H, W).
        side: 0 to 3; edges of top and bottom run along x, those of left and right along y.
        top_k: K.
        score_thr: least value.
        aggr_weight: of the aggregation along the edge.
    """
    along_y = side % 2 == 1
    maps = _aggregated(probs.transpose(-1, -2) if along_y else probs, score_thr, aggr_weight)
    score, cell, valid = _top_peaks(maps, maps, top_k, score_thr)
    if _overflows(score, valid, top_k).any():
        score, cell, valid = _first_peaks(maps, along_y, top_k, score_thr)
    row, column = _split(cell, maps.shape[-1])
    label, row = _split(row, maps.shape[-2])
    x, y = (row, column) if along_y else (column, row)
    return Points(x, y, label, score.clamp(max=1), valid)


def take_offsets(points: Points, offsets: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return x and y (B, K) of points in cells, moved by the offsets (B, 2, H, W) of their cells.

    None moves them to the middle of their cells.
    """
    if offsets is None:
        dtype = points.score.dtype
        return points.x.to(dtype) + 0.5, points.y.to(dtype) + 0.5
    cell = (points.y * offsets.shape[-1] + points.x).unsqueeze(1).expand(-1, 2, -1)
    move_x, move_y = offsets.flatten(2).gather(2, cell).to(points.score.dtype).unbind(1)
    return points.x + move_x, points.y + move_y


def _split(number: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return quotient and remainder."""
    quotient = torch.div(number, size, rounding_mode='floor')
    return quotient, number - quotient * size


def _aggregated(probs: Tensor, score_thr: float, weight: float) -> Tensor:
    """Return maps aggregated along their last axis, zero in the lines that stay below the limit.

    A cell can gain the rest of its line at most. What it loses to, as a peak, are larger cells,
    so that a line below the limit needs no value.
    """
    lines = probs.flatten(0, 1)
    total = lines.sum(-1, dtype=compute_dtype(probs))
    bound = lines.amax(-1).to(total.dtype) * (1 - weight) + total * weight
    chosen = bound * (1 + ROUNDING) >= score_thr
    result = probs.new_zeros(lines.shape, dtype=total.dtype)
    if bool(chosen.all()):
        for part, target in zip(
            _pieces(lines, lines[:1].numel()), _pieces(result, lines[:1].numel())
        ):
            target.copy_(aggregate_lines(part.to(total.dtype), weight))
        return result.view(probs.shape)
    for place in _pieces(chosen.nonzero(), lines.shape[-1]):
        image, line = place.unbind(1)
        result[image, line] = aggregate_lines(lines[image, line].to(total.dtype), weight)
    return result.view(probs.shape)


def _pieces(rows: Tensor, cells: int) -> Iterator[Tensor]:
    """Yield rows, of ``cells`` each, a few at a time to fit a cache; all at once on a GPU."""
    step = max(1, len(rows) if rows.is_cuda else PIECE // max(1, cells))
    for start in range(0, len(rows), step):
        yield rows[start : start + step]


def _overflows(score: Tensor, valid: Tensor, top_k: int) -> Tensor:
    """Return for each image whether K peaks or more have a score of 1 (or above, before the cut).

    Which of them count is then a matter of order.
    """
    return ((score >= 1) & valid).sum(-1) >= top_k


def _first_peaks(
    maps: Tensor, along_y: bool, top_k: int, score_thr: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the result of :func:`_top_peaks` if of the peaks of 1 or more the first ones count.

    As in the authors' code on a CPU with many classes. Most often the first maps have enough.
    """
    classes = 1
    while True:
        part = maps[:, :classes]
        found = _top_peaks(part, _ranked(part, along_y), top_k, score_thr)
        if classes >= maps.shape[1] or bool(_overflows(found[0], found[2], top_k).all()):
            return found
        classes *= 2


def _ranked(maps: Tensor, along_y: bool) -> Tensor:
    """Return maps in which the cells of 1 or more rank by their place, the first one highest."""
    classes, *sizes = maps.shape[1:]
    # Larger than what aggregation makes of a cell; exact in float32 up to 16 million cells.
    least = maps.shape[-1] + 1
    places = torch.arange(least + maps[0].numel(), least, -1, dtype=maps.dtype, device=maps.device)
    if along_y:
        places = places.view(classes, *reversed(sizes)).transpose(1, 2)
    return torch.where(maps >= 1, places.reshape(classes, *sizes), maps)


def _top_peaks(
    maps: Tensor, ranked: Tensor, top_k: int, score_thr: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return score, cell in (C, H, W) and validity of the best peaks of maps (B, C, H, W).

    The best peaks are among the best cells: as many cells are looked at as give enough peaks, or
    all that reach the limit. These in turn lie in the lines with the largest maxima, which are
    far fewer to sort.
    """
    lines = ranked.flatten(1, 2)
    largest = lines.amax(-1)
    reaching = max([1, *(largest >= score_thr).sum(-1).tolist()])
    number = CELLS_PER_PEAK * top_k
    while True:
        best = largest.topk(min(number, reaching), sorted=False).indices
        rank, cell = _top_cells(lines, best, number)
        score = maps.flatten(1).gather(1, cell)
        is_peak = (score >= score_thr) & (score >= _largest_around(maps, cell))
        complete = (is_peak.sum(-1) >= top_k) | (rank[:, -1] < score_thr)
        if number >= reaching * maps.shape[-1] or bool(complete.all()):
            break
        number *= 4
    # Stable: the peaks are sorted already.
    order = is_peak.to(torch.uint8).sort(dim=-1, descending=True, stable=True).indices[:, :top_k]
    return score.gather(1, order), cell.gather(1, order), is_peak.gather(1, order)


def _top_cells(lines: Tensor, best: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Return the largest values in the lines ``best`` (B, L) and their cells, each (B, number)."""
    width = lines.shape[-1]
    values = lines.gather(1, best.unsqueeze(-1).expand(-1, -1, width)).flatten(1)
    score, place = values.topk(min(number, values.shape[1]))
    at, column = _split(place, width)
    return score, best.gather(1, at) * width + column


def _largest_around(maps: Tensor, cell: Tensor) -> Tensor:
    """Return the largest value in the 3 x 3 cells around each cell (B, N) of (C, H, W)."""
    height, width = maps.shape[-2:]
    row, column = _split(cell, width)
    label, row = _split(row, height)
    values = maps.flatten(1)
    largest = None
    for step_y in (-1, 0, 1):
        # Beyond the border the cell at the border counts again.
        start = (label * height + (row + step_y).clamp(0, height - 1)) * width
        for step_x in (-1, 0, 1):
            value = values.gather(1, start + (column + step_x).clamp(0, width - 1))
            largest = value if largest is None else torch.maximum(largest, value)
    assert largest is not None
    return largest
