"""Where the cells of a map lie in the input image, and checks of the arguments of OffsetHeatmap."""

from __future__ import annotations

from numbers import Integral
from typing import NamedTuple

import numpy as np

from mmloss_plugins.errors import check_choice, message

from ._simcc_arguments import is_number, is_pair

WHAT = 'OffsetHeatmap'
ALIGNMENTS = ('auto', 'centers', 'corners')


class Grid(NamedTuple):
    """Cell ``i`` of an axis is centred on ``origin + i * step`` px; each is an array (x, y).

    The integer px ``i`` is the centre of pixel ``i``, so the image reaches from -0.5 to w - 0.5.
    """

    size: np.ndarray
    step: np.ndarray
    origin: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def centres(self, axis: int) -> np.ndarray:
        """Return the cell centres of an axis in px, shape (W,) or (H,), float32."""
        cells = np.arange(self.size[axis], dtype=np.float32)
        return np.float32(self.origin[axis]) + cells * np.float32(self.step[axis])


def make_grid(input_size: object, heatmap_size: object, align: str) -> Grid:
    """Return the grid of ``heatmap_size`` cells over ``input_size`` px, both (width, height).

    Raises:
        ValueError: sizes that are no positive whole numbers, an unknown ``align``, or an
            alignment that the sizes do not allow.
    """
    check_choice(WHAT, 'align', align, ALIGNMENTS)
    pixels = _check_size('input_size', input_size)
    cells = _check_size('heatmap_size', heatmap_size)
    corners = _is_corners(pixels, cells, align)
    if corners and (cells < 2).any():
        step = "Take a larger map or align='centers'"
        raise ValueError(
            message(WHAT, 'heatmap_size', "be at least 2 with align='corners'", heatmap_size, step)
        )
    step = (pixels - 1) / (cells - 1) if corners else pixels / cells
    origin = np.zeros(2) if corners else (step - 1) / 2
    return Grid(cells, step, origin, np.full(2, -0.5), pixels - 0.5)


def check_radius(radius_px: object, grid: Grid) -> float:
    """Return ``radius_px``; raise where a keypoint in the image could have no cell in its disk."""
    least = float(np.hypot(*grid.step) / 2)
    # Beyond the outermost cell centre a keypoint has but one neighbour along the axis.
    if is_number(radius_px) and radius_px >= least:  # type: ignore[operator]
        return float(radius_px)  # type: ignore[arg-type]
    rule = f'be a number of px >= {least:.4g}, half the diagonal of a cell'
    step = 'Take a larger radius or a larger heatmap_size, or keypoints between cells have no disk'
    raise ValueError(message(WHAT, 'radius_px', rule, repr(radius_px), step))


def _is_corners(pixels: np.ndarray, cells: np.ndarray, align: str) -> bool:
    if align != 'auto':
        return align == 'corners'
    if (pixels % cells == 0).all():
        return False
    if (cells > 1).all() and ((pixels - 1) % (cells - 1) == 0).all():
        return True
    rule = "divide input_size, or (input_size - 1) by (heatmap_size - 1), with align='auto'"
    got = f'{cells.tolist()} for input_size {pixels.tolist()}'
    step = "Pass align='centers' or align='corners'"
    raise ValueError(message(WHAT, 'heatmap_size', rule, got, step))


def _check_size(name: str, size: object) -> np.ndarray:
    if is_pair(size) and all(_is_count(value) for value in size):  # type: ignore[attr-defined]
        return np.array(size)
    rule = 'be two positive whole numbers, (width, height)'
    raise ValueError(message(WHAT, name, rule, repr(size), 'Take for example (192, 256)'))


def _is_count(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and value > 0
