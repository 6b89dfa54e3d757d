"""Transforms for the pipelines of MMDetection: extreme points from masks."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform

from mmloss_plugins.errors import check_choice, message, refuse_unknown
from mmloss_plugins.registry import TRANSFORMS

KEY = 'gt_extreme_points'
SOURCES = ('masks', 'boxes')


@TRANSFORMS.register_module()
class AddExtremePoints(BaseTransform):
    """Find the top, left, bottom and right point of each object for ExtremeNet.

    Put it behind everything that moves pixels, right before ``PackExtremePoints``: it reads the
    masks as the transforms left them, so that flips, resizes and crops need no support for
    points::

        dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
        dict(type='RandomFlip', prob=0.5),
        dict(type='mmloss_plugins.AddExtremePoints'),
        dict(type='mmloss_plugins.PackExtremePoints'),

    Where an edge is nearly flat, any of its points would do; the middle is taken of all that lie
    within ``tolerance`` of the extreme one and are connected with it, along the polygon or by
    neighbouring columns (rows) of the bitmap. Coordinates are those of the boxes: pixel i covers
    [i, i + 1), the bottom and right points lie on the far side of their pixel. Where mask and box
    disagree, the mask counts; an object whose mask is empty gets the points of its box, the
    middles of the four edges. (MMDetection's ``LoadAnnotations`` ends at an object without
    'segmentation' with ``KeyError: 'mask'``. Annotate it with the four corners of its box, which
    gives the same points.)

    Required Keys:

        - gt_masks, for ``source='masks'``: BitmapMasks or PolygonMasks
        - gt_bboxes: (N, 4) or boxes with a ``tensor`` of that shape

    Added Keys:

        - gt_extreme_points: (N, 4, 2) float32, x and y of top, left, bottom, right in px

    Args:
        source (str): 'masks'; or 'boxes' for data without masks: the middles of the edges, which
            lie on the object only by chance. Defaults to 'masks'
        tolerance (float): Fraction of the height (width) of the object, in [0, 1). Defaults to
            0.02, as the authors have it

    Raises:
        TypeError: an unknown argument.
        ValueError: an argument outside its range; in use, no masks, or not one per box.
    """

    def __init__(self, source: str = 'masks', tolerance: float = 0.02, **unknown: Any) -> None:
        super().__init__()
        what = type(self).__name__
        refuse_unknown(what, unknown, ('source', 'tolerance'))
        check_choice(what, 'source', source, SOURCES)
        if isinstance(tolerance, bool) or not isinstance(tolerance, Real) or not 0 <= tolerance < 1:
            step = 'The authors take 0.02'
            raise ValueError(message(what, 'tolerance', 'be within [0, 1)', repr(tolerance), step))
        self.source = source
        self.tolerance = float(tolerance)

    def transform(self, results: dict) -> dict:
        """Return ``results`` with ``gt_extreme_points``."""
        points = box_points(_boxes(type(self).__name__, results))
        if self.source == 'masks':
            for index, mask in enumerate(_masks(type(self).__name__, results, len(points))):
                found = mask_points(mask, self.tolerance)
                if found is not None:
                    points[index] = found
        results[KEY] = points
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(source={self.source!r}, tolerance={self.tolerance})'


@TRANSFORMS.register_module()
class PackExtremePoints(BaseTransform):
    """MMDetection's ``PackDetInputs``, which also packs the extreme points.

    They are ``gt_instances.extreme_points`` of the sample, (N, 4, 2) float32, and those of the
    ignored boxes ``ignored_instances.extreme_points``. MMDetection's ``BatchSyncRandomResize``,
    which resizes images and boxes after this, leaves them behind.

    Required Keys:

        - gt_extreme_points, from ``AddExtremePoints``, beside what ``PackDetInputs`` reads

    Args:
        meta_keys (Sequence[str], optional): That of ``PackDetInputs``. Defaults to None: its own

    Raises:
        TypeError: an unknown argument.
        ModuleNotFoundError: MMDetection is not installed.
        ValueError: in use, no points, or not one set per box.
    """

    def __init__(self, meta_keys: Sequence[str] | None = None, **unknown: Any) -> None:
        super().__init__()
        refuse_unknown(type(self).__name__, unknown, ('meta_keys',))
        from mmdet.datasets.transforms import PackDetInputs

        self.pack = PackDetInputs() if meta_keys is None else PackDetInputs(meta_keys=meta_keys)

    def transform(self, results: dict) -> dict:
        """Return the packed inputs and data sample."""
        what = type(self).__name__
        points = results.get(KEY)
        if points is None:
            step = 'Put AddExtremePoints right before it'
            raise ValueError(message(what, 'results', f'have {KEY!r}', sorted(results), step))
        boxes = len(_boxes(what, results))
        if len(points) != boxes:
            step = 'Put AddExtremePoints behind what removes boxes'
            raise ValueError(
                message(what, KEY, f'have one entry per box, {boxes}', len(points), step)
            )
        packed = self.pack(results)
        ignored = np.asarray(results.get('gt_ignore_flags', np.zeros(boxes)), dtype=bool)
        points = torch.from_numpy(np.asarray(points, dtype=np.float32))
        sample = packed['data_samples']
        sample.gt_instances.extreme_points = points[~torch.from_numpy(ignored)]
        sample.ignored_instances.extreme_points = points[torch.from_numpy(ignored)]
        return packed

    def __repr__(self) -> str:
        return f'{type(self).__name__}(meta_keys={self.pack.meta_keys})'


def box_points(boxes: np.ndarray) -> np.ndarray:
    """Return the middles of the edges of boxes (N, 4), shape (N, 4, 2) float32."""
    x1, y1, x2, y2 = boxes.T
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    points = np.stack((x, y1, x1, y, x, y2, x2, y), -1)
    return points.reshape(-1, 4, 2).astype(np.float32)


def mask_points(mask: np.ndarray | Sequence[np.ndarray], tolerance: float) -> np.ndarray | None:
    """Return the extreme points (4, 2) of a bitmap (H, W) or of the polygons of an object.

    None if there is no object left.
    """
    if isinstance(mask, np.ndarray) and mask.ndim == 2:
        return bitmap_points(mask, tolerance)
    return polygon_points(mask, tolerance)


def bitmap_points(mask: np.ndarray, tolerance: float) -> np.ndarray | None:
    """Return the extreme points (4, 2) of a bitmap (H, W), float32; None if it is empty."""
    mask = mask > 0
    rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
    if not len(rows):
        return None
    y1, y2, x1, x2 = rows[0], rows[-1], columns[0], columns[-1]
    mask = mask[y1 : y2 + 1, x1 : x2 + 1]
    top, bottom = (x1 + _middle_of_edge(side, tolerance) for side in (mask, mask[::-1]))
    left, right = (y1 + _middle_of_edge(side, tolerance) for side in (mask.T, mask.T[::-1]))
    points = ((top, y1), (x1, left), (bottom, y2 + 1), (x2 + 1, right))
    return np.array(points, dtype=np.float32)


def _middle_of_edge(mask: np.ndarray, tolerance: float) -> float:
    """Return the position along the first row of a cropped mask, of the middle of what is there.

    Rows within the tolerance count as well, where their columns are connected with the first
    row. Of several parts of the first row the longest counts.
    """
    band = mask[: 1 + int(tolerance * len(mask))].any(0)
    ends = np.flatnonzero(np.diff(np.concatenate(([0], band.astype(np.int8), [0]))))
    runs = [(end - start, start, end) for start, end in zip(ends[::2], ends[1::2])]
    _, start, end = max(run for run in runs if mask[0, run[1] : run[2]].any())
    return (start + end) / 2


def polygon_points(polygons: Sequence[np.ndarray], tolerance: float) -> np.ndarray | None:
    """Return the extreme points (4, 2) of an object of one or more polygons, float32.

    Args:
        polygons: each x, y, x, y, ... flat.
        tolerance: fraction of the height (width).

    Returns:
        None if there is no polygon with three corners or if they have no area.
    """
    rings = [np.asarray(ring, dtype=np.float64).reshape(-1, 2) for ring in polygons]
    rings = [ring for ring in rings if len(ring) >= 3]
    if not rings:
        return None
    low = np.min([ring.min(0) for ring in rings], axis=0)
    high = np.max([ring.max(0) for ring in rings], axis=0)
    if (high <= low).any():
        return None
    reach = tolerance * (high - low)
    top = _middle_of_side(rings, 1, low[1], reach[1])
    left = _middle_of_side(rings, 0, low[0], reach[0])
    bottom = _middle_of_side(rings, 1, high[1], reach[1])
    right = _middle_of_side(rings, 0, high[0], reach[0])
    points = ((top, low[1]), (low[0], left), (bottom, high[1]), (high[0], right))
    return np.array(points, dtype=np.float32)


def _middle_of_side(rings: list[np.ndarray], axis: int, extreme: float, reach: float) -> float:
    """Return the middle, along the other axis, of the corners near the extreme one.

    The corners follow each other on the polygon. Of several such stretches the longest counts.
    """
    found = []
    for ring in rings:
        near = np.abs(ring[:, axis] - extreme) <= reach
        for first in np.flatnonzero(ring[:, axis] == extreme):
            along = ring[_stretch(near, first), 1 - axis]
            found.append((np.ptp(along), (along.max() + along.min()) / 2))
    return max(found)[1]


def _stretch(near: np.ndarray, first: int) -> np.ndarray:
    """Return the corners around ``first`` on a closed ring up to the first that is not near."""
    if near.all():
        return np.arange(len(near))
    ahead = np.roll(near, -first)
    behind = ahead[::-1]
    forwards, backwards = int(np.argmin(ahead)), int(np.argmin(behind))
    return (first + np.arange(-backwards, forwards)) % len(near)


def _boxes(what: str, results: dict) -> np.ndarray:
    boxes = results.get('gt_bboxes')
    if boxes is None:
        step = 'Load them with LoadAnnotations(with_bbox=True)'
        raise ValueError(message(what, 'results', "have 'gt_bboxes'", sorted(results), step))
    # The boxes of MMDetection 3 wrap a tensor.
    boxes = getattr(boxes, 'tensor', boxes)
    return np.asarray(boxes, dtype=np.float64).reshape(-1, 4)


def _masks(what: str, results: dict, boxes: int) -> Sequence[Any]:
    masks = results.get('gt_masks')
    if masks is None:
        step = "Load them with LoadAnnotations(with_mask=True), or take source='boxes'"
        raise ValueError(message(what, 'results', "have 'gt_masks'", sorted(results), step))
    if len(masks) != boxes:
        step = 'Look for a transform that removes boxes and leaves their masks'
        raise ValueError(message(what, 'gt_masks', f'be one per box, {boxes}', len(masks), step))
    return masks.masks if hasattr(masks, 'masks') else masks
