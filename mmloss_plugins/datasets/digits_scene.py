"""One whole picture: clutter, digits that overlap, camera noise, and the labels of the digits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from .digits_backdrop import backdrop, colour
from .digits_draw import FINE, FULL, Glyph, load_glyphs, place_glyph
from .digits_labels import label_of

MIN_OBJECTS, MAX_OBJECTS = 3, 8
MAX_TILT_DEG = 25
# Upright heights on a picture of 128 px, in 1/8 px.
_HEIGHTS = (16 * 8, 42 * 8)
_MIN_INSIDE_PERCENT, _MIN_VISIBLE_PERCENT = 80, 70
_MAX_ATTEMPTS, _SPOTS, _COLOURS = 200, 12, 16
# Brightness by which colours differ, and thousandths of the pixels that may differ less.
_CONTRAST, _FEW_ALIKE, _MAX_ALIKE = 60, 80, 350
_LUMA = np.array([114, 587, 299])  # of BGR, in thousandths


@dataclass(frozen=True)
class Scene:
    """One picture with its labels.

    Attributes:
        image: (size, size, 3) uint8, BGR.
        owner: (size, size) int64, the position in ``labels`` of the digit on top, or -1.
        labels: for each digit, in the order of drawing, COCO's ``category_id``, ``bbox``, ``area``,
            ``iscrowd`` and ``segmentation``, the ``extreme_points``, and ``glyph``, its index in
            scikit-learn's digits.
    """

    image: np.ndarray
    owner: np.ndarray
    labels: list[dict[str, Any]]


@lru_cache(maxsize=2)
def glyphs_of(split: str) -> np.ndarray:
    """Return the indices of scikit-learn's digits in 'train' or in 'val': each class's fifths."""
    classes = load_glyphs()[1]
    is_val = np.zeros(len(classes), dtype=bool)
    for digit in range(10):
        is_val[np.flatnonzero(classes == digit)[4::5]] = True
    return np.flatnonzero(is_val if split == 'val' else ~is_val)


def render_scene(rng: np.random.Generator, image_size: int, glyphs: np.ndarray) -> Scene:
    """Draw three to eight random digits out of ``glyphs``, indices (N,); see ``Scene``."""
    image = backdrop(rng, image_size)
    layout = Layout(image_size)
    chosen: list[int] = []
    wanted = int(rng.integers(MIN_OBJECTS, MAX_OBJECTS + 1))
    for _ in range(_MAX_ATTEMPTS):
        if len(chosen) == wanted:
            break
        index = int(glyphs[rng.integers(len(glyphs))])
        glyph = _random_glyph(rng, index, image_size)
        spot = layout.find_spot(rng, glyph)
        if spot is not None and _paint(rng, image, layout.owner, glyph, spot):
            layout.put(glyph, spot)
            chosen.append(index)
    classes = load_glyphs()[1]
    labels = [
        dict(category_id=int(classes[index]) + 1, **label_of(layout.owner == number), glyph=index)
        for number, index in enumerate(chosen)
    ]
    return Scene(image=_camera(rng, image), owner=layout.owner, labels=labels)


class Layout:
    """Who owns which pixel; keeps every digit visible enough to be read.

    Args:
        size (int): side of the picture in pixels.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.owner = np.full((size, size), -1, dtype=np.int64)
        self.full_areas: list[int] = []

    def find_spot(self, rng: np.random.Generator, glyph: Glyph) -> tuple[int, int] | None:
        """Return a random top left corner (y, x) at which nothing is hidden too much, or None."""
        height, width = glyph.mask.shape
        for _ in range(_SPOTS):
            top = int(rng.integers(-(height // 4), self.size - height + height // 4 + 1))
            left = int(rng.integers(-(width // 4), self.size - width + width // 4 + 1))
            if self.fits(glyph, (top, left)):
                return top, left
        return None

    def fits(self, glyph: Glyph, spot: tuple[int, int]) -> bool:
        """Tell whether the digit lies inside far enough and leaves the others visible enough."""
        window, part = _windows(self.size, glyph, spot)
        mask = glyph.mask[part]
        if 100 * mask.sum() < _MIN_INSIDE_PERCENT * glyph.mask.sum():
            return False
        # Entry 0 counts the pixels of nobody.
        owned = np.bincount(self.owner.ravel() + 1, minlength=len(self.full_areas) + 1)
        hidden = np.bincount(self.owner[window][mask] + 1, minlength=len(self.full_areas) + 1)
        visible = (owned - hidden)[1:]
        return bool((100 * visible >= _MIN_VISIBLE_PERCENT * np.array(self.full_areas)).all())

    def put(self, glyph: Glyph, spot: tuple[int, int]) -> None:
        """Lay a digit on top of all others."""
        window, part = _windows(self.size, glyph, spot)
        self.owner[window][glyph.mask[part]] = len(self.full_areas)
        self.full_areas.append(int(glyph.mask.sum()))


def _windows(
    size: int, glyph: Glyph, spot: tuple[int, int]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return the part of the picture that a glyph covers, and the part of the glyph inside."""
    starts = [max(corner, 0) for corner in spot]
    ends = [min(corner + side, size) for corner, side in zip(spot, glyph.mask.shape)]
    window, part = (
        tuple(slice(start - away, end - away) for start, end, away in zip(starts, ends, origin))
        for origin in ((0, 0), spot)
    )
    return window, part


def _random_glyph(rng: np.random.Generator, index: int, image_size: int) -> Glyph:
    low, high = (height * image_size // 128 for height in _HEIGHTS)
    return place_glyph(
        load_glyphs()[0][index],
        height=int(rng.integers(low, high + 1)),
        width_percent=int(rng.integers(85, 121)),
        angle=int(rng.integers(-MAX_TILT_DEG, MAX_TILT_DEG + 1)),
        offset=(int(rng.integers(FINE)), int(rng.integers(FINE))),
    )


def _paint(
    rng: np.random.Generator,
    image: np.ndarray,
    owner: np.ndarray,
    glyph: Glyph,
    spot: tuple[int, int],
) -> bool:
    """Paint a digit that stands out from what is below it; return False if no colour does."""
    window, part = _windows(len(image), glyph, spot)
    ink, body = glyph.ink[part][..., None], glyph.body[part][..., None]
    behind = image[window]
    fill = _contrasting(rng, _luma(behind), owner[window] >= 0)
    if fill is None:
        return False
    # A dark rim about a bright digit and the other way round parts digits that overlap.
    rim = fill * 2 // 5 if _luma(fill) > 127 else 255 - (255 - fill) * 2 // 5
    mixed = (FINE**2 - ink) * FULL * behind + ink * FULL * rim + body * (fill - rim)
    image[window] = mixed // (FINE**2 * FULL)
    return True


def _contrasting(
    rng: np.random.Generator, luma: np.ndarray, owned: np.ndarray
) -> np.ndarray | None:
    """Return a random colour that is brighter or darker than what is there; None if none is found.

    Args:
        rng: of the image.
        luma: (h, w), brightness behind the digit and about it.
        owned: (h, w) bool, the pixels of digits below it; they count as much as the clutter.
    """
    best, least = None, _MAX_ALIKE + 1
    for _ in range(_COLOURS):
        value, saturation = int(rng.integers(20, 256)), int(rng.integers(0, 101))
        candidate = colour(int(rng.integers(360)), saturation, value)
        alike = abs(luma - _luma(candidate)) < _CONTRAST
        share = sum(
            1000 * int(alike[where].sum()) // max(int(where.sum()), 1) for where in (owned, ~owned)
        )
        if share < least:
            best, least = candidate, share
        if share <= _FEW_ALIKE:
            break
    return best


def _luma(bgr: np.ndarray) -> np.ndarray:
    """Return the brightness, 0 to 255, of colours (..., 3)."""
    return (bgr * _LUMA).sum(axis=-1) // 1000


def _camera(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Return the picture with random contrast, exposure and sensor noise, as uint8."""
    gain, shift = int(rng.integers(85, 116)), int(rng.integers(-10, 11))
    grain = int(rng.integers(1, 6))
    noise = rng.integers(-grain, grain + 1, (2, *image.shape)).sum(axis=0)
    shot = (image - 128) * gain // 100 + 128 + shift + noise
    return np.clip(shot, 0, 255).astype(np.uint8)
