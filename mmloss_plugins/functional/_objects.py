"""What the targets of CenterNet and ExtremeNet share: checks of padded objects, ignore regions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Union

import torch
from torch import Tensor

from mmloss_plugins.errors import message
from mmloss_plugins.functional.closed_form import compute_dtype
from mmloss_plugins.functional.debug import value_checks_enabled

Stride = Union[float, Sequence[float]]


def strides_xy(what: str, stride: Stride) -> tuple[float, ...]:
    """Return px of the input per cell along x and y."""
    strides = tuple(stride) if isinstance(stride, Sequence) else (stride, stride)
    if len(strides) != 2 or not all(value > 0 for value in strides):
        rule, step = 'be positive, a number or (x, y)', 'Divide the size of the input by the map'
        raise ValueError(message(what, 'stride', rule, stride, step))
    return strides


def check_sizes(what: str, num_classes: int, map_size_hw: tuple[int, int]) -> None:
    """Refuse no class, and a map without cells."""
    if num_classes < 1:
        step = 'Set it to the number of classes of the data set'
        raise ValueError(message(what, 'num_classes', 'be at least 1', num_classes, step))
    if len(map_size_hw) != 2 or not all(size > 0 for size in map_size_hw):
        rule, step = 'be (H, W), both positive', 'Pass the last two sizes of the heatmap'
        raise ValueError(message(what, 'map_size_hw', rule, tuple(map_size_hw), step))


def check_padding(
    what: str, name: str, objects: Tensor, labels: Tensor, valid: Tensor, step: str
) -> None:
    """Refuse labels and validity that are not (B, N), the leading shape of ``objects``."""
    for argument, tensor in (('labels', labels), ('valid', valid)):
        if tensor.shape != objects.shape[:2]:
            rule = f'have the shape {tuple(objects.shape[:2])} of {name}'
            raise ValueError(message(what, argument, rule, tuple(tensor.shape), step))


def check_finite(
    what: str,
    name: str,
    objects: Tensor,
    labels: Tensor,
    valid: Tensor,
    num_classes: int,
    step: str,
) -> None:
    """Under value checks, refuse valid objects that are NaN or inf or whose class is none."""
    if not value_checks_enabled():
        return
    valid = valid.bool()
    classes = f'be within [0, {num_classes})', 'Set num_classes of the head to that of the data set'
    wrong_label = valid & ((labels < 0) | (labels >= num_classes))
    not_finite = valid & ~objects.isfinite().flatten(2).all(-1)
    for argument, tensor, bad, (rule, advice) in (
        (name, objects, not_finite, ('be finite', step)),
        ('labels', labels, wrong_label, classes),
    ):
        if bad.any():
            index = tuple(bad.nonzero()[0].tolist())
            got = f'{tensor[index].tolist()} at index {index}'
            raise ValueError(message(what, argument, rule, got, advice))


def ignore_weights(
    what: str,
    boxes: Tensor,
    map_size_hw: tuple[int, int],
    strides: tuple[float, ...],
    indices: Sequence[Tensor],
    mask: Tensor,
) -> list[Tensor]:
    """Return 0 in every cell that a region touches, but for those of the peaks, and 1 elsewhere.

    Args:
        what: name of the caller, for the error text.
        boxes: (B, M, 4), regions in px of the input, padded with zeros.
        map_size_hw: H, W of the maps.
        strides: px of the input per cell along x and y.
        indices: cells of the objects' peaks (B, N), row * W + column, for each heatmap.
        mask: (B, N) bool, which objects count.

    Returns:
        (B, 1, H, W) for each of ``indices``.

    Raises:
        ValueError: a wrong shape.
    """
    if boxes.dim() != 3 or boxes.shape[0] != len(mask) or boxes.shape[2] != 4:
        rule, step = f'have the shape ({len(mask)}, M, 4)', 'Pad them with pad_rows'
        raise ValueError(message(what, 'ignore_boxes', rule, tuple(boxes.shape), step))
    x1, y1, x2, y2 = boxes.to(compute_dtype(boxes)).unbind(-1)
    columns = _touched(x1 / strides[0], x2 / strides[0], map_size_hw[1])
    rows = _touched(y1 / strides[1], y2 / strides[1], map_size_hw[0])
    counts = torch.bmm(rows.transpose(1, 2), columns).flatten(1) == 0
    weights = []
    for index in indices:
        peaks = torch.zeros_like(counts, dtype=torch.int32).scatter_add(1, index, mask.int())
        weight = (counts | (peaks > 0)).to(columns.dtype)
        weights.append(weight.view(len(mask), 1, *map_size_hw))
    return weights


def _touched(low: Tensor, high: Tensor, cells: int) -> Tensor:
    """Return 1 for each cell that an interval overlaps and 0 for the others, (B, M, cells)."""
    cell = torch.arange(cells, device=low.device)
    low, high = low.unsqueeze(-1), high.unsqueeze(-1)
    return ((cell + 1 > low) & (cell < high) & (low < high)).to(low.dtype)
