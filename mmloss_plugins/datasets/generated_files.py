"""The files of one split of a generated set: COCO's format, written so that nothing is lost."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mmloss_plugins.errors import message

SPLITS = ('train', 'val')

Labels = list[dict[str, Any]]


class SplitFiles(ABC):
    """The files of one split, and what of them is there already.

    A subclass draws image ``index`` of the split in :meth:`_draw` from :meth:`_generator` alone.

    Args:
        set_name: how the annotation files and the generating function begin, such as 'figures'.
        version: of the drawing; raise it when pixels or labels change, to tell old folders apart.
        out: folder of the set.
        name: 'train' or 'val'.
        num: number of images.
        image_size: side of the square images in pixels.
        seed: of the set.
    """

    def __init__(
        self,
        set_name: str,
        version: int,
        out: Path,
        name: str,
        num: int,
        image_size: int,
        seed: int,
    ) -> None:
        self.set_name, self.out, self.name = set_name, out, name
        self.num, self.image_size, self.seed = num, image_size, seed
        self.images = out / 'images' / name
        self.json = out / 'annotations' / f'{set_name}_{name}.json'
        # Labels of the images written so far, one line each, until the annotation file is there.
        self.partial = out / 'annotations' / f'{set_name}_{name}.partial.jsonl'
        self.fingerprint = dict(
            set=set_name, version=version, split=name, num=num, image_size=image_size, seed=seed
        )

    @abstractmethod
    def _draw(self, index: int) -> tuple[np.ndarray, Labels]:
        """Return image ``index``, (H, W, 3) uint8 in BGR, and its labels without their ``id``."""

    @abstractmethod
    def _about(self) -> tuple[str, list[dict[str, Any]]]:
        """Return what the set is, in one line, and COCO's list of categories."""

    def state(self) -> tuple[dict[int, Labels], list[int]]:
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
        self, labels: dict[int, Labels], todo: list[int], advance: Callable[[], None]
    ) -> None:
        """Draw the images ``todo``; the annotation file comes last."""
        if todo or not self.json.exists():
            self.images.mkdir(parents=True, exist_ok=True)
            self.json.parent.mkdir(parents=True, exist_ok=True)
            with self._log() as log:
                for index in todo:
                    image, labels[index] = self._draw(index)
                    _write_whole(self.images / _image_name(index), _png(image, index))
                    log(labels[index])
                    advance()
        if not self.json.exists():
            _write_whole(self.json, _line(self._coco(labels)))
        self.partial.unlink(missing_ok=True)

    @contextmanager
    def _log(self) -> Iterator[Callable[[Labels], None]]:
        """Yield a function that keeps an image's labels for the next call, should this one stop."""
        if self.json.exists():
            yield lambda labels: None
            return
        if not self.partial.exists():
            _write_whole(self.partial, _line(self.fingerprint))
        with self.partial.open('ab') as file:
            # A line that was cut off must not swallow the next one.
            file.write(b'\n')

            def keep(labels: Labels) -> None:
                file.write(_line(labels))
                file.flush()

            yield keep

    def _generator(self, index: int) -> np.random.Generator:
        """Return the random generator of an image; it knows nothing of the size of the set."""
        key = (SPLITS.index(self.name), index)
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))

    def _coco(self, labels: dict[int, Labels]) -> dict[str, Any]:
        description, categories = self._about()
        size = self.image_size
        images = [
            dict(id=i + 1, file_name=_image_name(i), width=size, height=size, license=1)
            for i in range(self.num)
        ]
        ordered = [label for i in range(self.num) for label in labels[i]]
        return dict(
            info=dict(
                description=description,
                version=str(self.fingerprint['version']),
                complete=self.fingerprint,
            ),
            licenses=[dict(id=1, name='Generated, free of rights', url='')],
            images=images,
            # COCO's evaluation takes the id 0 for "no match".
            annotations=[dict(id=number, **label) for number, label in enumerate(ordered, 1)],
            categories=categories,
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
        return message(f'generate_{self.set_name}', 'out_dir', rule, got, step)


def _png(image: np.ndarray, index: int) -> bytes:
    import cv2

    done, png = cv2.imencode('.png', image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not done:
        raise OSError(f'OpenCV could not encode image {index} as PNG')
    return png.tobytes()


def _image_name(index: int) -> str:
    return f'{index + 1:06d}.png'


def _file_names(folder: Path) -> set[str]:
    """Return the names of the files in ``folder`` that are not empty; none if it is missing."""
    if not folder.exists():
        return set()
    with os.scandir(folder) as entries:
        return {e.name for e in entries if e.name.endswith('.png') and e.stat().st_size}


def _read_annotations(path: Path) -> tuple[object, dict[int, Labels]]:
    """Return the fingerprint and the labels by index; any foreign file is named as such."""
    labels: dict[int, Labels] = {}
    try:
        content = json.loads(path.read_bytes())
        for label in content['annotations']:
            labels.setdefault(label['image_id'] - 1, []).append(label)
        return content['info']['complete'], labels
    except (ValueError, KeyError, TypeError):
        return f'a file of another origin, {path.name}', {}


def _read_lines(path: Path) -> tuple[object, dict[int, Labels]]:
    first, *lines = path.read_bytes().split(b'\n')
    try:
        fingerprint = json.loads(first)
    except ValueError:
        return f'a file of another origin, {path.name}', {}
    labels: dict[int, Labels] = {}
    for line in lines:
        try:
            image_labels = json.loads(line)
            labels[image_labels[0]['image_id'] - 1] = image_labels
        except (ValueError, KeyError, TypeError, IndexError):
            continue
    return fingerprint, labels


def _line(content: object) -> bytes:
    return json.dumps(content, separators=(',', ':')).encode() + b'\n'


def _write_whole(path: Path, content: bytes) -> None:
    """Write a file so that nobody ever sees half of it."""
    unfinished = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    try:
        unfinished.write_bytes(content)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
