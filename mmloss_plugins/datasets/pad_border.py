"""A transform of mmcv's pipelines that the hosts lack: a border on all four sides."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform

from mmloss_plugins.errors import message
from mmloss_plugins.registry import TRANSFORMS

WHAT = 'PadBorder'


@TRANSFORMS.register_module()
class PadBorder(BaseTransform):
    """Add a border of ``width`` pixels on each side of an image without boxes.

    With a crop of the first size behind it, the image is moved by up to ``width`` pixels, as in
    ``torchvision.transforms.RandomCrop(padding=width)``; the ``Pad`` of mmcv and MMDetection adds
    pixels at the right and at the bottom alone::

        dict(type='Resize', scale=(128, 256), keep_ratio=False),
        dict(type='mmloss_plugins.PadBorder', width=10),
        dict(type='RandomCrop', crop_size=(128, 256)),

    Required Keys:

        - img

    Modified Keys:

        - img
        - img_shape

    Args:
        width (int): Pixels on each side
        value (int): Of the border, 0 to 255. Defaults to 0

    Raises:
        ValueError: a number out of range; in use, an image with boxes, masks or keypoints.
    """

    def __init__(self, width: int, value: int = 0) -> None:
        step = 'Take width=10, for instance, and value=0 for black'
        for argument, number, most in (('width', width, 10**6), ('value', value, 255)):
            if type(number) is not int or not 0 <= number <= most:
                rule = f'be an integer from 0 to {most}'
                raise ValueError(message(WHAT, argument, rule, repr(number), step))
        self.width = width
        self.value = value

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Return ``results`` with the wider image."""
        places = [key for key in results if key.startswith('gt_') and key != 'gt_label']
        if places:
            step = 'Pad before boxes are loaded, or take the Pad of the host'
            raise ValueError(message(WHAT, 'results', 'be without places', places, step))
        sides = [(self.width, self.width)] * 2 + [(0, 0)] * (results['img'].ndim - 2)
        results['img'] = np.pad(results['img'], sides, constant_values=self.value)
        results['img_shape'] = results['img'].shape[:2]
        return results

    def __repr__(self) -> str:
        return f'{WHAT}(width={self.width}, value={self.value})'
