"""Targets of CenterNet for a whole batch: Gaussian peaks, offsets and sizes.

Zhou et al., Objects as Points, arXiv 1904.07850, section 4. Cell i of a map covers [i, i + 1) of
the input divided by the stride; the centre of an object lies in the cell that it falls into.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

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


class CenterTargets(NamedTuple):
    """What CenterNet is trained on; N objects per image, some of them padding.

    Attributes:
        heatmap: (B, C, H, W) in [0, 1], exactly 1 in the cell of each object's centre.
        cell_index: (B, N) int64, cell of the centre: row * W + column; 0 where ``mask`` is False.
        offset: (B, N, 2), centre (x, y) minus its cell, in [0, 1).
        size_wh: (B, N, 2), width and height in cells.
        labels: (B, N) int64, class of each object; 0 where ``mask`` is False.
        mask: (B, N) bool, which objects count.
        weight: (B, 1, H, W), 0 in ignore regions and 1 elsewhere; None without ignore boxes.
    """

    heatmap: Tensor
    cell_index: Tensor
    offset: Tensor
    size_wh: Tensor
    labels: Tensor
    mask: Tensor
    weight: Tensor | None


def center_targets(
    boxes: Tensor,
    labels: Tensor,
    valid: Tensor,
    num_classes: int,
    map_size_hw: tuple[int, int],
    stride: Stride,
    *,
    ignore_boxes: Tensor | None = None,
    radius_impl: str = 'centernet',
    min_overlap: float | None = None,
) -> CenterTargets:
    """Return the targets of a batch, without a loop over images or boxes and without a sync.

    Boxes are clipped to the map. What has no area there (outside of the image, zero width) is
    left out as if it were padding; an object smaller than a cell is a peak of one cell. Objects
    that share a cell are all kept.

    Args:
        boxes: (B, N, 4), corners x1, y1, x2, y2 in px of the input.
        labels: (B, N) integers in [0, num_classes).
        valid: (B, N) bool, False for padding, where boxes and labels may hold anything.
        num_classes: C.
        map_size_hw: H, W of the maps.
        stride: px of the input per cell, a number or (x, y).
        ignore_boxes: (B, M, 4) regions in which the background does not count, padded with
            zeros. Every cell that a region touches gets weight 0, but for those of the centres.
        radius_impl: 'centernet', the authors' radius: that of a size rounded up to whole cells,
            with the root of the quadratic equation that they took; or 'mmdet', the root of
            MMDetection. See :func:`gaussian_radius`.
        min_overlap: see :func:`gaussian_radius`; None for the default of ``radius_impl``.

    Returns:
        :class:`CenterTargets`, float32 (float64 for float64 boxes).

    Raises:
        ValueError: a wrong shape, ``num_classes``, ``stride``, ``radius_impl`` or
            ``min_overlap``. With :func:`value_checks` also boxes that are not finite and labels
            outside [0, num_classes).

    Differs from:
        ``mmdet.CenterNetHead.get_targets``, which loops over the boxes, keeps one of the objects
        that share a cell and reads no ignore boxes. The authors clip boxes to W - 1 and H - 1.

    Reference:
        https://arxiv.org/abs/1904.07850, section 3 and 4.

    Example:
        >>> import torch
        >>> boxes = torch.tensor([[[4.0, 0.0, 14.0, 8.0]]])
        >>> one = torch.ones(1, 1, dtype=torch.long)
        >>> targets = center_targets(boxes, 0 * one, one.bool(), 2, (3, 4), stride=4)
        >>> targets.cell_index, targets.offset, targets.size_wh  # centre (2.25, 1) in cells
        (tensor([[6]]), tensor([[[0.2500, 0.0000]]]), tensor([[[2.5000, 2.0000]]]))
        >>> targets.heatmap[0, 0]
        tensor([[0., 0., 0., 0.],
                [0., 0., 1., 0.],
                [0., 0., 0., 0.]])
    """
    what = 'center_targets'
    if boxes.dim() != 3 or boxes.shape[-1] != 4:
        rule, step = 'have the shape (B, N, 4)', 'Pad the boxes of a batch with pad_objects'
        raise ValueError(message(what, 'boxes', rule, tuple(boxes.shape), step))
    check_padding(what, 'boxes', boxes, labels, valid, 'Pad them together with pad_objects')
    strides = strides_xy(what, stride)
    check_sizes(what, num_classes, map_size_hw)
    step = 'Look for a NaN in the annotation or the augmentation of that image'
    check_finite(what, 'boxes', boxes, labels, valid, num_classes, step)
    height, width = map_size_hw
    corners = boxes.to(compute_dtype(boxes)).unbind(-1)
    x, box_width = _clipped(corners[0], corners[2], width, strides[0])
    y, box_height = _clipped(corners[1], corners[3], height, strides[1])
    # Not size > 0: a box with NaN has to show in the loss.
    mask = valid.bool() & ~((box_width <= 0) | (box_height <= 0))
    kept = mask.unsqueeze(-1)
    centre = torch.where(kept, torch.stack((x, y), -1), 0)
    size_wh = torch.where(kept, torch.stack((box_width, box_height), -1), 0)
    labels = torch.where(mask, labels, 0).long()
    column, row = (
        part.nan_to_num().floor().clamp(max=size - 1)
        for part, size in zip(centre.unbind(-1), (width, height))
    )
    cell = torch.stack((column, row), -1)
    # Their sizes are whole numbers, of which a root in float32 may miss a whole number.
    rounded = size_wh.double().ceil() if radius_impl == 'centernet' else size_wh
    heatmap = draw_peaks(
        cell.long(),
        gaussian_radius(rounded, radius_impl, min_overlap),
        labels,
        mask,
        (num_classes, height, width),
        max_radius=max_radius(map_size_hw, radius_impl, min_overlap),
        dtype=size_wh.dtype,
    )
    index = row.long() * width + column.long()
    weight = None
    if ignore_boxes is not None:
        (weight,) = ignore_weights(what, ignore_boxes, map_size_hw, strides, [index], mask)
    return CenterTargets(heatmap, index, centre - cell, size_wh, labels, mask, weight)


def pad_objects(
    boxes: Sequence[Tensor], labels: Sequence[Tensor], max_objects: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Bring the boxes and labels of several images to one length, without a sync.

    Args:
        boxes: one (n, 4) per image, as in MMDetection's ``InstanceData``.
        labels: one (n,) of integers per image.
        max_objects: pad to this N, and leave out what an image has beyond it, as the authors do
            at 128. One length for all batches lets ``torch.compile`` keep one graph. None: the
            most that an image of this batch has.

    Returns:
        boxes (B, N, 4), labels (B, N) and valid (B, N), bool; padding is 0 and False.

    Raises:
        ValueError: no image, or images whose numbers of boxes and labels differ.

    Example:
        >>> import torch
        >>> boxes = [torch.ones(1, 4), torch.ones(2, 4)]
        >>> padded, labels, valid = pad_objects(boxes, [torch.tensor([3]), torch.tensor([5, 7])])
        >>> padded.shape, labels.tolist(), valid.tolist()
        (torch.Size([2, 2, 4]), [[3, 0], [5, 7]], [[True, False], [True, True]])
    """
    counts = [len(box) for box in boxes], [len(label) for label in labels]
    if counts[0] != counts[1] or not counts[0]:
        rule = f'have the lengths {counts[0]} of boxes, one or more images'
        step = 'Pass boxes and labels of the same images'
        raise ValueError(message('pad_objects', 'labels', rule, counts[1], step))
    padded = pad_rows(boxes, max_objects)
    # The lengths are known here alone: a tensor of them would wait for the device. As a label
    # marks the padding, it has to be one that no mistake makes, such as -1.
    padding = torch.iinfo(labels[0].dtype).min
    found = pad_rows(labels, max_objects, fill=padding)
    valid = found != padding
    return padded, torch.where(valid, found, 0), valid


def pad_rows(rows: Sequence[Tensor], length: int | None = None, fill: float = 0) -> Tensor:
    """Stack tensors (n, ...) with n of their own to (B, N, ...), such as ignore boxes.

    Args:
        rows: one tensor per image.
        length: N; longer ones are cut. None: the longest.
        fill: value of the padding.

    Example:
        >>> import torch
        >>> pad_rows([torch.ones(1), torch.zeros(0)], length=2)
        tensor([[1., 0.],
                [0., 0.]])
    """
    padded = pad_sequence(list(rows), batch_first=True, padding_value=fill)
    if length is None:
        return padded
    padded = padded[:, :length]
    missing = padded.new_full((len(padded), length - padded.shape[1], *padded.shape[2:]), fill)
    return torch.cat((padded, missing), 1)


def _clipped(low: Tensor, high: Tensor, cells: int, stride: float) -> tuple[Tensor, Tensor]:
    """Return centre and size along one axis in cells, of what is on the map."""
    low, high = (edge.clamp(0, cells * stride) for edge in (low, high))
    # In MMDetection's order, so that both round to the same cell.
    return (low + high) * (1 / stride) / 2, (high - low) * (1 / stride)
