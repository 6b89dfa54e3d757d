"""Extreme points of objects: training targets from them, and the octagons that they span.

Zhou, Zhuo, Kraehenbuehl, Bottom-up Object Detection by Grouping Extreme and Center Points, CVPR
2019, arXiv 1901.08043 (ExtremeNet). The four points are always ordered top, left, bottom, right.
Coordinates are continuous: pixel i covers [i, i + 1), cell i of a map the same in cells.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mmloss_plugins.errors import message
from mmloss_plugins.functional._objects import (
    Stride,
    check_finite,
    check_padding,
    check_sizes,
    ignore_weights,
    strides_xy,
)
from mmloss_plugins.functional.closed_form import compute_dtype
from mmloss_plugins.functional.gaussian_peaks import draw_peaks, gaussian_radius, max_radius

SIDES = 4
# Of a side of the box, to each side of the extreme point.
REACH = 1 / 8


class ExtremeTargets(NamedTuple):
    """What ExtremeNet is trained on; N objects per image, some of them padding.

    Attributes:
        extreme_heatmaps: four of (B, C, H, W), or (B, 1, H, W) if class-agnostic, in [0, 1],
            exactly 1 in the cell of each point.
        center_heatmap: (B, C, H, W), the same for the middle of the box that the points span.
        cell_index: four of (B, N) int64, row * W + column of each point; 0 where not ``mask``.
        offset: four of (B, N, 2), point (x, y) minus its cell, in [0, 1]; 0 where not ``mask``.
        labels: (B, N) int64, class of each object; 0 where ``mask`` is False.
        mask: (B, N) bool, which objects count.
        extreme_weights: four of (B, 1, H, W), 0 in ignore regions and 1 elsewhere and at the
            points; None without ignore boxes.
        center_weight: (B, 1, H, W), the same for the centres.
    """

    extreme_heatmaps: tuple[Tensor, ...]
    center_heatmap: Tensor
    cell_index: tuple[Tensor, ...]
    offset: tuple[Tensor, ...]
    labels: Tensor
    mask: Tensor
    extreme_weights: tuple[Tensor, ...] | None
    center_weight: Tensor | None


def extreme_targets(
    points: Tensor,
    labels: Tensor,
    valid: Tensor,
    num_classes: int,
    map_size_hw: tuple[int, int],
    stride: Stride,
    *,
    ignore_boxes: Tensor | None = None,
    agnostic: bool = False,
    radius_impl: str = 'centernet',
    min_overlap: float | None = None,
) -> ExtremeTargets:
    """Return the targets of a batch, without a loop over images or objects and without a sync.

    Points are clipped to the map. An object of which nothing is left there (the box that its
    points span has no area) is left out as if it were padding; one that is smaller than a cell
    has all its peaks in that cell. Objects that share a cell are all kept.

    Args:
        points: (B, N, 4, 2), x and y of the top, left, bottom and right point in px of the input.
        labels: (B, N) integers in [0, num_classes).
        valid: (B, N) bool, False for padding, where points and labels may hold anything.
        num_classes: C.
        map_size_hw: H, W of the maps.
        stride: px of the input per cell, a number or (x, y).
        ignore_boxes: (B, M, 4) regions in which the background does not count, padded with
            zeros. Every cell that a region touches gets weight 0, in each map but for those of
            its peaks.
        agnostic: one extreme-point map for all classes; the centre map always has one per class.
        radius_impl: see :func:`gaussian_radius`; that of the authors is 'centernet', with the
            size of the box rounded up to whole cells.
        min_overlap: see :func:`gaussian_radius`; None for the default of ``radius_impl``.

    Returns:
        :class:`ExtremeTargets`, float32 (float64 for float64 points).

    Raises:
        ValueError: a wrong shape, ``num_classes``, ``stride``, ``radius_impl`` or
            ``min_overlap``. With :func:`value_checks` also points that are not finite and labels
            outside [0, num_classes).

    Differs from:
        The authors' sampler, which loops over the objects, clips to W - 1 and H - 1, takes whole
        pixels as points and the annotated box for the radius, and counts crowds as background.

    Reference:
        https://arxiv.org/abs/1901.08043, section 4.1.

    Example:
        >>> import torch
        >>> points = torch.tensor([[[[9.0, 1.0], [2.0, 5.0], [6.0, 11.0], [14.0, 4.0]]]])
        >>> one = torch.ones(1, 1, dtype=torch.long)
        >>> targets = extreme_targets(points, 0 * one, one.bool(), 1, (3, 4), stride=4)
        >>> [index.item() for index in targets.cell_index]  # cells (2, 0), (0, 1), (1, 2), (3, 1)
        [2, 4, 9, 7]
        >>> targets.offset[0], targets.center_heatmap[0, 0].argmax()  # middle (2, 1.5) in cells
        (tensor([[[0.2500, 0.2500]]]), tensor(6))
    """
    what = 'extreme_targets'
    if points.dim() != 4 or points.shape[2:] != (SIDES, 2):
        rule, step = 'have the shape (B, N, 4, 2)', 'Pad the points of a batch with pad_rows'
        raise ValueError(message(what, 'points', rule, tuple(points.shape), step))
    check_padding(what, 'points', points, labels, valid, 'Pad them together with the boxes')
    strides = strides_xy(what, stride)
    check_sizes(what, num_classes, map_size_hw)
    step = 'Look at the masks of that image'
    check_finite(what, 'points', points, labels, valid, num_classes, step)
    height, width = map_size_hw
    dtype = compute_dtype(points)
    # Per axis: a tensor of the sizes would have to be copied to the device, which waits for it.
    x, y = (
        (part.to(dtype) / stride_px).clamp(0, size)
        for part, stride_px, size in zip(points.unbind(-1), strides, (width, height))
    )
    points = torch.stack((x, y), -1)
    low, high = _span(points)
    size_wh = high - low
    # Not size > 0: a point with NaN has to show in the loss.
    mask = valid.bool() & ~(size_wh <= 0).any(-1)
    labels = torch.where(mask, labels, 0).long()
    size_wh = torch.where(mask.unsqueeze(-1), size_wh, 0)
    # Their sizes are whole numbers, of which a root in float32 may miss a whole number.
    rounded = size_wh.double().ceil() if radius_impl == 'centernet' else size_wh
    radius = gaussian_radius(rounded, radius_impl, min_overlap)
    largest = max_radius(map_size_hw, radius_impl, min_overlap)

    def peaks(cell: Tensor, agnostic: bool) -> Tensor:
        classes = 1 if agnostic else num_classes
        label = torch.zeros_like(labels) if agnostic else labels
        shape = (classes, height, width)
        return draw_peaks(cell, radius, label, mask, shape, max_radius=largest, dtype=dtype)

    every = (*points.unbind(2), (low + high) / 2)
    found = [_cell_and_offset(point, mask, map_size_hw) for point in every]
    cells = [cell for cell, _ in found]
    indices = [cell[..., 1] * width + cell[..., 0] for cell in cells]
    weights = None
    if ignore_boxes is not None:
        weights = ignore_weights(what, ignore_boxes, map_size_hw, strides, indices, mask)
    return ExtremeTargets(
        extreme_heatmaps=tuple(peaks(cell, agnostic) for cell in cells[:SIDES]),
        center_heatmap=peaks(cells[SIDES], False),
        cell_index=tuple(indices[:SIDES]),
        offset=tuple(offset for _, offset in found[:SIDES]),
        labels=labels,
        mask=mask,
        extreme_weights=None if weights is None else tuple(weights[:SIDES]),
        center_weight=None if weights is None else weights[SIDES],
    )


def _span(points: Tensor) -> tuple[Tensor, Tensor]:
    """Return the corners (..., 2) of the box of points (..., 4, 2)."""
    top, left, bottom, right = points.unbind(-2)
    low = torch.stack((left[..., 0], top[..., 1]), -1)
    return low, torch.stack((right[..., 0], bottom[..., 1]), -1)


def _cell_and_offset(
    point: Tensor, mask: Tensor, map_size_hw: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Return the cells (B, N, 2), as int64, and what is left of points (B, N, 2)."""
    point = torch.where(mask.unsqueeze(-1), point, 0)
    # A point on the far border belongs to the last cell.
    parts = [
        part.nan_to_num().floor().clamp(max=size - 1)
        for part, size in zip(point.unbind(-1), reversed(map_size_hw))
    ]
    cell = torch.stack(parts, -1)
    return cell.long(), point - cell


