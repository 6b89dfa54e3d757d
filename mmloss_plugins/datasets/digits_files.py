"""The files of the generated digits: several objects with masks per image, in COCO's format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .generated_files import Labels, SplitFiles

# Raise when a change to the drawing changes pixels or labels: old folders are then told apart.
VERSION = 1
CLASSES = tuple('0123456789')


class Split(SplitFiles):
    """The files of one split of the digits."""

    def __init__(self, out: Path, name: str, num: int, image_size: int, seed: int) -> None:
        super().__init__('digits', VERSION, out, name, num, image_size, seed)

    def _draw(self, index: int) -> tuple[np.ndarray, Labels]:
        from .digits_scene import glyphs_of, render_scene

        scene = render_scene(self._generator(index), self.image_size, glyphs_of(self.name))
        return scene.image, [dict(image_id=index + 1, **label) for label in scene.labels]

    def _about(self) -> tuple[str, list[dict[str, Any]]]:
        categories = [
            dict(id=number, name=name, supercategory='digit')
            for number, name in enumerate(CLASSES, 1)
        ]
        return "Scikit-learn's digits on generated pictures, with masks", categories
