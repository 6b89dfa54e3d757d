"""One form for every error text of the package, so that each says what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any


def message(what: str, argument: str, rule: str, got: object, next_step: str) -> str:
    """Return ``{what}: {argument} must {rule}, got {got}. {next_step}.``"""
    end = '' if next_step.endswith(('.', '?')) else '.'
    return f'{what}: {argument} must {rule}, got {got}. {next_step}{end}'


def check_choice(what: str, argument: str, value: object, choices: Iterable[str]) -> None:
    """Refuse a ``value`` that is not one of ``choices``.

    Raises:
        ValueError: names the argument, the choices and, for a near miss, the likely one.
    """
    choices = list(choices)
    if value in choices:
        return
    rule = 'be one of ' + ', '.join(repr(choice) for choice in choices)
    raise ValueError(message(what, argument, rule, repr(value), _suggest(str(value), choices)))


def refuse_unknown(what: str, unknown: Mapping[str, Any], known: Iterable[str]) -> None:
    """Refuse keyword arguments that nobody reads: a typo in a config must not be silent.

    Raises:
        TypeError: names the first unknown argument, the known ones and the likely one.
    """
    if not unknown:
        return
    known = list(known)
    name = next(iter(unknown))
    rule = 'be one of ' + ', '.join(known)
    raise TypeError(message(what, 'argument', rule, repr(name), _suggest(name, known)))


def _suggest(value: str, choices: list[str]) -> str:
    close = difflib.get_close_matches(value, choices, n=1)
    return f'Did you mean {close[0]!r}?' if close else 'Remove it or take one of these'
