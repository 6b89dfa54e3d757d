"""Weights and reductions shared by every loss."""

from __future__ import annotations

from typing import Union

import torch
from torch import Tensor

from mmloss_plugins.errors import check_choice, message

REDUCTIONS = ('none', 'sum', 'mean')
AvgFactor = Union[float, Tensor]


def expand_weight(weight: Tensor, shape: torch.Size, what: str, argument: str = 'weight') -> Tensor:
    """View ``weight`` so that it broadcasts against a loss of ``shape``.

    Dimensions are matched from the left, as hosts mean them: ``(B,)``, ``(B, K)``, ``(B, K, 1)``
    and ``(B, K, 1, 1)`` all fit a loss of shape ``(B, K)`` or ``(B, K, H, W)``. Matching from the
    right, as broadcasting does, would read a ``(K,)`` weight as ``(B,)`` where B equals K.

    Args:
        weight: soft or boolean factors.
        shape: shape of the unreduced loss.
        what: name of the loss, for the error text.
        argument: name of the argument, for the error text.

    Returns:
        A view of ``weight`` with ``len(shape)`` dimensions.

    Raises:
        ValueError: ``weight`` is not a left part of ``shape``.
    """
    size = list(weight.shape)
    while len(size) > len(shape) and size[-1] == 1:
        size.pop()
    size += [1] * (len(shape) - len(size))
    if len(size) == len(shape) and all(s in (1, n) for s, n in zip(size, shape)):
        return weight.reshape(size)
    raise ValueError(
        message(
            what,
            argument,
            f'have the shape {tuple(shape)} or a left part of it',
            tuple(weight.shape),
            'Pass one factor per sample or per keypoint',
        )
    )


def reduce_loss(
    loss: Tensor,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    reduction: str = 'mean',
    avg_factor: AvgFactor | None = None,
    what: str = 'reduce_loss',
) -> Tensor:
    """Weight an element-wise loss and reduce it.

    An element with weight 0 or mask False contributes nothing and sends back exactly zero
    gradient, even where ``loss`` is inf or NaN.

    Args:
        loss: unreduced loss, any shape.
        weight: soft factors, broadcast from the left (see :func:`expand_weight`).
        mask: boolean validity, broadcast from the left.
        reduction: 'none', 'sum' or 'mean' (over all elements, masked ones included).
        avg_factor: with 'mean', divide the sum by this instead of the number of elements.
            0 divides by 1, where MMDetection divides by 1.19e-7.
        what: name of the loss, for the error text.

    Returns:
        ``loss.shape`` for 'none', else a scalar; zero and attached to the graph where nothing
        is valid.

    Raises:
        ValueError: an unknown ``reduction``, ``avg_factor`` together with 'sum', a negative
            number as ``avg_factor``, or a weight or mask of a wrong shape.

    Example:
        >>> import torch
        >>> loss = torch.tensor([1.0, 2.0, float('nan')])
        >>> reduce_loss(loss, torch.tensor([1.0, 0.5, 0.0]), avg_factor=2)
        tensor(1.)
    """
    check_choice(what, 'reduction', reduction, REDUCTIONS)
    if reduction == 'none':
        return _apply_weight(loss, weight, mask, what)
    total = _apply_weight(*_sum_alike(loss, weight, mask, what), what).sum()
    return divide(total, loss.numel(), reduction, avg_factor, what)


def divide(
    total: Tensor, count: int, reduction: str, avg_factor: AvgFactor | None, what: str = 'divide'
) -> Tensor:
    """Turn a sum over ``count`` elements into the result of 'sum' or 'mean'.

    Args:
        total: sum of the weighted loss.
        count: number of elements, masked ones included.
        reduction: 'sum' or 'mean'.
        avg_factor: as in :func:`reduce_loss`.
        what: name of the loss, for the error text.

    Raises:
        ValueError: ``avg_factor`` together with 'sum', or negative.
    """
    if reduction == 'mean':
        return total / _denominator(count, avg_factor, what)
    if avg_factor is None:
        return total
    raise ValueError(
        message(
            what,
            'avg_factor',
            "be None with reduction='sum'",
            avg_factor,
            "Use reduction='mean' or drop avg_factor",
        )
    )


def _sum_alike(
    loss: Tensor, weight: Tensor | None, mask: Tensor | None, what: str
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Sum the elements that share a weight and a mask, the pixels of a keypoint for instance.

    To weight them one by one would take as long as many a loss.
    """
    if weight is None and mask is None:
        return loss, weight, mask
    if weight is not None:
        weight = expand_weight(weight, loss.shape, what)
    if mask is not None:
        mask = expand_weight(mask, loss.shape, what, 'mask')
    given = [tensor for tensor in (weight, mask) if tensor is not None]
    alike = 0
    while alike < loss.dim() and all(tensor.shape[-1 - alike] == 1 for tensor in given):
        alike += 1
    if alike == 0:
        return loss, weight, mask
    lead = loss.dim() - alike
    weight, mask = (
        None if tensor is None else tensor.reshape(tensor.shape[:lead]) for tensor in (weight, mask)
    )
    return loss.sum(tuple(range(lead, loss.dim()))), weight, mask


def _apply_weight(loss: Tensor, weight: Tensor | None, mask: Tensor | None, what: str) -> Tensor:
    if weight is not None:
        weight = expand_weight(weight, loss.shape, what).to(loss.dtype)
        # A product alone would turn 0 * NaN into NaN, forward and backward.
        loss = torch.where(weight != 0, loss * weight, 0)
    if mask is not None:
        mask = expand_weight(mask, loss.shape, what, 'mask')
        loss = torch.where(mask.bool(), loss, 0)
    return loss


def _denominator(count: int, avg_factor: AvgFactor | None, what: str) -> AvgFactor:
    if avg_factor is None:
        return max(count, 1)
    if isinstance(avg_factor, Tensor):
        # Not `avg_factor > 0`, which would turn NaN into 1.
        return torch.where(avg_factor <= 0, torch.ones_like(avg_factor), avg_factor)
    if avg_factor < 0:
        raise ValueError(
            message(
                what,
                'avg_factor',
                'be zero or positive',
                avg_factor,
                'Pass the number of positives or the sum of the weights',
            )
        )
    return avg_factor or 1
