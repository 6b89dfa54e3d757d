"""The one convention for where the cells of a map lie, in normalised coordinates.

A map of n cells covers [-1, 1] along each axis; cell i is centred on (2 i + 1) / n - 1::

    -1    -0.75   -0.5   -0.25    0    0.25    0.5    0.75     1
     |      0      |      1       |      2      |      3       |      4 cells of a map
     |  0   |  1   |  2   |   3   |  4   |  5   |  6   |   7   |      8 pixels of the image

Map and image share their outer edges, so that one coordinate stands for the same place in both,
and a mirrored map is the map of the mirrored image. Whole pixels are the centres of pixels.

Axes are ordered x, y, z: the last dimension of a map (..., D, H, W) is the first axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mmloss_plugins.errors import message
from mmloss_plugins.functional.debug import is_compiling, value_checks_enabled

# Cells of a row; see is_short.
SHORT = 12


def cell_centres(size: int, like: Tensor) -> Tensor:
    """Return the centres of ``size`` cells in (-1, 1), shape (size,), in type and place of like."""
    return torch.arange(1 - size, size, 2, dtype=like.dtype, device=like.device) / size


def to_cells(coords: Tensor, size: int) -> Tensor:
    """Return the position of ``coords`` on an axis in cells: 0 is the centre of the first one."""
    return coords * (size / 2) + (size - 1) / 2


def marginals(maps: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """Return the sums of maps (B, K, *S) over all axes but one, x first, each (size, B K)."""
    maps = maps.flatten(0, 1)
    found = []
    while maps.dim() > 2:
        found.append(maps.sum(tuple(range(1, maps.dim() - 1)), dtype=dtype))
        maps = maps.sum(-1, dtype=dtype)
    return [share.t() for share in [*found, maps.to(dtype)]]


def cell_grid(sizes: Sequence[int], like: Tensor) -> list[Tensor]:
    """Return the coordinates x, y, ... of all cells of a small map, each (cells,)."""
    found, inner, cells = [], 1, math.prod(sizes)
    for size in reversed(sizes):
        centres = cell_centres(size, like)
        if inner > 1:
            centres = centres.unsqueeze(-1).expand(size, inner).flatten()
        inner *= size
        found.append(centres if inner == cells else centres.repeat(cells // inner))
    return found


def outer(axes: Sequence[Tensor], combine: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Return the maps whose cells combine one value per axis.

    Args:
        axes: x, y, ..., each (size, rows), fastest as :func:`for_outer` lays them out.
        combine: ``torch.mul`` or ``torch.add``.

    Returns:
        Shape (rows, *S), x last.
    """
    if is_short(axes[0], axes[0].shape[0]):
        total = axes[0]
        for axis in axes[1:]:
            total = combine(axis.unsqueeze(1), total.unsqueeze(0)).flatten(0, 1)
        sizes = [axis.shape[0] for axis in reversed(axes)]
        return total.t().contiguous().view(-1, *sizes)
    total = axes[0].t()
    for axis in axes[1:]:
        behind = [1] * (total.dim() - 1)
        total = combine(axis.t().reshape(-1, axis.shape[0], *behind), total.unsqueeze(1))
    return total


def for_outer(axes: Sequence[Tensor]) -> Sequence[Tensor]:
    """Return the same values (size, rows), in the memory one row after the other if they are long.

    Their product is laid out likewise.
    """
    if is_short(axes[0], axes[0].shape[0]):
        return axes
    return [axis.t().contiguous().t() for axis in axes]


def is_short(x: Tensor, width: int) -> bool:
    """Whether rows of maps have so few cells that a loop over them is what costs time on a CPU.

    PyTorch's loops run along a dimension that no operand broadcasts and no sum ends in. A graph
    that is traced for any size has no such case.
    """
    return not (is_compiling() or is_tracing()) and x.device.type == 'cpu' and width < SHORT


def is_tracing() -> bool:
    """Whether ``torch.jit.trace``, ONNX export included, records the operators."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]


def by_keypoint(rows: Tensor, maps: Tensor) -> Tensor:
    """View (B K, ...) as (B, K, ...) of ``maps``."""
    return rows.view(maps.shape[0], maps.shape[1], *rows.shape[1:])


def deviations(share: Tensor) -> tuple[Tensor, Tensor]:
    """Return cells about the centre of an axis (size, 1) and about its mean (size, rows), px.

    Args:
        share: marginal along one axis, shape (size, rows).
    """
    size = share.shape[0]
    cells = (cell_centres(size, share) * (size / 2)).unsqueeze(-1)
    return cells, cells - (share * cells).sum(0)


def check_maps(what: str, heatmap: Tensor, argument: str = 'heatmap') -> None:
    """Refuse anything but floating-point maps (B, K, *S).

    Raises:
        TypeError: no floating-point tensor.
        ValueError: fewer than three dimensions, or a map without a cell.
    """
    if not isinstance(heatmap, Tensor) or not heatmap.is_floating_point():
        got = heatmap.dtype if isinstance(heatmap, Tensor) else type(heatmap).__name__
        step = 'Pass the maps of the head'
        raise TypeError(message(what, argument, 'be a floating-point tensor', got, step))
    if heatmap.dim() < 3 or (not is_tracing() and 0 in heatmap.shape[2:]):
        rule = 'have the shape (B, K, W), (B, K, H, W) or (B, K, D, H, W) with cells'
        step = 'Add the dimension of the batch or of the keypoints'
        raise ValueError(message(what, argument, rule, tuple(heatmap.shape), step))


def check_masses(what: str, heatmap: Tensor) -> None:
    """Check maps; under value checks also refuse finite ones that are no distributions.

    NaN and inf pass: they show in the result.

    Raises:
        TypeError: as :func:`check_maps`.
        ValueError: as :func:`check_maps`, or a map is negative or does not sum to 1.
    """
    check_maps(what, heatmap)
    if not value_checks_enabled() or is_tracing() or not heatmap.numel():
        return
    maps = heatmap.detach().flatten(2).double()
    lowest, masses = maps.amin(-1), maps.sum(-1)
    for rule, bad, value in (
        ('be non-negative', lowest < -1e-6, lowest),
        # bfloat16 rounds each cell by up to 0.4 %.
        ('sum to 1 over each map', (masses - 1).abs() > 1e-2, masses),
    ):
        bad = bad & masses.isfinite()
        if bad.any():
            index = tuple(bad.nonzero()[0].tolist())
            got = f'{value[index].item():g} in map {index}'
            step = 'Pass normalised maps, not logits: see normalize_heatmap'
            raise ValueError(message(what, 'heatmap', rule, got, step))
