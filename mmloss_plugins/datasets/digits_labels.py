"""Labels of one object from the mask of its visible pixels: box, area, run lengths, extremes."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmloss_plugins.errors import message


def label_of(mask: np.ndarray) -> dict[str, Any]:
    """Return COCO's ``bbox``, ``area``, ``iscrowd``, ``segmentation``, and ``extreme_points``.

    Args:
        mask (np.ndarray): (H, W) bool, the visible pixels; at least one.

    Returns:
        dict: the box is [x, y, width, height] about whole pixels, from the left edge of the first
        to the right edge of the last one, where pixel i reaches from i to i + 1; the segmentation
        is run-length encoded, exact with its holes; see :func:`extreme_points` for those.

    Raises:
        ValueError: the mask has another shape or is empty.
    """
    from pycocotools import mask as run_lengths

    points = extreme_points(mask)
    (_, top), (left, _), (_, bottom), (right, _) = points
    encoded = run_lengths.encode(np.asfortranarray(mask, dtype=np.uint8))
    return dict(
        bbox=[int(left), int(top), int(right - left) + 1, int(bottom - top) + 1],
        area=int(np.count_nonzero(mask)),
        iscrowd=0,
        segmentation=dict(size=list(mask.shape), counts=encoded['counts'].decode('ascii')),
        extreme_points=points,
    )


def extreme_points(mask: np.ndarray, tolerance: float = 0.02) -> list[list[float]]:
    """Return the topmost, leftmost, bottommost and rightmost point of a mask.

    Where several neighbouring pixels are outermost, the point is the middle of their run. As in
    ExtremeNet's annotation script, a pixel counts as outermost if it lies at most ``tolerance``
    times the object's height (top, bottom) or width (left, right) further in; below 50 px that is
    the outermost row or column alone. Of several separate runs the longest counts, the first of
    equals. The script rounds the middle down to a whole pixel; here it may end in .5.

    Args:
        mask (np.ndarray): (H, W) bool, or numbers of which 0 is background; at least one pixel.
        tolerance (float): fraction of the object's side, 0 to 1.

    Returns:
        list: [[x, y]] * 4 in the order top, left, bottom, right. The integer i is the centre of
        pixel i: add 0.5 for the coordinates of COCO's boxes, in which pixel i reaches from i to
        i + 1.

    Raises:
        ValueError: the mask has another shape or is empty, or the tolerance is out of range.

    Example:
        >>> mask = np.zeros((5, 6), bool)
        >>> mask[1, 2:4] = mask[2:4, 1:5] = True
        >>> extreme_points(mask)
        [[2.5, 1.0], [1.0, 2.5], [2.5, 3.0], [4.0, 2.5]]
    """
    _check(mask, tolerance)
    rows, columns = np.nonzero(mask)
    top, left = int(rows.min()), int(columns.min())
    object_ = np.asarray(mask, dtype=bool)[top : rows.max() + 1, left : columns.max() + 1]
    bottom, right = top + object_.shape[0] - 1, left + object_.shape[1] - 1
    depth_y, depth_x = (int(tolerance * side) for side in object_.shape)
    upright = object_.T
    return [
        [left + _middle_of_run(object_[: depth_y + 1]), float(top)],
        [float(left), top + _middle_of_run(upright[: depth_x + 1])],
        [left + _middle_of_run(object_[::-1][: depth_y + 1]), float(bottom)],
        [float(right), top + _middle_of_run(upright[::-1][: depth_x + 1])],
    ]


def _middle_of_run(band: np.ndarray) -> float:
    """Return the middle of the longest run of columns that has a pixel in the first row."""
    used = np.concatenate([[False], band.any(axis=0), [False]]).astype(np.int8)
    starts, ends = np.flatnonzero(np.diff(used) == 1), np.flatnonzero(np.diff(used) == -1)
    lengths = [end - start if band[0, start:end].any() else 0 for start, end in zip(starts, ends)]
    longest = int(np.argmax(lengths))
    return float(starts[longest] + ends[longest] - 1) / 2


def _check(mask: np.ndarray, tolerance: float) -> None:
    what = 'extreme_points'
    if not 0 <= tolerance <= 1:
        step = 'ExtremeNet takes 0.02'
        raise ValueError(message(what, 'tolerance', 'be from 0 to 1', tolerance, step))
    if np.ndim(mask) != 2:
        step = 'Pass the mask of one object'
        raise ValueError(message(what, 'mask', 'have shape (H, W)', np.shape(mask), step))
    if not np.any(mask):
        step = 'Leave out objects that are not visible'
        raise ValueError(message(what, 'mask', 'have a pixel that is set', 'none', step))
