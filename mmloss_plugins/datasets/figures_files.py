"""The files of the generated figures: COCO's format, written so that nothing is lost."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mmloss_plugins.errors import message

from .figures_pose import KEYPOINT_NAMES

# Raise when a change to the drawing changes pixels or labels: old folders are then told apart.
VERSION = 1
SPLITS = ('train', 'val')

COCO_SKELETON = (
    (16, 14), (14, 12), (17, 15), (15, 13), (12, 13), (6, 12), (7, 13), (6, 7), (6, 8), (7, 9),
    (8, 10), (9, 11), (2, 3), (1, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 7),
)  # fmt: skip


class Split:
    """The files of one split, and what of them is there already."""

    def __init__(self, out: Path, name: str, num: int, image_size: int, seed: int) -> None:
        self.out, self.name, self.num, self.image_size, self.seed = out, name, num, image_size, seed
        self.images = out / 'images' / name
        self.json = out / 'annotations' / f'figures_{name}.json'
        # Labels of the images written so far, one line each, until the annotation file is there.
        self.partial = out / 'annotations' / f'figures_{name}.partial.jsonl'
        self.fingerprint = dict(
            set='figures', version=VERSION, split=name, num=num, image_size=image_size, seed=seed
        )

    def state(self) -> tuple[dict[int, dict[str, Any]], list[int]]:
        """Return the labels that are there, by index, and the indices still to be drawn.

        Raises:
            ValueError: the folder holds another set.
        """
        names = _file_names(self.images)
        if self.json.exists():
            found, labels = _read_annotations(self.json)
        elif self.partial.exists():
            found, labels = _read_lines(self.partial)
        elif names:
            found, labels = f'{len(names)} images without annotations', {}
        else:
            found, labels = self.fingerprint, {}
        if found != self.fingerprint:
            raise ValueError(self._mismatch(found))
        todo = [i for i in range(self.num) if i not in labels or _image_name(i) not in names]
        return labels, todo

    def complete(
        self, labels: dict[int, dict[str, Any]], todo: list[int], advance: Callable[[], None]
    ) -> None:
        """Draw the images ``todo``; the annotation file comes last."""
        if todo or not self.json.exists():
            self.images.mkdir(parents=True, exist_ok=True)
            self.json.parent.mkdir(parents=True, exist_ok=True)
            with self._log() as log:
                for index in todo:
                    png, label = self._draw(index)
                    _write_whole(self.images / _image_name(index), png)
                    labels[index] = label
                    log(label)
                    advance()
        if not self.json.exists():
            _write_whole(self.json, _line(self._coco(labels)))
        self.partial.unlink(missing_ok=True)

    @contextmanager
    def _log(self) -> Iterator[Callable[[dict[str, Any]], None]]:
        """Yield a function that keeps one label for the next call, should this one be stopped."""
        if self.json.exists():
            yield lambda label: None
            return
        if not self.partial.exists():
            _write_whole(self.partial, _line(self.fingerprint))
        with self.partial.open('ab') as file:
            # A line that was cut off must not swallow the next one.
            file.write(b'\n')

            def keep(label: dict[str, Any]) -> None:
                file.write(_line(label))
                file.flush()

            yield keep

    def _draw(self, index: int) -> tuple[bytes, dict[str, Any]]:
        """Return the PNG file of one image and its COCO annotation."""
        import cv2

        from .figures_scene import render_scene

        key = (SPLITS.index(self.name), index)
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))
        scene = render_scene(rng, self.image_size)
        done, png = cv2.imencode('.png', scene.image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
        if not done:
            raise OSError(f'OpenCV could not encode image {index} as PNG')
        flags = scene.keypoints[:, 2].astype(int)
        points = [[*point, flag] for point, flag in zip(scene.keypoints[:, :2].tolist(), flags)]
        label = dict(
            id=index + 1,
            image_id=index + 1,
            category_id=1,
            bbox=scene.bbox.tolist(),
            area=scene.area,
            iscrowd=0,
            num_keypoints=int(np.count_nonzero(flags)),
            keypoints=[number for x, y, flag in points for number in (x, y, int(flag))],
        )
        return png.tobytes(), label

    def _coco(self, labels: dict[int, dict[str, Any]]) -> dict[str, Any]:
        size = self.image_size
        images = [
            dict(id=i + 1, file_name=_image_name(i), width=size, height=size, license=1)
            for i in range(self.num)
        ]
        category = dict(
            id=1,
            name='person',
            supercategory='person',
            keypoints=KEYPOINT_NAMES,
            skeleton=COCO_SKELETON,
        )
        return dict(
            info=dict(
                description='Generated human figures with the keypoints of COCO',
                version=str(VERSION),
                complete=self.fingerprint,
            ),
            licenses=[dict(id=1, name='Generated, free of rights', url='')],
            images=images,
            annotations=[labels[i] for i in range(self.num)],
            categories=[category],
        )

    def _mismatch(self, found: object) -> str:
        got = found
        if isinstance(found, dict):
            keys = [key for key in self.fingerprint if found.get(key) != self.fingerprint[key]]
            wanted = ', '.join(f'{key}={self.fingerprint[key]!r}' for key in keys)
            got = ', '.join(f'{key}={found.get(key)!r}' for key in keys)
        else:
            wanted = 'these arguments'
        rule = f"be empty or hold the {self.name} split made with {wanted} (it is '{self.out}')"
        step = 'Take another folder, delete this one, or call with the arguments it was made with'
        return message('generate_figures', 'out_dir', rule, got, step)


def _image_name(index: int) -> str:
    return f'{index + 1:06d}.png'


def _file_names(folder: Path) -> set[str]:
    """Return the names of the files in ``folder`` that are not empty; none if it is missing."""
    if not folder.exists():
        return set()
    with os.scandir(folder) as entries:
        return {e.name for e in entries if e.name.endswith('.png') and e.stat().st_size}


def _read_annotations(path: Path) -> tuple[object, dict[int, dict[str, Any]]]:
    """Return the fingerprint and the labels by index; any foreign file is named as such."""
    try:
        content = json.loads(path.read_bytes())
        labels = {label['image_id'] - 1: label for label in content['annotations']}
        return content['info']['complete'], labels
    except (ValueError, KeyError, TypeError):
        return f'a file of another origin, {path.name}', {}


def _read_lines(path: Path) -> tuple[object, dict[int, dict[str, Any]]]:
    first, *lines = path.read_bytes().split(b'\n')
    try:
        fingerprint = json.loads(first)
    except ValueError:
        return f'a file of another origin, {path.name}', {}
    labels = {}
    for line in lines:
        try:
            label = json.loads(line)
            labels[label['image_id'] - 1] = label
        except (ValueError, KeyError, TypeError):
            continue
    return fingerprint, labels


def _line(content: dict[str, Any]) -> bytes:
    return json.dumps(content, separators=(',', ':')).encode() + b'\n'


def _write_whole(path: Path, content: bytes) -> None:
    """Write a file so that nobody ever sees half of it."""
    unfinished = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    try:
        unfinished.write_bytes(content)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
