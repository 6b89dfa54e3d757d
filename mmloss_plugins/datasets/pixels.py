"""Generated maps on which few pixels are foreground: a dot among look-alikes, lines of text.

Sample ``index`` of a split depends on (seed, split, index) and the arguments alone, so that a
larger set begins with the same samples. Nothing is written to disk: samples are drawn on first use
and kept in memory. Needs no host.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from mmloss_plugins.errors import check_choice, message
from mmloss_plugins.registry import DATASETS

SPLITS = ('train', 'val')
Sample = dict[str, Any]

DOT = 2  # side of the target in pixels
CELL_PX = 8  # one blob per cell, with a rim of one pixel: blobs never touch
TARGET = np.ones((DOT, DOT), dtype=np.float32)
# Half of the square: two pixels side by side or across.
LOOK_ALIKES = tuple(
    np.array(rows, dtype=np.float32)
    for rows in ([[1, 1]], [[1], [1]], [[1, 0], [0, 1]], [[0, 1], [1, 0]])
)

BAND_PX = 16  # rows that a line of text or a bar has for itself
STROKE = 5  # height of a line in pixels
CORE = 3  # rows of it that are foreground
LENGTH_PX = (20, 32)
MAX_RISE_PX = 8


class PixelDataset(Dataset):
    """Samples that :meth:`draw` makes from a random generator.

    Args:
        split: 'train' or 'val'; the two share no sample.
        num_images: number of samples, at least 1.
        size_hw: height and width of the maps in pixels.
        noise: standard deviation of the Gaussian noise on a signal of about 1.
        seed: 0 or more.
        min_side: smallest height and width.

    Raises:
        TypeError: a number is not an integer.
        ValueError: an argument is out of range.
    """

    METAINFO: dict[str, Any] = {}

    def __init__(
        self,
        split: str,
        num_images: int,
        size_hw: tuple[int, int],
        noise: float,
        seed: int,
        min_side: int,
    ) -> None:
        what = type(self).__name__
        check_choice(what, 'split', split, SPLITS)
        self.split = split
        self.num_images = checked_integer(what, 'num_images', num_images, 1)
        height, width = size_hw
        self.size_hw = (
            checked_integer(what, 'size_hw[0]', height, min_side),
            checked_integer(what, 'size_hw[1]', width, min_side),
        )
        if not 0 <= noise < float('inf'):
            next_step = 'Take for instance 0.2'
            raise ValueError(message(what, 'noise', 'be 0 or more', noise, next_step))
        self.noise = noise
        self.seed = checked_integer(what, 'seed', seed, 0)
        self._samples: dict[int, Sample] = {}

    @property
    def metainfo(self) -> dict[str, Any]:
        return dict(self.METAINFO)

    def __len__(self) -> int:
        return self.num_images

    def __getitem__(self, index: int) -> Sample:
        """Return sample ``index``.

        Returns:
            dict: ``inputs``, float32 (1, H, W), and ``data_samples``, a dict with ``target``,
            float32 (1, H, W) of 0 and 1. The tensors are those that are kept: do not change them.

        Raises:
            IndexError: ``index`` is not below the number of samples.
        """
        if not 0 <= index < self.num_images:
            rule = f'be from 0 to {self.num_images - 1}'
            raise IndexError(
                message(type(self).__name__, 'index', rule, index, 'Raise num_images for more')
            )
        if index not in self._samples:
            self._samples[index] = self._make(index)
        return self._samples[index]

    def _make(self, index: int) -> Sample:
        rng = np.random.default_rng([self.seed, SPLITS.index(self.split), index])
        image, target = self.draw(rng)
        image += self.noise * rng.standard_normal(self.size_hw, dtype=np.float32)
        return dict(
            inputs=torch.from_numpy(image)[None],
            data_samples=dict(target=torch.from_numpy(target)[None]),
        )

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return an image without noise and its target, both float32 (H, W)."""
        raise TypeError(
            message(type(self).__name__, 'draw', 'be implemented by the subclass', 'none', 'Do so')
        )


