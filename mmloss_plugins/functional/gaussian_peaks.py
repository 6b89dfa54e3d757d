"""Gaussian peaks on heatmaps, as CornerNet and the detectors after it draw them.

Law and Deng, CornerNet, arXiv 1808.01244, section 3.2.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from mmloss_plugins.errors import check_choice, message

# Default of min_overlap by radius_impl.
MIN_OVERLAP = {'centernet': 0.7, 'mmdet': 0.3}


def gaussian_radius(
    size_wh: Tensor, radius_impl: str = 'centernet', min_overlap: float | None = None
) -> Tensor:
    """Return how far a centre may be off for its box to overlap the object well enough.

    Three quadratic equations, one each for a box whose corners are shifted, both inside and both
    outside of the object; the smallest of their roots counts.

    Args:
        size_wh: (..., 2), width and height in cells.
        radius_impl: 'mmdet' has roots with intersection over union ``min_overlap``. 'centernet'
            has the larger root of each equation and does not divide by its leading coefficient,
            as the code of CornerNet and CenterNet does: about 3.3 times the radius.
        min_overlap: intersection over union, in (0, 1). None: 0.7 for 'centernet', 0.3 for
            'mmdet', whose radii are alike: 10.9 and 9.0 for 40 x 40.

    Returns:
        Shape (...), in cells, not rounded; 0 for a size of 0.

    Raises:
        ValueError: an unknown ``radius_impl``, or ``min_overlap`` outside (0, 1).

    Reference:
        Law and Deng, CornerNet, https://arxiv.org/abs/1808.01244, section 3.2.

    Example:
        >>> import torch
        >>> gaussian_radius(torch.tensor([40.0, 40.0])), gaussian_radius(torch.zeros(2))
        (tensor(10.9328), tensor(0.))
    """
    width, height = size_wh.unbind(-1)
    return torch.stack(_roots(width, height, radius_impl, min_overlap)).amin(0)


def max_radius(
    map_size_hw: tuple[int, int], radius_impl: str = 'centernet', min_overlap: float | None = None
) -> int:
    """Return the radius of an object that fills the map, as no other on it is larger.

    Args:
        map_size_hw: H, W of the map.
        radius_impl: see :func:`gaussian_radius`.
        min_overlap: see :func:`gaussian_radius`.

    Example:
        >>> max_radius((128, 128))
        34
    """
    height, width = map_size_hw
    return int(min(_roots(float(width), float(height), radius_impl, min_overlap)))


def draw_peaks(
    cell_xy: Tensor,
    radius: Tensor,
    labels: Tensor,
    valid: Tensor,
    shape: tuple[int, int, int],
    *,
    max_radius: int,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Draw a Gaussian around each cell; where Gaussians of one map overlap, the largest counts.

    A Gaussian has sigma = (2 r + 1) / 6, ends r cells from its centre along both axes, with r the
    radius without its fraction, and is exactly 1 at its centre. Memory beside the maps:
    B * N * (2 * max_radius + 1) * W values.

    Args:
        cell_xy: (B, N, 2) int64, column and row of each centre; may lie outside of the map.
        radius: (B, N), at least 0, in cells.
        labels: (B, N) int64, in which of the C maps.
        valid: (B, N) bool; where False nothing is drawn and the others may hold anything.
        shape: C, H, W of the maps of one image.
        max_radius: no Gaussian reaches further; a larger ``radius`` is cut to it.
        dtype: of the maps.

    Returns:
        (B, C, H, W) in [0, 1].

    Raises:
        RuntimeError: a label outside [0, C), from PyTorch.

    Example:
        >>> import torch
        >>> one = torch.ones(1, 1, dtype=torch.long)
        >>> cell = torch.tensor([[[2, 0]]])
        >>> draw_peaks(cell, one.float(), 0 * one, one.bool(), (1, 2, 4), max_radius=3)
        tensor([[[[0.0000, 0.1353, 1.0000, 0.1353],
                  [0.0000, 0.0183, 0.1353, 0.0183]]]])
    """
    batch = len(valid)
    classes, height, width = shape
    radius = torch.where(valid, radius, 0).floor().clamp(max=max_radius).to(dtype).unsqueeze(-1)
    column, row = (part.unsqueeze(-1) for part in cell_xy.unbind(-1))
    near = torch.arange(-max_radius, max_radius + 1, device=valid.device)
    rows = row + near
    inside = (rows >= 0) & (rows < height) & valid.unsqueeze(-1)
    across = _bell(torch.arange(width, device=valid.device) - column, radius)
    down = torch.where(inside, _bell(near.expand_as(rows), radius), 0)
    # A wrong label would end up in the maps of another image; beyond the last row PyTorch raises.
    in_range = (labels >= 0) & (labels < classes) | ~valid
    first = torch.arange(batch, device=valid.device).unsqueeze(-1) * classes
    plane = torch.where(in_range, first + torch.where(valid, labels, 0), batch * classes)
    line = plane.unsqueeze(-1) * height + rows.clamp(0, height - 1)
    drawn = (down.unsqueeze(-1) * across.unsqueeze(-2)).flatten(0, 2)
    maps = torch.zeros(batch * classes * height, width, dtype=dtype, device=valid.device)
    maps.scatter_reduce_(0, line.reshape(-1, 1).expand(-1, width), drawn, 'amax')
    return maps.view(batch, classes, height, width)


def _roots(width: Any, height: Any, radius_impl: str, min_overlap: float | None) -> list[Any]:
    """Return a root for each of the three cases, of numbers or of tensors."""
    check_choice('gaussian_radius', 'radius_impl', radius_impl, MIN_OVERLAP)
    least = MIN_OVERLAP[radius_impl] if min_overlap is None else min_overlap
    if not 0 < least < 1:
        rule, step = 'be within (0, 1)', 'The authors take 0.7, MMDetection 0.3'
        raise ValueError(message('gaussian_radius', 'min_overlap', rule, least, step))
    total = height + width
    # a r^2 + b r + c = 0 for one corner inside, both inside and both outside; sign of the root.
    cases = (
        (1, -total, width * height * (1 - least) / (1 + least), -1),
        (4, -2 * total, (1 - least) * width * height, -1),
        (4 * least, 2 * least * total, (least - 1) * width * height, 1),
    )
    if radius_impl == 'mmdet':
        return [(sign * _sqrt(b * b - 4 * a * c) - b) / (2 * a) for a, b, c, sign in cases]
    return [(_sqrt(b * b - 4 * a * c) - b) / 2 for a, b, c, _ in cases]


def _sqrt(x: Any) -> Any:
    if isinstance(x, Tensor):
        # In float32 it may be off by one bit, and a radius then by a whole cell.
        return x.double().sqrt().to(x.dtype)
    return math.sqrt(x)


def _bell(distance: Tensor, radius: Tensor) -> Tensor:
    """Return a Gaussian of sigma = (2 r + 1) / 6 along one axis, 0 beyond r."""
    exponent = distance * distance * (-18 / (2 * radius + 1).square())
    return torch.where(distance.abs() <= radius, exponent.exp(), 0)
