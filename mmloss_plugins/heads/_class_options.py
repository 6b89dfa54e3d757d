"""Checks of the options of the heads that own class weights."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmloss_plugins import functional as F
from mmloss_plugins.errors import check_choice, message
from mmloss_plugins.functional._margin_checks import check_margins, check_positive
from mmloss_plugins.losses.schedules import Schedule, build_schedule

WEIGHT_INITS = ('xavier', 'circle')


def arguments_of(head: type, base: type) -> list[str]:
    """Return the names of the arguments of the constructors from ``head`` up to ``base``."""
    names: dict[str, None] = {}
    for cls in head.__mro__:
        for name, parameter in inspect.signature(cls.__init__).parameters.items():
            if name != 'self' and parameter.kind is not inspect.Parameter.VAR_KEYWORD:
                names[name] = None
        if cls is base:
            break
    return list(names)


def check_counts(what: str, step: str, **counts: Any) -> None:
    """Refuse counts that are no positive integers.

    Raises:
        ValueError: names the argument.
    """
    for argument, value in counts.items():
        if type(value) is not int or value < 1:
            raise ValueError(message(what, argument, 'be a positive integer', repr(value), step))


def check_switches(what: str, **switches: Any) -> None:
    """Refuse switches that are no bools.

    Raises:
        TypeError: names the argument.
    """
    for argument, value in switches.items():
        if not isinstance(value, bool):
            step = f'See the docstring of {what}'
            raise TypeError(message(what, argument, 'be True or False', repr(value), step))


def first_weight(
    what: str, num_classes: int, num_subcenters: int, in_channels: int, init: str
) -> Tensor:
    """Return class weights, (C, D), or (C, K, D) with more than one sub-centre.

    Raises:
        ValueError: an unknown ``init``, or a circle in other than two dimensions.
    """
    check_choice(what, 'weight_init', init, WEIGHT_INITS)
    rows = num_classes * num_subcenters
    if init == 'circle':
        if in_channels != 2:
            step = "Take weight_init='xavier'"
            rule = "be 2 with weight_init='circle'"
            raise ValueError(message(what, 'in_channels', rule, in_channels, step))
        weight = F.circle_directions(num_classes).repeat_interleave(num_subcenters, 0)
        # Of equal sub-centres the first alone would get a gradient.
        weight = weight + 0.01 * torch.randn(rows, 2) if num_subcenters > 1 else weight
    else:
        weight = nn.init.xavier_uniform_(torch.empty(rows, in_channels))
    if num_subcenters == 1:
        return weight
    return weight.reshape(num_classes, num_subcenters, in_channels)


def scale_of(what: str, scale: Any, num_classes: int) -> float:
    """Return the scale as a number; 'auto' is that of AdaCos.

    Raises:
        ValueError: neither a positive number nor 'auto', or 'auto' for fewer than 3 classes.
    """
    if not isinstance(scale, str):
        check_positive(what, 'scale', scale)
        return float(scale)
    check_choice(what, 'scale', scale, ('auto',))
    return F.adacos_scale(num_classes)


def margin_of(
    what: str, margin: Any, num_classes: int, cosine_margin: Any, angle_factor: Any, rule: str
) -> Schedule | Tensor:
    """Return a margin as a number, a schedule, or a tensor (C,) of one for each class.

    Raises:
        TypeError: no number, schedule or sequence of numbers.
        ValueError: a value out of range, or another number of values than of classes.
    """
    schedule: Schedule | Tensor
    if isinstance(margin, Sequence) and not isinstance(margin, str):
        _check_per_class(what, margin, num_classes)
        values: Sequence[Any] = margin
        schedule = torch.tensor(list(margin), dtype=torch.float32)
    else:
        schedule = build_schedule(what, 'margin', margin)
        values = (schedule,) if isinstance(schedule, float) else schedule.values_reached()
    for value in values:
        check_margins(what, num_classes, 1.0, (angle_factor, value, cosine_margin), rule)
    return schedule


def check_loss(what: str, loss: Any) -> None:
    """Refuse what is no config of a loss.

    Raises:
        TypeError: neither a mapping with a type, nor a module.
    """
    if isinstance(loss, nn.Module) or (isinstance(loss, Mapping) and 'type' in loss):
        return
    step = "Pass dict(type='mmloss_plugins.LabelSmoothLoss', smoothing=0.1)"
    raise TypeError(message(what, 'loss', 'be the config of a loss', repr(loss), step))


def check_all_logits(what: str, chunk_size: int | None, sample_rate: float) -> None:
    """Refuse what leaves logits out beside a loss on logits.

    Raises:
        ValueError: names the argument.
    """
    for argument, value, off in (
        ('chunk_size', chunk_size, None),
        ('sample_rate', sample_rate, 1),
    ):
        if value != off:
            rule, step = f'be {off} with a loss on logits', 'Leave one of the two out'
            raise ValueError(message(what, argument, rule, value, step))


def check_shards(what: str, loss: Any, sample_rate: float) -> None:
    """Refuse what needs all classes on one rank, or draws them, beside ``shard_classes``.

    Raises:
        ValueError: names the argument.
    """
    for argument, value, off in (('loss', loss, None), ('sample_rate', sample_rate, 1)):
        if value != off:
            rule, step = f'be {off} with shard_classes=True', 'Leave one of the two out'
            raise ValueError(message(what, argument, rule, value, step))


def _check_per_class(what: str, margin: Sequence[Any], num_classes: int) -> None:
    if len(margin) != num_classes:
        rule = f'have one value for each of {num_classes} classes'
        step = 'Give one number for all, or one per class'
        raise ValueError(message(what, 'margin', rule, len(margin), step))
    if not all(isinstance(value, (int, float)) and math.isfinite(value) for value in margin):
        step = 'Give one number per class'
        raise TypeError(message(what, 'margin', 'hold numbers', repr(margin), step))
