"""Small sets of labelled images that are held in memory; none needs a host."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mmloss_plugins.errors import check_choice, message
from mmloss_plugins.registry import DATASETS

SPLITS = ('train', 'val')
Sample = dict[str, Any]


class LabelledImages(Dataset):
    """Images and their classes.

    Args:
        images: float32 (N, 1, H, W).
        labels: int64 (N,), classes 0...C-1.
        classes: the C names.
    """

    def __init__(self, images: Tensor, labels: Tensor, classes: Sequence[str]) -> None:
        self.images = images
        self.labels = labels
        self.classes = tuple(classes)

    @property
    def metainfo(self) -> dict[str, Any]:
        return dict(classes=self.classes)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        """Return ``inputs``, (1, H, W), and ``data_samples``, a dict with ``gt_label``, 0-d."""
        return dict(
            inputs=self.images[index], data_samples=dict(gt_label=self.labels[index])
        )


@DATASETS.register_module()
class DigitImages(LabelledImages):
    """The handwritten digits that scikit-learn bundles: 1,797 images of 8x8, 0 to 16, 10 classes.

    A quarter of each class is for validation, chosen with a fixed seed.

    Args:
        split (str): 'train', 1,347 images, or 'val', 450

    Raises:
        ImportError: scikit-learn is missing.
        ValueError: an unknown split.

    Example:
        >>> len(DigitImages('train')), len(DigitImages('val'))
        (1347, 450)
        >>> DigitImages('val')[0]['inputs'].shape
        torch.Size([1, 8, 8])
    """

    def __init__(self, split: str = 'train') -> None:
        what = 'DigitImages'
        check_choice(what, 'split', split, SPLITS)
        if find_spec('sklearn') is None:
            step = "Run pip install 'mmloss-plugins[claims]'"
            raise ImportError(message(what, 'scikit-learn', 'be installed', 'none', step))
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        digits = load_digits()
        rows = train_test_split(
            np.arange(len(digits.target)),
            test_size=0.25,
            random_state=0,
            stratify=digits.target,
        )[SPLITS.index(split)]
        images = torch.from_numpy(digits.images[rows]).float().unsqueeze(1)
        labels = torch.from_numpy(digits.target[rows]).long()
        super().__init__(images, labels, [str(name) for name in digits.target_names])


@DATASETS.register_module()
class OmniglotImages(LabelledImages):
    """Handwritten characters of Omniglot, read from one of its archives without unpacking it.

    Each character of each alphabet is a class, of 20 drawings by 20 hands. Ink is 1, paper 0.

    Args:
        archive (str): 'images_background_small1.zip', 'images_evaluation.zip' or another one of
            https://github.com/brendenlake/omniglot, with members ``.../ALPHABET/CHARACTER/*.png``
        size (int): Side in pixels that the drawings of 105x105 are averaged down to. Defaults to 28
        augment (dict, optional): Arguments of :class:`torchvision.transforms.RandomAffine` that
            each drawing is moved with anew whenever it is read. Defaults to None

    Raises:
        FileNotFoundError: no such archive.
        ValueError: it holds no drawings, or a size out of range.

    Reference:
        Lake et al., Human-level concept learning through probabilistic program induction,
        Science 2015.
    """

    def __init__(self, archive: str, size: int = 28, augment: dict[str, Any] | None = None) -> None:
        what = 'OmniglotImages'
        if type(size) is not int or not 1 <= size <= 105:
            rule, step = 'be an integer from 1 to 105', 'Take 28 or 32'
            raise ValueError(message(what, 'size', rule, repr(size), step))
        if not Path(archive).is_file():
            rule = 'be an archive of Omniglot'
            step = 'Get it from https://github.com/brendenlake/omniglot, under python'
            raise FileNotFoundError(message(what, 'archive', rule, repr(archive), step))
        images, labels, classes = _read_characters(archive, size)
        if not classes:
            rule = 'hold drawings as ALPHABET/CHARACTER/NAME.png'
            step = 'Take images_background_small1.zip, for instance'
            raise ValueError(message(what, 'archive', rule, repr(archive), step))
        super().__init__(images, labels, classes)
        self.move: Callable[[Tensor], Tensor] | None = None
        if augment is not None:
            from torchvision.transforms import RandomAffine
            from torchvision.transforms.functional import InterpolationMode

            self.move = RandomAffine(interpolation=InterpolationMode.BILINEAR, **augment)

    def __getitem__(self, index: int) -> Sample:
        """Return a drawing and its character as :class:`LabelledImages` does, moved anew."""
        sample = super().__getitem__(index)
        if self.move is not None:
            sample['inputs'] = self.move(sample['inputs'])
        return sample


def _read_characters(archive: str, size: int) -> tuple[Tensor, Tensor, list[str]]:
    """Return drawings (N, 1, size, size), labels (N,) and the names ALPHABET/CHARACTER."""
    from PIL import Image

    images, names = [], []
    with zipfile.ZipFile(archive) as members:
        for member in sorted(members.namelist()):
            path = PurePosixPath(member)
            if path.suffix != '.png' or len(path.parts) < 3 or '__MACOSX' in path.parts:
                continue
            drawing = Image.open(io.BytesIO(members.read(member))).convert('L')
            drawing = drawing.resize((size, size), Image.Resampling.BOX)
            images.append(1 - np.asarray(drawing, dtype=np.float32) / 255)
            names.append('/'.join(path.parts[-3:-1]))
    if not images:
        return torch.zeros(0, 1, size, size), torch.zeros(0, dtype=torch.int64), []
    classes, labels = np.unique(names, return_inverse=True)
    return torch.from_numpy(np.stack(images)).unsqueeze(1), torch.from_numpy(labels), list(classes)
