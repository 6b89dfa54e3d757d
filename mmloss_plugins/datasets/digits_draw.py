"""Scikit-learn's digits, enlarged and turned in whole numbers: the same pixels on every machine.

Conventions: the integer i is the centre of pixel i. ``FINE`` x ``FINE`` samples make up a pixel;
fine coordinate ``FINE * i`` is the centre of pixel i.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from mmloss_plugins.errors import message

FINE = 3
FULL = 255
TURN_BITS = 12

_SIDE = 8  # of scikit-learn's glyphs, whose values go from 0 to 16
_MARGIN = 2  # empty cells about a glyph, into which its outline bulges
_PHASES = 16  # samples per cell of the enlarged glyph
_UNIT = 2 * (2 * _PHASES) ** 3  # of the weights that enlarge it
# Levels of the enlarged glyph, of 256: where ink begins, and where it has its full colour.
_INK, _FULL = 96, 200


@dataclass(frozen=True)
class Glyph:
    """A digit as it lies in the picture, on a patch of its own.

    Attributes:
        ink: (h, w) int64, how many fine samples of each pixel it covers, 0 to ``FINE**2``.
        body: (h, w) int64, its colour from the rim's to its own, summed over these samples,
            0 to ``FULL * FINE**2``.
        mask: (h, w) bool, the pixels of which it covers at least half.
    """

    ink: np.ndarray
    body: np.ndarray
    mask: np.ndarray


@lru_cache(maxsize=1)
def load_glyphs() -> tuple[np.ndarray, np.ndarray]:
    """Return scikit-learn's digits: (1797, 8, 8) int64 in 0..16, and their classes (1797,)."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        step = 'Install it: pip install scikit-learn'
        raise ImportError(
            message('generate_digits', 'scikit-learn', 'be installed', 'no such package', step)
        ) from error
    digits = load_digits()
    return digits.images.astype(np.int64), digits.target.astype(np.int64)


def place_glyph(
    glyph: np.ndarray, height: int, width_percent: int, angle: int, offset: tuple[int, int]
) -> Glyph:
    """Enlarge and turn a glyph of 8 x 8 cells.

    Args:
        glyph: (8, 8) integers, 0 to 16.
        height: of the upright ink, in 1/8 px.
        width_percent: width over what the glyph's own shape gives, in percent.
        angle: degrees, clockwise in the picture, -180 to 180.
        offset: right and down in fine samples, where among them the centre falls.
    """
    level = _enlarged(glyph)
    rows = np.flatnonzero((level >= _INK).any(axis=1))
    columns = np.flatnonzero((level >= _INK).any(axis=0))
    ink_height, ink_width = int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1
    # Samples of the enlarged glyph per fine sample of the picture, with TURN_BITS binary places.
    step_y = (ink_height << (TURN_BITS + 3)) // (FINE * height)
    step_x = step_y * 100 // width_percent
    # Half the sum of the ink's sides in whole pixels holds it at any angle.
    reach = ((ink_height << TURN_BITS) // step_y + (ink_width << TURN_BITS) // step_x) // (
        2 * FINE
    ) + 2
    fine = np.arange(-FINE * reach - FINE // 2, FINE * reach + FINE // 2 + 1)
    x, y = (fine - offset[0])[None, :], (fine - offset[1])[:, None]
    cos, sin = fixed_turn(angle)
    from_left = (cos * step_x >> TURN_BITS) * x + (sin * step_x >> TURN_BITS) * y >> TURN_BITS
    from_top = (cos * step_y >> TURN_BITS) * y - (sin * step_y >> TURN_BITS) * x >> TURN_BITS
    last = len(level) - 1
    # The outermost samples of the enlarged glyph are empty: whatever lies beyond may read them.
    sampled = level[
        np.clip(from_top + (rows[0] + rows[-1] + 1) // 2, 0, last),
        np.clip(from_left + (columns[0] + columns[-1] + 1) // 2, 0, last),
    ]
    ink = _per_pixel(sampled >= _INK)
    body = _per_pixel(np.clip((sampled - _INK) * FULL // (_FULL - _INK), 0, FULL))
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    window = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    ink, body = ink[window], body[window]
    return Glyph(ink=ink, body=body, mask=2 * ink > FINE**2)


def fixed_turn(angle: int) -> tuple[int, int]:
    """Return the cosine and sine of ``angle`` degrees times ``1 << TURN_BITS``, rounded.

    Rounded to 12 bits they are the same whatever the last bit of a machine's own sine.
    """
    turn = math.radians(angle)
    return round(math.cos(turn) * (1 << TURN_BITS)), round(math.sin(turn) * (1 << TURN_BITS))


def _per_pixel(fine: np.ndarray) -> np.ndarray:
    """Return the sum over the fine samples of each pixel."""
    height, width = fine.shape
    return fine.reshape(height // FINE, FINE, width // FINE, FINE).sum(axis=(1, 3), dtype=np.int64)


def _enlarged(glyph: np.ndarray) -> np.ndarray:
    """Return a glyph (8, 8) sampled ``_PHASES`` times per cell, in levels of which 256 is full."""
    weights = _cubic_weights()
    return weights @ np.pad(glyph, _MARGIN) @ weights.T * 16 // _UNIT**2


@lru_cache(maxsize=1)
def _cubic_weights() -> np.ndarray:
    """Return the matrix that interpolates cell centres by Catmull and Rom's cubic, times _UNIT."""
    cells, cell = _SIDE + 2 * _MARGIN, 2 * _PHASES
    # Twice the position, so that the centres of cells and of samples are whole numbers.
    samples = 2 * np.arange(cells * _PHASES) + 1
    centres = cell * np.arange(cells) + _PHASES
    t = np.abs(samples[:, None] - centres)
    near = 3 * t**3 - 5 * t**2 * cell + 2 * cell**3
    far = -(t**3) + 5 * t**2 * cell - 8 * t * cell**2 + 4 * cell**3
    return np.where(t < cell, near, np.where(t < 2 * cell, far, 0))
