"""Numbers of a config that may follow a schedule: weights of losses, margins of heads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, Union

from mmengine.logging import MessageHub

from mmloss_plugins.errors import check_choice, message, refuse_unknown

Schedulable = Union[float, Mapping[str, Any]]


@dataclass(frozen=True)
class Linear:
    """From ``start`` at epoch or iteration ``begin`` to ``stop`` at ``end``, constant outside."""

    start: float
    stop: float
    end: int
    begin: int = 0
    by_epoch: bool = True

    def check(self, what: str, name: str) -> None:
        """Refuse what is no schedule."""
        _check_numbers(what, f'start and stop of {name}', (self.start, self.stop))
        _check_steps(what, f'begin and end of {name}', (self.begin, self.end))

    def values_reached(self) -> tuple[float, ...]:
        """Return values between which all others lie."""
        return (self.start, self.stop)

    def at(self, step: int) -> float:
        """Return the value at an epoch or iteration."""
        share = (step - self.begin) / (self.end - self.begin)
        share = min(max(share, 0.0), 1.0)
        return (1 - share) * self.start + share * self.stop


@dataclass(frozen=True)
class Step:
    """``values[0]``, and from ``milestones[i]`` on ``values[i + 1]``."""

    values: Sequence[float]
    milestones: Sequence[int]
    by_epoch: bool = True

    def check(self, what: str, name: str) -> None:
        """Refuse what is no schedule."""
        _check_numbers(what, f'values of {name}', self.values)
        _check_steps(what, f'milestones of {name}', self.milestones)
        if len(self.values) != len(self.milestones) + 1:
            rule = f'be one more than the {len(self.milestones)} milestones'
            step = 'Begin with the value before the first milestone'
            raise ValueError(message(what, f'values of {name}', rule, self.values, step))

    def values_reached(self) -> tuple[float, ...]:
        """Return values between which all others lie."""
        return tuple(self.values)

    def at(self, step: int) -> float:
        """Return the value at an epoch or iteration."""
        return float(self.values[sum(step >= milestone for milestone in self.milestones)])


Schedule = Union[float, Linear, Step]
SCHEDULES: dict[str, type[Linear] | type[Step]] = {'linear': Linear, 'step': Step}


def build_schedule(
    what: str, name: str, value: Schedulable, argument: str | None = None
) -> Schedule:
    """Return a number as a float, the config of a schedule as :class:`Linear` or :class:`Step`.

    Args:
        what: name of the class, for the error text.
        name: what the number is of, for the error text of a schedule.
        value: a number; ``dict(type='linear', start=0.0, stop=1.0, begin=0, end=10)``; or
            ``dict(type='step', values=[1.0, 0.5], milestones=[10])``; both with
            ``by_epoch=False`` to count iterations.
        argument: name of a plain number in the error text; ``name`` where none is given.

    Raises:
        TypeError: no number, or an unknown option.
        ValueError: an unknown type, steps that do not grow, or a missing option.

    Example:
        >>> build_schedule('Head', 'margin', dict(type='linear', start=0.0, stop=0.5, end=10)).at(4)
        0.2
    """
    if not isinstance(value, Mapping):
        if not _is_number(value):
            raise TypeError(_no_number(what, argument or name, value))
        return float(value)
    options = dict(value)
    kind = options.pop('type', None)
    check_choice(what, f'type of the schedule of {name}', kind, SCHEDULES)
    known = fields(SCHEDULES[kind])
    names = [field.name for field in known]
    refuse_unknown(what, {key: options[key] for key in options if key not in names}, names)
    for field in known:
        if field.default is MISSING and field.name not in options:
            rule, step = f'be given for a {kind} schedule', f'See the docstring of {what}'
            raise ValueError(message(what, f'{field.name} of {name}', rule, 'none', step))
    by_epoch = options.get('by_epoch', True)
    if not isinstance(by_epoch, bool):
        rule, step = 'be True or False', 'False counts iterations'
        raise TypeError(message(what, f'by_epoch of {name}', rule, repr(by_epoch), step))
    schedule = SCHEDULES[kind](**options)
    schedule.check(what, name)
    return schedule


def value_at(schedule: Schedule) -> float:
    """Return the number at the runner's current epoch or iteration, those at 0 without a runner."""
    if isinstance(schedule, float):
        return schedule
    hub = MessageHub.get_current_instance()
    return schedule.at(int(hub.get_info('epoch' if schedule.by_epoch else 'iter', 0)))


def _check_numbers(what: str, argument: str, values: Any) -> None:
    if isinstance(values, (list, tuple)) and all(_is_number(value) for value in values):
        return
    raise TypeError(_no_number(what, argument, values))


def _no_number(what: str, argument: str, value: Any) -> str:
    rule, step = 'be a number or a schedule', f'See the docstring of {what}'
    return message(what, argument, rule, repr(value), step)


def _check_steps(what: str, argument: str, steps: Any) -> None:
    whole = isinstance(steps, (list, tuple)) and all(type(step) is int for step in steps)
    if not whole or any(later <= earlier for earlier, later in zip(steps, steps[1:])):
        rule, step = 'be whole numbers that grow', 'They count epochs, or iterations'
        raise ValueError(message(what, argument, rule, repr(steps), step))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
