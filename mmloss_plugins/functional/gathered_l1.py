"""L1 distance of dense predictions at the cells of objects: CenterNet's offsets and sizes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmloss_plugins.errors import check_choice, message
from mmloss_plugins.functional.closed_form import compute_dtype
from mmloss_plugins.functional.debug import value_checks_enabled
from mmloss_plugins.functional.regression import l1_loss, smooth_l1_loss
from mmloss_plugins.functional.shapes import refuse_gradient

PENALTIES = ('l1', 'smooth_l1', 'normalized')
# The authors' constant, which keeps the normalised distance finite at a target of 0.
NORMALIZED_EPS = 1e-4


def gathered_l1(
    pred: Tensor,
    target: Tensor,
    cell_index: Tensor,
    labels: Tensor | None = None,
    *,
    penalty: str = 'l1',
) -> Tensor:
    r"""Penalise the distance between a map and each object's target in the object's cell alone.

    .. math::
        L_{nd} = |d|, \qquad d = x_{d, i_n} - t_{nd}

    for the channels d of object n in cell i_n. In contrast to an L1 on target maps, objects that
    share a cell all count, and memory grows with the objects instead of the cells.

    Args:
        pred: x, shape (B, D, H, W), or (B, C * D, H, W) with ``labels``.
        target: t, shape (B, N, D), such as offsets or sizes in cells.
        cell_index: i, shape (B, N) int64: row * W + column.
        labels: (B, N) int64 for a prediction per class: class c reads the channels c * D to
            c * D + D - 1. None: one prediction for all classes.
        penalty: 'l1'; 'smooth_l1', squared up to a distance of 1: d^2 / 2, then \|d\| - 1 / 2; or
            'normalized', the distance in units of the target: \|x / (t + 1e-4) - 1\|, for sizes.

    Returns:
        Shape (B, N, D), float32 (float64 for float64 ``pred``). Zero where x equals t, for
        'normalized' where it equals t + 1e-4.

    Raises:
        TypeError: one of them is no tensor, or an index or label no integer.
        ValueError: shapes do not match, ``target`` requires a gradient or an unknown
            ``penalty``. With :func:`value_checks` also an index or label out of range, or a
            negative target for 'normalized'.

    Differs from:
        The authors' ``RegL1Loss``, ``RegLoss``, ``NormRegL1Loss`` and ``RegWeightedL1Loss``: no
        sum here, and arithmetic in float32 for half predictions. MMDetection has an L1 on dense
        maps, where of the objects in one cell the last one counts.

    Reference:
        Zhou et al., Objects as Points, https://arxiv.org/abs/1904.07850, equations 2 and 3.

    Example:
        >>> import torch
        >>> pred = torch.arange(12.0).reshape(1, 2, 2, 3)
        >>> index = torch.tensor([[4, 4]])  # row 1, column 1 holds 4 and 10
        >>> gathered_l1(pred, torch.tensor([[[4.5, 10.0], [0.0, 12.0]]]), index)
        tensor([[[0.5000, 0.0000],
                 [4.0000, 2.0000]]])
    """
    check_choice('gathered_l1', 'penalty', penalty, PENALTIES)
    check_gathered('gathered_l1', pred, target, cell_index, labels)
    _check_values(pred, target, cell_index, labels, penalty)
    found = gather_cells(pred, cell_index, target.shape[-1], labels)
    if penalty == 'smooth_l1':
        return smooth_l1_loss(found, target)
    if penalty == 'l1':
        return l1_loss(found, target)
    # |x / s - 1| = |x - s| / s with s = t + eps
    size = target.to(compute_dtype(pred)) + NORMALIZED_EPS
    return l1_loss(found, size, 1 / size)


def gather_cells(
    pred: Tensor, cell_index: Tensor, dims: int, labels: Tensor | None = None
) -> Tensor:
    """Return what maps hold in the cells of objects.

    Args:
        pred: (B, D, H, W), or (B, C * D, H, W) with ``labels``.
        cell_index: (B, N) int64: row * W + column.
        dims: D.
        labels: (B, N) int64, for a prediction per class.

    Returns:
        (B, N, D), type of ``pred``.

    Example:
        >>> import torch
        >>> pred = torch.arange(12.0).reshape(1, 2, 2, 3)
        >>> gather_cells(pred, torch.tensor([[0, 5]]), 2)
        tensor([[[ 0.,  6.],
                 [ 5., 11.]]])
    """
    channel = torch.arange(dims, device=pred.device)
    if labels is not None:
        channel = labels.unsqueeze(-1) * dims + channel
    image = torch.arange(len(pred), device=pred.device).view(-1, 1, 1)
    cell, width = cell_index.unsqueeze(-1), pred.shape[3]
    # torch.gather would need a contiguous copy of maps in channels_last, and keep it.
    return pred[image, channel, cell // width, cell % width]


def check_gathered(what: str, pred: Any, target: Any, cell_index: Any, labels: Any = None) -> None:
    """Refuse what :func:`gathered_l1` cannot take.

    Args:
        what: name of the loss, for the error text.
        pred: as in :func:`gathered_l1`, and so on for the others.
        target: values of the objects.
        cell_index: cells of the objects.
        labels: classes of the objects, or None.

    Raises:
        TypeError: no tensor, or an index or label that is no integer.
        ValueError: shapes do not match or ``target`` requires a gradient.
    """
    for name, tensor in (('pred', pred), ('target', target)):
        if not isinstance(tensor, Tensor):
            rule, step = 'be a tensor', 'Pass a map of the head and the values of the objects'
            raise TypeError(message(what, name, rule, type(tensor).__name__, step))
    if target.dim() != 3 or pred.dim() != 4 or len(target) != len(pred):
        rule = f'have the shape (B, N, D) for pred (B, D, H, W) = {tuple(pred.shape)}'
        step = 'Pad the objects of a batch with pad_objects'
        raise ValueError(message(what, 'target', rule, tuple(target.shape), step))
    for name, tensor in (('target cell_index', cell_index), ('target labels', labels)):
        if tensor is not None:
            _check_integers(what, name, tensor, target)
    channels, dims = pred.shape[1], target.shape[2]
    fits = channels == dims if labels is None else dims > 0 and channels % dims == 0
    if not fits:
        rule = f'have {dims} channels' + ('' if labels is None else ' per class')
        rule += f' for target {tuple(target.shape)}'
        step = 'A prediction per class needs labels, class_specific=True in RegL1Loss'
        raise ValueError(message(what, 'pred', rule, tuple(pred.shape), step))
    refuse_gradient(what, target)


def _check_integers(what: str, name: str, tensor: Any, target: Tensor) -> None:
    got = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
    if got != torch.int64:
        step = 'Take it from center_targets'
        raise TypeError(message(what, name, 'be a tensor of int64', got, step))
    if tensor.shape != target.shape[:2]:
        rule = f'have the shape (B, N) = {tuple(target.shape[:2])} of the values'
        step = 'Pass one for each object, padding included'
        raise ValueError(message(what, name, rule, tuple(tensor.shape), step))


def _check_values(
    pred: Tensor, target: Tensor, cell_index: Tensor, labels: Tensor | None, penalty: str
) -> None:
    if not value_checks_enabled():
        return
    cells, classes = pred.shape[2:].numel(), pred.shape[1] // max(target.shape[2], 1)
    step = 'Make targets and prediction of one size'
    checks = [('cell_index', cell_index, cell_index >= cells, f'[0, {cells})', step)]
    if labels is not None:
        step = 'Set num_classes of the head to that of the data set'
        checks.append(('labels', labels, labels >= classes, f'[0, {classes})', step))
    if penalty == 'normalized':
        step = 'Normalised distances are for sizes, which are not negative'
        checks.append(('target', target, ~(target < torch.inf), '[0, inf)', step))
    for name, tensor, above, within, step in checks:
        bad = above | (tensor < 0)
        if bad.any():
            index = tuple(bad.nonzero()[0].tolist())
            got = f'{tensor[index].item():g} at index {index}'
            raise ValueError(message('gathered_l1', name, f'be within {within}', got, step))