def octagons(points: Tensor) -> Tensor:
    """Return the octagon of four extreme points, a coarse mask of the object.

    Each point is extended along its edge of the box by 1/8 of the edge to both sides, not beyond
    the corners; the ends of the four segments are the corners of the octagon.

    Args:
        points: (..., 4, 2), x and y of the top, left, bottom and right point.

    Returns:
        (..., 8, 2), clockwise as seen on the screen, from the left end of the top segment; convex.

    Raises:
        ValueError: ``points`` has another shape.

    Reference:
        https://arxiv.org/abs/1901.08043, section 4.4.

    Example:
        >>> import torch
        >>> octagons(torch.tensor([[4.0, 0.0], [0.0, 1.0], [8.0, 16.0], [8.0, 8.0]])).tolist()
        [[3.0, 0.0], [5.0, 0.0], [8.0, 6.0], [8.0, 10.0], [8.0, 16.0], [7.0, 16.0], [0.0, 3.0], \
[0.0, 0.0]]
    """
    if points.dim() < 2 or points.shape[-2:] != (SIDES, 2):
        rule, step = 'have the shape (..., 4, 2)', 'Pass top, left, bottom and right points'
        raise ValueError(message('octagons', 'points', rule, tuple(points.shape), step))
    (x1, y1), (x2, y2) = (corner.unbind(-1) for corner in _span(points))
    top, left, bottom, right = points.unbind(-2)
    across, down = (x2 - x1) * REACH, (y2 - y1) * REACH

    def along_x(point: Tensor, move: Tensor) -> Tensor:
        return torch.maximum(torch.minimum(point[..., 0] + move, x2), x1)

    def along_y(point: Tensor, move: Tensor) -> Tensor:
        return torch.maximum(torch.minimum(point[..., 1] + move, y2), y1)

    corners = (
        (along_x(top, -across), y1),
        (along_x(top, across), y1),
        (x2, along_y(right, -down)),
        (x2, along_y(right, down)),
        (along_x(bottom, across), y2),
        (along_x(bottom, -across), y2),
        (x1, along_y(left, down)),
        (x1, along_y(left, -down)),
    )
    return torch.stack([torch.stack(corner, -1) for corner in corners], -2)


