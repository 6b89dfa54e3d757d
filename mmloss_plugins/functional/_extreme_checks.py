"""What ExtremeNet's decode accepts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Union

from torch import Tensor

from mmloss_plugins.errors import message
from mmloss_plugins.functional.debug import value_checks_enabled

WHAT = 'extreme_decode'
SIDES = ('top', 'left', 'bottom', 'right')
FourMaps = Union[Tensor, Sequence[Tensor]]


def check_decode_options(**options: Any) -> None:
    """Refuse numbers outside their range.

    Raises:
        ValueError: ``top_k`` or ``num_dets`` is no positive whole number, or a threshold or
            ``aggr_weight`` is outside [0, 1].
    """
    for name in ('top_k', 'num_dets'):
        number = options[name]
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            step = 'The authors take top_k=40 and num_dets=1000'
            raise ValueError(message(WHAT, name, 'be a whole number >= 1', repr(number), step))
    for name in ('score_thr', 'center_thr', 'aggr_weight'):
        if not 0 <= options[name] <= 1:
            step = 'The authors take 0.1'
            raise ValueError(message(WHAT, name, 'be within [0, 1]', options[name], step))


def check_decode_maps(
    extreme_probs: FourMaps, center_probs: Tensor, offsets: FourMaps | None
) -> None:
    """Refuse maps that do not belong together; under value checks also what is no probability.

    Raises:
        ValueError: names the first map that does not fit.
    """
    _check_center(center_probs)
    batch, classes, height, width = center_probs.shape
    shapes = [(batch, classes, height, width), (batch, 1, height, width)]
    _check_four('extreme_probs', extreme_probs, shapes[: 1 if classes == 1 else 2])
    if len({probs.shape for probs in extreme_probs}) > 1:
        got = [tuple(probs.shape) for probs in extreme_probs]
        step = 'Make all four class-agnostic or none'
        raise ValueError(message(WHAT, 'extreme_probs', 'have one shape', got, step))
    if offsets is not None:
        _check_four('offsets', offsets, [(batch, 2, height, width)])
    if value_checks_enabled():
        _check_values(extreme_probs, center_probs)


def _check_center(center_probs: Tensor) -> None:
    if center_probs.dim() != 4 or 0 in center_probs.shape[1:]:
        rule, step = 'have the shape (B, C, H, W)', 'Pass the centre map of the last stack'
        raise ValueError(message(WHAT, 'center_probs', rule, tuple(center_probs.shape), step))


def _check_four(argument: str, maps: FourMaps, shapes: Sequence[tuple[int, ...]]) -> None:
    if len(maps) != len(SIDES):
        step = 'Pass them in the order top, left, bottom, right'
        raise ValueError(message(WHAT, argument, 'be four maps', len(maps), step))
    for side, one in zip(SIDES, maps):
        if tuple(one.shape) not in shapes:
            rule = 'have the shape ' + ' or '.join(str(shape) for shape in shapes)
            step = 'Compare it with center_probs'
            raise ValueError(message(WHAT, f'{argument} ({side})', rule, tuple(one.shape), step))


def _check_values(extreme_probs: FourMaps, center_probs: Tensor) -> None:
    names = [f'extreme_probs ({side})' for side in SIDES]
    for name, probs in zip([*names, 'center_probs'], [*extreme_probs, center_probs]):
        bad = ~((probs >= 0) & (probs <= 1))
        if bad.any():
            index = tuple(bad.nonzero()[0].tolist())
            got = f'{probs[index].item():g} at index {index}'
            step = 'Apply the sigmoid to the logits'
            raise ValueError(message(WHAT, name, 'be within [0, 1]', got, step))
