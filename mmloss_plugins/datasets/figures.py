"""A generated human-figure pose set in COCO's keypoint format, for training without a download.

Jointed figures with COCO's 17 keypoints in COCO's order, in varied clothes, poses, views, scales
and rotations, before cluttered pictures, partly hidden by themselves, by objects or by the border.
One figure per image. MMPose's ``CocoDataset`` and ``CocoMetric`` read the files as they are::

    OUT/annotations/figures_train.json   OUT/images/train/000001.png ...
    OUT/annotations/figures_val.json     OUT/images/val/000001.png ...

Conventions:
    - Coordinates are pixels, x right and y down; the integer i is the centre of pixel i.
    - Flag 2: labelled and seen. Flag 1: labelled but hidden. Flag 0 (with x = y = 0): not labelled,
      because the joint is outside the image or its label was dropped at random.
    - ``bbox`` is x, y, width, height about all joints inside the image, with a margin of 10 % of
      its longer side, clipped to the image. ``area`` counts the figure's pixels inside the image.
    - The figure's left side wears warm colours (pink, red, yellow), its right side cool ones.
      Face, zip and badge tell front from back, so left and right can be told without the colours
      too. A horizontal flip turns the colour code around: train without it to profit from the code.
    - Image ``index`` of a split depends on (seed, split, index) alone: a larger set begins with the
      same images. Labels and decoded pixels are the same on every run.

From a shell: ``python -m mmloss_plugins.datasets.figures OUT --num-train 2000``.
"""

from __future__ import annotations

import argparse
import errno
import operator
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from mmloss_plugins.errors import message

from .figures_files import SPLITS, Split

WHAT = 'generate_figures'


def generate_figures(
    out_dir: str | os.PathLike[str],
    num_train: int = 2000,
    num_val: int = 400,
    image_size: int = 128,
    seed: int = 0,
    progress: bool = True,
) -> Path:
    """Write the set into ``out_dir`` unless it is there, and return the folder.

    An interrupted call is continued by the next one with the same arguments. Images that were
    deleted are written again.

    Args:
        out_dir: folder of the set; made if it is missing.
        num_train (int): images to train on, at least 1.
        num_val (int): images to validate on, at least 1.
        image_size (int): side of the square images in pixels, 32 to 1024.
        seed (int): 0 or more.
        progress (bool): show a bar with the remaining time on stderr.

    Returns:
        Path: ``out_dir``, with ``annotations/figures_{train,val}.json`` and ``images/{train,val}``.

    Raises:
        TypeError: a number is not an integer.
        ValueError: a number is out of range, or the folder holds another set.
        OSError: the folder cannot be written, or the disk is full.
    """
    num_train = _checked('num_train', num_train, 1, 10_000_000)
    num_val = _checked('num_val', num_val, 1, 10_000_000)
    image_size = _checked('image_size', image_size, 32, 1024)
    seed = _checked('seed', seed, 0, 2**63 - 1)
    out = Path(out_dir)
    splits = [
        Split(out, name, num, image_size, seed) for name, num in zip(SPLITS, (num_train, num_val))
    ]
    try:
        # Every split is looked at before one is written: a refused call changes nothing.
        plans = [(split, *split.state()) for split in splits]
        total = sum(len(todo) for _, _, todo in plans)
        with _progress(total, progress) as advance:
            for split, annotations, todo in plans:
                split.complete(annotations, todo, advance)
    except OSError as error:
        raise _unwritable(out, error) from error
    return out


def render_figure(rng: np.random.Generator, image_size: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """Draw one random figure.

    Args:
        rng (np.random.Generator): decides everything; the same state draws the same picture.
        image_size (int): side of the square image in pixels.

    Returns:
        tuple: the image (image_size, image_size, 3) uint8 in BGR, and the keypoints (17, 3)
        float64 as x, y in pixels and COCO's flag 0, 1 or 2; x and y are 0 where the flag is 0.
    """
    from .figures_scene import render_scene

    scene = render_scene(rng, _checked('image_size', image_size, 32, 1024))
    return scene.image, scene.keypoints


def _checked(name: str, value: int, low: int, high: int) -> int:
    rule = f'be an integer from {low} to {high}'
    if isinstance(value, bool) or not hasattr(value, '__index__'):
        raise TypeError(message(WHAT, name, rule, repr(value), f'Pass {name} as an int'))
    number = operator.index(value)
    if not low <= number <= high:
        raise ValueError(message(WHAT, name, rule, number, f'Choose {name} in this range'))
    return number


@contextmanager
def _progress(total: int, shown: bool) -> Iterator[Callable[[], None]]:
    """Yield a function to call after each image; keeps OpenCV on one thread meanwhile."""
    if not total:
        yield lambda: None
        return
    import cv2

    threads = cv2.getNumThreads()
    # Small pictures: waking threads costs more than they save.
    cv2.setNumThreads(1)
    try:
        yield _bar(total) if shown else lambda: None
    finally:
        cv2.setNumThreads(threads)


def _bar(total: int) -> Callable[[], None]:
    """Return a function that moves MMEngine's bar: often on a terminal, seldom in a log."""
    from mmengine.utils import ProgressBar

    terminal = sys.stderr.isatty()
    pause, ending = (0.2, '') if terminal else (3.0, '\n')
    bar = None
    waiting, last = 0, time.monotonic()

    def advance() -> None:
        nonlocal bar, waiting, last
        # Not before the first image: a folder that cannot be written gets no bar.
        bar = bar or ProgressBar(total, bar_width=30, file=sys.stderr)
        waiting += 1
        finished = bar.completed + waiting >= total
        if not finished and time.monotonic() - last < pause:
            return
        bar.update(waiting)
        sys.stderr.write('\n' if finished else ending)
        sys.stderr.flush()
        waiting, last = 0, time.monotonic()

    return advance


def _unwritable(out: Path, error: OSError) -> OSError:
    got = f"'{out}' ({error.strerror or error})"
    step = (
        'Free some space (a set of 2,400 images of 128 x 128 takes 90 MB), set the rights or take '
        'another folder; the next call goes on where this one stopped'
    )
    text = message(WHAT, 'out_dir', 'be a folder that can be written and has room', got, step)
    return OSError(error.errno or errno.EIO, text)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        prog='python -m mmloss_plugins.datasets.figures',
        description='Write the generated human-figure pose set in COCO keypoint format.',
    )
    parser.add_argument('out', help='folder of the set; made if it is missing')
    parser.add_argument('--num-train', type=int, default=2000, metavar='N')
    parser.add_argument('--num-val', type=int, default=400, metavar='N')
    parser.add_argument('--image-size', type=int, default=128, metavar='PIXELS')
    parser.add_argument('--seed', type=int, default=0, metavar='N')
    parser.add_argument('--quiet', action='store_true', help='show no progress')
    args = parser.parse_args(argv)
    try:
        out = generate_figures(
            args.out, args.num_train, args.num_val, args.image_size, args.seed, not args.quiet
        )
    except (OSError, ValueError) as error:
        print(getattr(error, 'strerror', None) or error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('\nStopped. The same command goes on from here.', file=sys.stderr)
        return 130
    for name, num in zip(SPLITS, (args.num_train, args.num_val)):
        print(f'{name}: {num} images in {out / "images" / name}')
        print(f'{name}: labels in {out / "annotations" / f"figures_{name}.json"}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
