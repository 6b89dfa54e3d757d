"""A generated detection set of handwritten digits in COCO's format, for training without download.

Three to eight of scikit-learn's bundled digits per image, enlarged, turned, coloured, on cluttered
pictures, partly hidden by each other or by the border. Ten classes, with boxes, masks and extreme
points. MMDetection's ``CocoDataset`` and ``CocoMetric`` read the files as they are, with
``metainfo=dict(classes=CLASSES)``::

    OUT/annotations/digits_train.json   OUT/images/train/000001.png ...
    OUT/annotations/digits_val.json     OUT/images/val/000001.png ...

Conventions:
    - Digit d has ``category_id`` d + 1 and the name 'd'. It stands upright within 25 degrees, so
      that 6 and 9 differ; do not train with flips.
    - ``segmentation`` is the visible part, run-length encoded: what later digits hide is not in it.
      At least 70 % of each digit is visible. ``bbox`` [x, y, width, height] and ``area`` are those
      of the mask; pixel i reaches from i to i + 1.
    - ``extreme_points`` [[x, y]] * 4, in the order top, left, bottom, right, are the middles of the
      mask's outermost runs of pixels. Here the integer i is the centre of pixel i: the top point
      has y = bbox[1], the bottom one y = bbox[1] + bbox[3] - 1. Add 0.5 for coordinates as in
      ``bbox``.
    - ``glyph`` is the digit's index in scikit-learn's ``load_digits``. Every fifth of each class is
      in the validation split alone, the others in the training split alone.
    - Image ``index`` of a split depends on (seed, split, index) alone: a larger set begins with the
      same images. Everything is drawn in whole numbers: labels and decoded pixels are the same on
      every machine.

From a shell: ``python -m mmloss_plugins.datasets.digits OUT --num-train 1000``. Needs
scikit-learn.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from .digits_files import CLASSES, Split
from .generated import checked_integer, run_command, write_splits
from .generated_files import SPLITS

__all__ = ['CLASSES', 'generate_digits', 'main']

WHAT = 'generate_digits'


def generate_digits(
    out_dir: str | os.PathLike[str],
    num_train: int = 1000,
    num_val: int = 200,
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
        image_size (int): side of the square images in pixels, 64 to 1024. Digits grow with it: on
            128 px they are about 14 to 48 px high.
        seed (int): 0 or more.
        progress (bool): show a bar with the remaining time on stderr.

    Returns:
        Path: ``out_dir``, with ``annotations/digits_{train,val}.json`` and ``images/{train,val}``.

    Raises:
        TypeError: a number is not an integer.
        ValueError: a number is out of range, or the folder holds another set.
        OSError: the folder cannot be written, or the disk is full.
        ImportError: scikit-learn is missing.
    """
    num_train = checked_integer(WHAT, 'num_train', num_train, 1, 10_000_000)
    num_val = checked_integer(WHAT, 'num_val', num_val, 1, 10_000_000)
    image_size = checked_integer(WHAT, 'image_size', image_size, 64, 1024)
    seed = checked_integer(WHAT, 'seed', seed, 0, 2**63 - 1)
    out = Path(out_dir)
    splits = [
        Split(out, name, num, image_size, seed) for name, num in zip(SPLITS, (num_train, num_val))
    ]
    room = 'a set of 1,200 images of 128 x 128 takes 45 MB'
    write_splits(WHAT, out, splits, progress, room)
    return out


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    description = 'Write the generated detection set of handwritten digits in COCO format.'
    return run_command(generate_digits, 'digits', description, (1000, 200), argv)


if __name__ == '__main__':
    sys.exit(main())