def octagon_masks(vertices: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Fill the octagons: a pixel belongs to one if its centre does.

    Args:
        vertices: (N, 8, 2), in px, clockwise as :func:`octagons` returns them.
        size_hw: H, W of the masks.

    Returns:
        (N, H, W) bool. The border of an octagon belongs to it.

    Raises:
        ValueError: ``vertices`` has another shape, or a size below 1.

    Example:
        >>> import torch
        >>> points = torch.tensor([[[1.5, 0.0], [0.0, 1.5], [1.5, 3.0], [3.0, 1.5]]])
        >>> octagon_masks(octagons(points), (3, 4)).int()[0]
        tensor([[0, 1, 0, 0],
                [1, 1, 1, 0],
                [0, 1, 0, 0]], dtype=torch.int32)
    """
    what = 'octagon_masks'
    if vertices.dim() != 3 or vertices.shape[1:] != (2 * SIDES, 2):
        rule, step = 'have the shape (N, 8, 2)', 'Pass the result of octagons'
        raise ValueError(message(what, 'vertices', rule, tuple(vertices.shape), step))
    if len(size_hw) != 2 or min(size_hw) < 1:
        step = 'Pass the shape of the image'
        raise ValueError(message(what, 'size_hw', 'be (H, W), both positive', size_hw, step))
    height, width = size_hw
    vertices = vertices.to(compute_dtype(vertices))
    x, y = (
        torch.arange(size, dtype=vertices.dtype, device=vertices.device) + 0.5
        for size in (width, height)
    )
    low, high = vertices.amin(1), vertices.amax(1)
    # An octagon without area has no side on which a pixel could lie.
    on_rows = (y >= low[:, 1:]) & (y <= high[:, 1:])
    on_columns = (x >= low[:, :1]) & (x <= high[:, :1])
    masks = on_rows.unsqueeze(2) & on_columns.unsqueeze(1)
    edges = vertices.roll(-1, 1) - vertices
    for start, edge in zip(vertices.unbind(1), edges.unbind(1)):
        # The right-hand side of each edge: the cross product of edge and pixel is not negative.
        rows = edge[:, :1] * (y - start[:, 1:])
        columns = edge[:, 1:] * (x - start[:, :1])
        masks &= rows.unsqueeze(2) >= columns.unsqueeze(1)
    return masks
