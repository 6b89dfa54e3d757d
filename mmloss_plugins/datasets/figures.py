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

import os
import sys
from pathlib import Path

import numpy as np

from .figures_files import Split
from .generated import checked_integer, run_command, write_splits
from .generated_files import SPLITS

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
    num_train = checked_integer(WHAT, 'num_train', num_train, 1, 10_000_000)
    num_val = checked_integer(WHAT, 'num_val', num_val, 1, 10_000_000)
    image_size = checked_integer(WHAT, 'image_size', image_size, 32, 1024)
    seed = checked_integer(WHAT, 'seed', seed, 0, 2**63 - 1)
    out = Path(out_dir)
    splits = [
        Split(out, name, num, image_size, seed) for name, num in zip(SPLITS, (num_train, num_val))
    ]
    room = 'a set of 2,400 images of 128 x 128 takes 90 MB'
    write_splits(WHAT, out, splits, progress, room)
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

    scene = render_scene(rng, checked_integer(WHAT, 'image_size', image_size, 32, 1024))
    return scene.image, scene.keypoints


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    description = 'Write the generated human-figure pose set in COCO keypoint format.'
    return run_command(generate_figures, 'figures', description, (2000, 400), argv)


if __name__ == '__main__':
    sys.exit(main())