@DATASETS.register_module()
class DotsDataset(PixelDataset):
    """A 2x2 square to be found among blobs of nearly that shape.

    At the default size 4 of 23,674 pixels are foreground: 1 : 5,917.5, the imbalance of a 9x9
    disk on an 800x600 map.

    Args:
        split (str): 'train' or 'val'.
        num_images (int): number of samples.
        size_hw (tuple): height and width in pixels, at least 16 each.
        num_distractors (int): number of look-alikes per image.
        noise (float): standard deviation of the noise; blobs are .7 to 1.3 bright.
        seed (int): 0 or more.

    Raises:
        TypeError: a number is not an integer.
        ValueError: an argument is out of range, or more distractors than fit.

    Example:
        >>> sample = DotsDataset(num_images=1)[0]
        >>> sample['inputs'].shape, int(sample['data_samples']['target'].sum())
        (torch.Size([1, 133, 178]), 4)
    """

    METAINFO = dict(dataset_name='dots', classes=('dot',))

    def __init__(
        self,
        split: str = 'train',
        num_images: int = 256,
        size_hw: tuple[int, int] = (133, 178),
        num_distractors: int = 12,
        noise: float = 0.1,
        seed: int = 0,
    ) -> None:
        super().__init__(split, num_images, size_hw, noise, seed, 2 * CELL_PX)
        what = type(self).__name__
        self.num_distractors = checked_integer(what, 'num_distractors', num_distractors, 0)
        self.cells_hw = tuple(side // CELL_PX for side in self.size_hw)
        room = self.cells_hw[0] * self.cells_hw[1] - 1
        if self.num_distractors > room:
            rule = f'be at most {room} at size_hw={self.size_hw}'
            raise ValueError(
                message(what, 'num_distractors', rule, num_distractors, 'Enlarge size_hw')
            )

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        image = np.zeros(self.size_hw, dtype=np.float32)
        target = np.zeros(self.size_hw, dtype=np.float32)
        rows, columns = self.cells_hw
        first, *others = rng.choice(rows * columns, self.num_distractors + 1, replace=False)
        place = self._place(rng, first, TARGET)
        image[place] = rng.uniform(0.7, 1.3)
        target[place] = 1
        for cell in others:
            blob = LOOK_ALIKES[rng.integers(len(LOOK_ALIKES))]
            image[self._place(rng, cell, blob)] = rng.uniform(0.7, 1.3) * blob
        return image, target

    def _place(self, rng: np.random.Generator, cell: int, blob: np.ndarray) -> tuple[slice, slice]:
        """Return where ``blob`` lies: anywhere in its cell, but not on the cell's rim."""
        corner = np.multiply(divmod(cell, self.cells_hw[1]), CELL_PX)
        top, left = corner + rng.integers(1, CELL_PX - np.array(blob.shape))
        return slice(top, top + blob.shape[0]), slice(left, left + blob.shape[1])


@DATASETS.register_module()
class StripesDataset(PixelDataset):
    """Slanted lines of text-like strokes to be found among solid bars: sparse text detection.

    Foreground is the core of each line, ``CORE`` of its ``STROKE`` rows, gaps between the strokes
    included, as text detectors shrink their targets. At the default size that is 1.7 % of the
    pixels on average.

    Args:
        split (str): 'train' or 'val'.
        num_images (int): number of samples.
        size_hw (tuple): height and width in pixels, at least 64 each.
        num_lines (int): lines of text per image.
        num_bars (int): solid bars per image, which are background.
        noise (float): standard deviation of the noise; strokes are .5 to 1 bright.
        seed (int): 0 or more.

    Raises:
        TypeError: a number is not an integer.
        ValueError: an argument is out of range, or more lines and bars than fit.

    Example:
        >>> sample = StripesDataset(num_images=1)[0]
        >>> sample['inputs'].shape
        torch.Size([1, 96, 96])
    """

    METAINFO = dict(dataset_name='stripes', classes=('text',))

    def __init__(
        self,
        split: str = 'train',
        num_images: int = 256,
        size_hw: tuple[int, int] = (96, 96),
        num_lines: int = 2,
        num_bars: int = 2,
        noise: float = 0.1,
        seed: int = 0,
    ) -> None:
        super().__init__(split, num_images, size_hw, noise, seed, 64)
        what = type(self).__name__
        self.num_lines = checked_integer(what, 'num_lines', num_lines, 0)
        self.num_bars = checked_integer(what, 'num_bars', num_bars, 0)
        room = self.size_hw[0] // BAND_PX
        if self.num_lines + self.num_bars > room:
            rule = f'be at most {room} at size_hw={self.size_hw}'
            raise ValueError(
                message(what, 'num_lines + num_bars', rule, num_lines + num_bars, 'Enlarge size_hw')
            )

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        image = np.zeros(self.size_hw, dtype=np.float32)
        target = np.zeros(self.size_hw, dtype=np.float32)
        bands = rng.permutation(self.size_hw[0] // BAND_PX)[: self.num_lines + self.num_bars]
        for place, band in enumerate(bands):
            is_text = place < self.num_lines
            length = rng.integers(LENGTH_PX[0], LENGTH_PX[1] + 1)
            columns = rng.integers(self.size_hw[1] - length + 1) + np.arange(length)
            slope = rng.uniform(-MAX_RISE_PX, MAX_RISE_PX) / length
            middle = (band + 0.5) * BAND_PX + slope * (np.arange(length) - length / 2)
            rows = middle.astype(int)[None] + np.arange(STROKE)[:, None] - STROKE // 2
            ink = _strokes(rng, length) if is_text else np.ones(length, dtype=np.float32)
            image[rows, columns] = rng.uniform(0.5, 1.0) * ink
            if is_text:
                rim = (STROKE - CORE) // 2
                target[rows[rim : rim + CORE], columns] = 1
        return image, target


def _strokes(rng: np.random.Generator, length: int) -> np.ndarray:
    """Return 1 where a letter has ink and 0 in the gaps, each one or two pixels wide."""
    widths = rng.integers(1, 3, size=length)
    return np.repeat(np.arange(length) % 2 == 0, widths)[:length].astype(np.float32)


def checked_integer(what: str, name: str, value: int, low: int) -> int:
    """Return ``value`` as an int of at least ``low``; refuse anything else."""
    rule = f'be an integer of at least {low}'
    if isinstance(value, bool) or not hasattr(value, '__index__'):
        raise TypeError(message(what, name, rule, repr(value), f'Pass {name} as an int'))
    number = operator.index(value)
    if number < low:
        raise ValueError(message(what, name, rule, number, f'Raise {name}'))
    return number
