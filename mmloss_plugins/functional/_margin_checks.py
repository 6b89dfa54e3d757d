"""What the functions with class weights and margins refuse."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from mmloss_plugins.errors import check_choice, message
from mmloss_plugins.functional._angles import Margin
from mmloss_plugins.functional.debug import value_checks_enabled

RULES = ('monotonic', 'easy', 'off')


def check_classifier(
    what: str,
    features: Any,
    class_weights: Any,
    target: Any = None,
    ignore_index: int = -1,
    weights: str = 'class_weights',
) -> None:
    """Refuse features, class weights and labels that do not fit together.

    Args:
        what: name of the function, for the error text.
        features: (B, D).
        class_weights: (C, D) or (C, K, D).
        target: (B,) classes, or None where there are none.
        ignore_index: the one label outside 0...C-1 that is allowed.
        weights: name of ``class_weights`` in the error text.

    Raises:
        TypeError: no floating-point tensor, or labels that are no integers.
        ValueError: shapes; under value checks also labels.
    """
    for name, tensor in (('features', features), (weights, class_weights)):
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            got = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            step = 'Pass the embeddings of the neck and the weights of the head'
            raise TypeError(message(what, name, 'be a floating-point tensor', got, step))
    if features.dim() != 2:
        step = 'Pool and flatten the feature maps first'
        rule = 'have the shape (B, D)'
        raise ValueError(message(what, 'features', rule, tuple(features.shape), step))
    dims = features.shape[1]
    fits = class_weights.dim() in (2, 3) and class_weights.shape[-1] == dims
    if not fits or 0 in class_weights.shape:
        rule = f'have the shape (C, {dims}) or (C, K, {dims}) for features (B, {dims})'
        step = 'Set in_channels (feat_dim of CenterLoss) to the size of the embedding'
        raise ValueError(message(what, weights, rule, tuple(class_weights.shape), step))
    if target is not None:
        check_labels(what, target, (len(features),), len(class_weights), ignore_index)


def check_labels(
    what: str, target: Any, shape: tuple[int, ...], classes: int, ignore_index: int
) -> None:
    """Refuse a target that is not one class per sample.

    Args:
        what: name of the function, for the error text.
        target: classes.
        shape: expected.
        classes: their number.
        ignore_index: a label that may be out of range.

    Raises:
        TypeError: no tensor of integers.
        ValueError: another shape; under value checks also a class that does not exist.
    """
    got = target.dtype if isinstance(target, Tensor) else type(target).__name__
    integers = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
    if got not in integers:
        step = 'Pass class indices, not one-hot vectors'
        raise TypeError(message(what, 'target', 'be a tensor of integers', got, step))
    if target.shape != shape:
        rule, step = f'have the shape {tuple(shape)}, one class per sample', 'Check the batch'
        raise ValueError(message(what, 'target', rule, tuple(target.shape), step))
    if not value_checks_enabled():
        return
    bad = (target != ignore_index) & ((target < 0) | (target >= classes))
    if bad.any():
        index = tuple(bad.nonzero()[0].tolist())
        rule = f'be within 0...{classes - 1} or ignore_index={ignore_index}'
        step = 'Set num_classes to that of the data set'
        raise ValueError(
            message(what, 'target', rule, f'{target[index].item()} at index {index}', step)
        )


def check_positive(what: str, argument: str, value: Any) -> None:
    """Refuse what is no positive, finite number.

    Raises:
        ValueError: names the argument.
    """
    if isinstance(value, (int, float)) and 0 < value < math.inf:
        return
    step = 'Scales are 16 to 64 in the papers'
    raise ValueError(message(what, argument, 'be a positive number', value, step))


def check_margins(what: str, classes: int, scale: float, margins: Any, rule: str) -> None:
    """Refuse margins that no paper means.

    Args:
        what: name of the function, for the error text.
        classes: their number.
        scale: positive.
        margins: m1, m2, m3.
        rule: one of ``RULES``.

    Raises:
        ValueError: names the argument.
    """
    check_positive(what, 'scale', scale)
    check_choice(what, 'rule', rule, RULES)
    if not isinstance(margins, (tuple, list)) or len(margins) != 3:
        step = 'ArcFace is (1.0, 0.5, 0.0), CosFace (1.0, 0.0, 0.35)'
        raise ValueError(message(what, 'margins', 'be (m1, m2, m3)', margins, step))
    m1, m2, m3 = margins
    check_positive(what, 'm1', m1)
    _check_margin(what, 'angular margin', m2, math.pi, classes, 'Radians: 0.5 is 28.6 degrees')
    _check_margin(what, 'cosine margin', m3, math.inf, classes, 'CosFace has 0.35')


def _check_margin(
    what: str, argument: str, value: Margin, limit: float, classes: int, step: str
) -> None:
    if isinstance(value, Tensor):
        if value.shape == (classes,):
            return
        rule, step = f'have one value for each of {classes} classes', 'Pass a tensor (C,)'
        raise ValueError(message(what, argument, rule, tuple(value.shape), step))
    if isinstance(value, (int, float)) and 0 <= value < limit:
        return
    rule = f'be within [0, {limit:.4g})'
    raise ValueError(message(what, argument, rule, value, step))
