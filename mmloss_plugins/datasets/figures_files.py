"""The files of the generated figures: one person with keypoints per image, in COCO's format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .figures_pose import KEYPOINT_NAMES
from .generated_files import Labels, SplitFiles

# Raise when a change to the drawing changes pixels or labels: old folders are then told apart.
VERSION = 1

COCO_SKELETON = (
    (16, 14), (14, 12), (17, 15), (15, 13), (12, 13), (6, 12), (7, 13), (6, 7), (6, 8), (7, 9),
    (8, 10), (9, 11), (2, 3), (1, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 7),
)  # fmt: skip


class Split(SplitFiles):
    """The files of one split of the figures."""

    def __init__(self, out: Path, name: str, num: int, image_size: int, seed: int) -> None:
        super().__init__('figures', VERSION, out, name, num, image_size, seed)

    def _draw(self, index: int) -> tuple[np.ndarray, Labels]:
        from .figures_scene import render_scene

        scene = render_scene(self._generator(index), self.image_size)
        flags = scene.keypoints[:, 2].astype(int)
        points = [[*point, flag] for point, flag in zip(scene.keypoints[:, :2].tolist(), flags)]
        label = dict(
            image_id=index + 1,
            category_id=1,
            bbox=scene.bbox.tolist(),
            area=scene.area,
            iscrowd=0,
            num_keypoints=int(np.count_nonzero(flags)),
            keypoints=[number for x, y, flag in points for number in (x, y, int(flag))],
        )
        return scene.image, [label]

    def _about(self) -> tuple[str, list[dict[str, Any]]]:
        category = dict(
            id=1,
            name='person',
            supercategory='person',
            keypoints=KEYPOINT_NAMES,
            skeleton=COCO_SKELETON,
        )
        return 'Generated human figures with the keypoints of COCO', [category]
