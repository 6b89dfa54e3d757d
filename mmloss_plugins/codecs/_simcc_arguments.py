"""Checks of the arguments of SimCCLabel, made when a config is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

from mmloss_plugins.errors import check_choice, message, refuse_unknown

WHAT = 'SimCCLabel'
ARGUMENTS = (
    'input_size',
    'smoothing_type',
    'sigma',
    'simcc_split_ratio',
    'label_smooth_weight',
    'normalize',
    'use_dark',
    'decode_visibility',
    'decode_beta',
    'decode_mode',
    'beta',
)
# Three bins are the smallest neighbourhood of a peak.
MIN_BINS = 3


def check_options(
    unknown: Mapping[str, Any], smoothing_type: str, decode_mode: str, label_smooth_weight: float
) -> None:
    """Refuse unknown arguments, unknown modes and a smoothing weight that would do nothing."""
    refuse_unknown(WHAT, unknown, ARGUMENTS)
    check_choice(WHAT, 'smoothing_type', smoothing_type, ('gaussian', 'standard'))
    check_choice(WHAT, 'decode_mode', decode_mode, ('expectation', 'argmax'))
    name = 'label_smooth_weight'
    if not is_number(label_smooth_weight) or not 0 <= label_smooth_weight <= 1:
        next_step = 'Take a small value such as 0.1'
        raise ValueError(message(WHAT, name, 'be in [0, 1]', repr(label_smooth_weight), next_step))
    if smoothing_type == 'gaussian' and label_smooth_weight > 0:
        rule = "be 0 with smoothing_type='gaussian'"
        next_step = "Set smoothing_type='standard' or remove it"
        raise ValueError(message(WHAT, name, rule, label_smooth_weight, next_step))


def is_number(value: object) -> bool:
    """Whether ``value`` is a finite real number and not a bool."""
    return isinstance(value, Real) and not isinstance(value, bool) and bool(np.isfinite(value))


def check_number(name: str, value: object) -> float:
    """Return ``value``; raise unless it is a finite number > 0."""
    if not is_number(value):
        raise TypeError(message(WHAT, name, 'be a finite number', repr(value), 'Pass a number'))
    if value <= 0:  # type: ignore[operator]
        raise ValueError(message(WHAT, name, 'be > 0', repr(value), 'Take a positive number'))
    return value  # type: ignore[return-value]


def check_flag(name: str, value: object) -> bool:
    """Return ``value``; raise unless it is True or False, since the text 'False' is true."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(message(WHAT, name, 'be True or False', repr(value), 'Pass a bool'))
    return bool(value)


def pair_of_sigmas(sigma: object, smallest: float) -> np.ndarray:
    """Return the sigmas of x and y in bins, shape (2,), each at least ``smallest``."""
    pair = [sigma, sigma] if isinstance(sigma, Real) else sigma
    if not is_pair(pair) or not all(is_number(value) for value in pair):
        rule = 'be a number of bins or two, (x, y)'
        raise ValueError(message(WHAT, 'sigma', rule, repr(sigma), 'Take 6.0 or (4.9, 5.66)'))
    if min(pair) >= smallest:
        return np.array(pair, dtype=np.float64)
    rule = f'be at least {smallest:g} bins' + (' with use_dark=True' if smallest > 0.1 else '')
    narrow = "Take a wider Gaussian, or smoothing_type='standard' for a label without width"
    dark = "Take a wider Gaussian, or use_dark=False with decode_mode='expectation'"
    next_step = dark if smallest > 0.1 else narrow
    raise ValueError(message(WHAT, 'sigma', rule, repr(sigma), next_step))


def is_pair(value: Any) -> bool:
    """Whether ``value`` is a tuple, list or array of two."""
    return (
        isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, str) and len(value) == 2
    )


def count_bins(input_size: object, ratio: float) -> np.ndarray:
    """Return the number of bins along x and y, shape (2,), int64.

    Raises:
        ValueError: a size that is no positive whole number, or no whole number of bins.
    """
    name = 'input_size'
    if not is_pair(input_size) or not all(_is_size(size) for size in input_size):  # type: ignore[attr-defined]
        rule = 'be two positive whole numbers of px, (width, height)'
        raise ValueError(message(WHAT, name, rule, repr(input_size), 'Take for example (192, 256)'))
    return np.array([_bins_along(size, ratio) for size in input_size])  # type: ignore[attr-defined]


def _is_size(size: object) -> bool:
    return isinstance(size, Integral) and not isinstance(size, bool) and size > 0


def _bins_along(size: int, ratio: float) -> int:
    exact = size * ratio
    bins = round(exact)
    # MMPose's head truncates and its codec rounds: on a fraction the two disagree.
    if abs(exact - bins) > 1e-6 or int(exact) != bins:
        rule = 'times simcc_split_ratio be a whole number of bins'
        got = f'{size} x {ratio:g} = {exact!r}'
        next_step = f'Change input_size or simcc_split_ratio, for example to {bins / size!r}'
        raise ValueError(message(WHAT, 'input_size', rule, got, next_step))
    if bins < MIN_BINS:
        rule = f'times simcc_split_ratio be at least {MIN_BINS} bins'
        got = f'{size} x {ratio:g} = {bins}'
        raise ValueError(message(WHAT, 'input_size', rule, got, 'Take a larger input_size'))
    return int(bins)
