"""Checks of padded objects and map sizes that the targets of CenterNet and ExtremeNet share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Union

from torch import Tensor

from mmloss_plugins.errors import message
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
