"""Switch for the value checks that cost a host-device sync (NaN labels, negative mass)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_enabled = os.environ.get('MMLOSS_DEBUG', '0') not in ('', '0')


def value_checks_enabled() -> bool:
    """Whether losses inspect the values of their input; never inside a compiled graph."""
    return _enabled and not is_compiling()


def is_compiling() -> bool:
    """Whether ``torch.compile`` is tracing; torch 2.0 has no ``torch.compiler`` to ask."""
    compiler = getattr(torch, 'compiler', None)
    return compiler is not None and compiler.is_compiling()


@contextmanager
def value_checks(enabled: bool = True) -> Iterator[None]:
    """Switch the value checks on (or off) inside a ``with`` block.

    They read values back to the host, so they are off by default; the environment variable
    ``MMLOSS_DEBUG=1`` switches them on for a whole run. The functions do not see weights, so a
    bad label raises even where its weight is zero.

    Example:
        >>> import torch
        >>> from mmloss_plugins.functional import kl_discret, value_checks
        >>> bad = torch.full((1, 4), float('nan'))
        >>> with value_checks():
        ...     kl_discret(torch.zeros(1, 4), bad)
        Traceback (most recent call last):
        ...
        ValueError: kl_discret: target must be finite, got nan at index (0, 0). Look for a NaN \
coordinate in the annotation of that sample.
    """
    global _enabled
    before, _enabled = _enabled, enabled
    try:
        yield
    finally:
        _enabled = before
