"""Transforms for the pipelines of MMPose."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness

from mmloss_plugins.errors import message, refuse_unknown
from mmloss_plugins.registry import TRANSFORMS

WHAT = 'PlaceBBox'
ARGUMENTS = ('input_size', 'x', 'y', 'size', 'use_udp')
Range = tuple[float, float]


@TRANSFORMS.register_module()
class PlaceBBox(BaseTransform):
    """Choose the place of the crop at which ``TopdownAffine`` shows the instance.

    ``TopdownAffine`` always shows the box in the middle, so that a test set tells nothing about
    places that were never trained. This one moves and scales the crop instead of the image; put
    it behind ``GetBBoxCenterScale`` and ``RandomBBoxTransform`` and right before
    ``TopdownAffine``::

        dict(type='mmloss_plugins.PlaceBBox', input_size=(56, 56), x=(0.2, 0.3), size=(0.4, 0.4)),
        dict(type='TopdownAffine', input_size=(56, 56)),

    The centre of the box is then at ``x * w`` px and ``y * h`` px of the crop (with
    ``use_udp=True`` at ``x * (w - 1)`` and ``y * (h - 1)``), whatever the rotation. The centre is
    that of ``bbox``, so that a random shift before has no effect; a random scale has one where
    ``size`` is None. Values are drawn uniformly from numpy's global generator, one place per box.
    Where the crop reaches beyond the image, ``TopdownAffine`` fills it with black.

    Required Keys:

        - bbox
        - bbox_center
        - bbox_scale
        - bbox_rotation (optional)

    Modified Keys:

        - bbox_center
        - bbox_scale

    Args:
        input_size (tuple): Input image size in [w, h], that of ``TopdownAffine``
        x (tuple): Smallest and largest position of the box centre as a fraction of the width of
            the crop, in [0, 1]. Defaults to the middle, (0.5, 0.5)
        y (tuple): The same along the height. Defaults to (0.5, 0.5)
        size (tuple, optional): Smallest and largest size of the box as a fraction of the crop,
            along the axis that it fills more of, > 0; before rotation. It takes the place of the
            padding and of a random scale. Defaults to None: ``bbox_scale`` stays
        use_udp (bool): That of ``TopdownAffine``, which with True turns the crop the other way
            round. Defaults to False

    Raises:
        TypeError: an unknown argument, or ``use_udp`` is no bool.
        ValueError: an argument outside its range; in use, a place in the pipeline where the
            transform could have no effect.
    """

    def __init__(
        self,
        input_size: tuple[int, int],
        x: Range = (0.5, 0.5),
        y: Range = (0.5, 0.5),
        size: Range | None = None,
        use_udp: bool = False,
        **unknown: Any,
    ) -> None:
        super().__init__()
        refuse_unknown(WHAT, unknown, ARGUMENTS)
        self.input_size = _check_input_size(input_size)
        self.x = _check_range('x', x, 1.0)
        self.y = _check_range('y', y, 1.0)
        self.size = None if size is None else _check_size(size)
        if not isinstance(use_udp, bool):
            step = 'Pass the use_udp of TopdownAffine'
            raise TypeError(message(WHAT, 'use_udp', 'be True or False', repr(use_udp), step))
        self.use_udp = use_udp

    def transform(self, results: dict) -> dict:
        """Return ``results`` with another ``bbox_center`` and ``bbox_scale``."""
        _check_keys(results)
        bbox = np.asarray(results['bbox'], dtype=np.float64)
        places, sizes = self._draw(len(bbox))
        scale = np.asarray(results['bbox_scale'], dtype=np.float64)
        if sizes is not None:
            scale = (bbox[:, 2:4] - bbox[:, :2]) / sizes
        scale = self._as_crop(scale)
        rotation = np.deg2rad(results.get('bbox_rotation', np.zeros(len(bbox))))
        # MMPose's two warp matrices turn in opposite directions.
        shift = _rotate((places - 0.5) * scale, -rotation if self.use_udp else rotation)
        center = (bbox[:, :2] + bbox[:, 2:4]) / 2 - shift
        results['bbox_center'] = center.astype(np.float32)
        results['bbox_scale'] = scale.astype(np.float32)
        return results

    @cache_randomness
    def _draw(self, boxes: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Return places (N, 2) and sizes (N, 1) as fractions of the crop."""
        low, high = zip(self.x, self.y)
        # The global generator, which MMEngine seeds in each worker.
        places = np.random.uniform(low, high, (boxes, 2))  # noqa: NPY002
        if self.size is None:
            return places, None
        return places, np.random.uniform(*self.size, (boxes, 1))  # noqa: NPY002

    def _as_crop(self, scale: np.ndarray) -> np.ndarray:
        """Return ``scale`` (N, 2), enlarged along one axis to the shape of the crop.

        The shift is a fraction of the crop as ``TopdownAffine`` enlarges it, not of ``bbox_scale``.
        """
        shape = np.array(self.input_size)
        return (scale / shape).max(axis=1, keepdims=True) * shape

    def __repr__(self) -> str:
        arguments = ', '.join(f'{name}={getattr(self, name)}' for name in ARGUMENTS)
        return f'{WHAT}({arguments})'


def _rotate(vectors: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Return ``vectors`` (N, 2) of the crop as they lie in the image, ``angle`` (N,) in radians."""
    x, y = vectors.T
    sin, cos = np.sin(angle), np.cos(angle)
    return np.stack((cos * x - sin * y, sin * x + cos * y), axis=1)


def _check_keys(results: dict) -> None:
    place = 'Put PlaceBBox behind GetBBoxCenterScale and RandomBBoxTransform, before TopdownAffine'
    for key in ('bbox', 'bbox_center', 'bbox_scale'):
        if key not in results:
            rule = f'have {key!r}'
            raise ValueError(message(WHAT, 'results', rule, sorted(results), place))
    if 'input_size' in results:
        rule = 'come without the input_size that TopdownAffine leaves'
        raise ValueError(message(WHAT, 'results', rule, results['input_size'], place))


def _check_input_size(size: Any) -> tuple[int, int]:
    if _is_pair(size) and all(isinstance(side, Integral) and side > 0 for side in size):
        return (int(size[0]), int(size[1]))
    rule = 'be two positive whole numbers, (width, height)'
    step = 'Pass the input_size of TopdownAffine'
    raise ValueError(message(WHAT, 'input_size', rule, repr(size), step))


def _check_size(size: Any) -> Range:
    low, high = _check_range('size', size, float('inf'))
    if low > 0:
        return low, high
    step = 'Take for example (0.5, 0.5), a box of half the crop'
    raise ValueError(message(WHAT, 'size', 'be > 0', repr(size), step))


def _check_range(name: str, given: Any, largest: float) -> Range:
    numbers = _is_pair(given) and all(
        isinstance(value, Real) and not isinstance(value, bool) and np.isfinite(value)
        for value in given
    )
    if numbers and 0 <= given[0] <= given[1] <= largest:
        return (float(given[0]), float(given[1]))
    limits = '0 <= low <= high' + (f' <= {largest:g}' if np.isfinite(largest) else '')
    rule = f'be two numbers (low, high), {limits}'
    step = 'Pass a range of fractions of the crop, one with equal ends for a fixed value'
    raise ValueError(message(WHAT, name, rule, repr(given), step))


def _is_pair(value: Any) -> bool:
    is_list = isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, str)
    return is_list and len(value) == 2
