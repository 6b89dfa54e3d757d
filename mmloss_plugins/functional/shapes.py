"""Checks of shapes and values that the element-wise losses share."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from mmloss_plugins.errors import message
from mmloss_plugins.functional.debug import value_checks_enabled


def check_same_shape(what: str, pred: Any, target: Any) -> None:
    """Refuse anything but two tensors of one shape, the target without a gradient.

    Args:
        what: name of the loss, for the error text.
        pred: prediction.
        target: target.

    Raises:
        TypeError: one of them is no tensor.
        ValueError: shapes differ or the target requires a gradient.
    """
    for name, tensor in (('pred', pred), ('target', target)):
        if not isinstance(tensor, Tensor):
            rule, step = 'be a tensor', 'Pass the output of the head and the encoded target'
            raise TypeError(message(what, name, rule, type(tensor).__name__, step))
    if pred.shape != target.shape:
        rule = f'have the shape {tuple(pred.shape)} of pred'
        step = 'Give head and codec the same number of keypoints and the same map size'
        raise ValueError(message(what, 'target', rule, tuple(target.shape), step))
    refuse_gradient(what, target)


def refuse_gradient(what: str, target: Tensor, argument: str = 'target') -> None:
    """Refuse a target that requires a gradient, which a closed form would silently not give.

    Raises:
        ValueError: ``target.requires_grad``.
    """
    if target.requires_grad:
        rule, step = 'not require a gradient', 'Detach it: the gradient is that of pred alone'
        raise ValueError(message(what, argument, rule, 'requires_grad=True', step))


def check_range(what: str, target: Tensor, low: float, high: float) -> None:
    """Under :func:`value_checks`, refuse a target outside [low, high] or NaN; else do nothing.

    Raises:
        ValueError: names the first bad value and its index.
    """
    if not value_checks_enabled():
        return
    bad = ~((target >= low) & (target <= high))
    if bad.any():
        index = tuple(bad.nonzero()[0].tolist())
        got = f'{target[index].item():g} at index {index}'
        rule = f'be finite and within [{low:g}, {high:g}]'
        step = 'Look for a NaN coordinate or a wrong codec'
        raise ValueError(message(what, 'target', rule, got, step))
