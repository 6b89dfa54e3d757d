"""Cluttered pictures to put digits on, drawn in whole numbers: the same on every machine."""

from __future__ import annotations

import colorsys

import numpy as np

from .digits_draw import TURN_BITS, fixed_turn

_CLOUD_BITS = 8


def backdrop(rng: np.random.Generator, size: int) -> np.ndarray:
    """Return a picture (size, size, 3) int64 in BGR without a digit: shapes, soft edges, clouds."""
    hue, light = int(rng.integers(360)), int(rng.integers(40, 216))
    corners = np.stack([_muted(rng, hue, light) for _ in range(4)]).reshape(2, 2, 3)
    image = _stretched(corners, size)
    for _ in range(rng.integers(4, 10)):
        shape = _shape(rng, size)
        image[shape] = _muted(rng, hue + 60 * int(rng.integers(6)), light)
    for _ in range(rng.integers(1, 3)):
        image = _softened(image)
    for cells, strength in ((5, 12), (16, 8), (40, 5)):
        grid = rng.integers(-strength, strength + 1, (cells, cells, 1))
        image = image + _stretched(grid, size)
    return np.clip(image, 0, 255)


def colour(hue: int, saturation: int, value: int) -> np.ndarray:
    """Return a colour (3,) int64 in BGR from degrees, percent and 0..255."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 360 / 360, saturation / 100, value)
    return np.array([round(blue), round(green), round(red)], dtype=np.int64)


def _muted(rng: np.random.Generator, hue: int, light: int) -> np.ndarray:
    """Return a pale colour near ``hue`` (degrees) and brightness ``light``."""
    value = min(max(light + int(rng.integers(-36, 37)), 16), 245)
    return colour(hue + int(rng.integers(-30, 31)), int(rng.integers(5, 38)), value)


def _shape(rng: np.random.Generator, size: int) -> np.ndarray:
    """Return the pixels (size, size) bool of a disc, box, triangle, beam, or patch of tiles."""
    left, top = rng.integers(-size // 10, size + size // 10, 2)
    radius = int(rng.integers(size // 16, size // 4))
    x, y = np.arange(size)[None, :] - left, np.arange(size)[:, None] - top
    kind = rng.integers(5)
    if kind == 0:
        return x * x + y * y <= radius * radius
    cos, sin = fixed_turn(int(rng.integers(-90, 91)))
    along, across = (cos * x + sin * y) >> TURN_BITS, (cos * y - sin * x) >> TURN_BITS
    if kind == 1:
        return (abs(along) <= radius) & (abs(across) <= radius * int(rng.integers(40, 101)) // 100)
    if kind == 2:
        return (along >= -radius) & (2 * abs(across) <= radius - along)
    if kind == 3:
        return abs(across) <= radius // 5
    step = max(radius // int(rng.integers(2, 5)), 2)
    checks = along // step + across // step * int(rng.integers(2))
    return (abs(along) <= radius) & (abs(across) <= radius) & (checks % 2 == 1)


def _softened(image: np.ndarray) -> np.ndarray:
    """Return the image blurred by 1-2-1 in both directions."""
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode='edge')
    rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    return (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:] + 8) >> 4


def _stretched(grid: np.ndarray, size: int) -> np.ndarray:
    """Return a grid (n, m, C) of values, interpolated linearly to (size, size, C)."""
    return _stretched_rows(_stretched_rows(grid, size).swapaxes(0, 1), size).swapaxes(0, 1)


def _stretched_rows(grid: np.ndarray, size: int) -> np.ndarray:
    place = np.arange(size) * ((len(grid) - 1) << _CLOUD_BITS) // size
    first = place >> _CLOUD_BITS
    share = (place - (first << _CLOUD_BITS))[:, None, None]
    rest = (1 << _CLOUD_BITS) - share
    return (rest * grid[first] + share * grid[first + 1]) >> _CLOUD_BITS
