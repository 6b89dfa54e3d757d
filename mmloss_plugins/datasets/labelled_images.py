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
        return dict(inputs=self.images[index], data_samples=dict(gt_label=self.labels[index]))


@DATASETS.register_module()
class DigitImages(LabelledImages):
    """The handwritten digits that scikit-learn bundles: 1,797 images of 8x8, 0 to 16, 10 classes.

    A quarter of each class is for validation, chosen with a fixed seed.

    Args:
        split (str): 'train', 1,347 images, or 'val', 450
        per_class (int, optional): Take the first images of each class of the split alone, at most
            this many. Defaults to None, all

    Raises:
        ImportError: scikit-learn is missing.
        ValueError: an unknown split, or ``per_class`` is no positive integer.

    Example:
        >>> len(DigitImages('train')), len(DigitImages('val'))
        (1347, 450)
        >>> DigitImages('val')[0]['inputs'].shape
        torch.Size([1, 8, 8])
    """

    def __init__(self, split: str = 'train', per_class: int | None = None) -> None:
        what = 'DigitImages'
        check_choice(what, 'split', split, SPLITS)
        if per_class is not None and (type(per_class) is not int or per_class < 1):
            rule, step = 'be a positive integer', 'None takes all images'
            raise ValueError(message(what, 'per_class', rule, repr(per_class), step))
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
        if per_class is not None:
            firsts = [np.flatnonzero(digits.target[rows] == c)[:per_class] for c in range(10)]
            rows = rows[np.sort(np.concatenate(firsts))]
        images = torch.from_numpy(digits.images[rows]).float().unsqueeze(1)
        labels = torch.from_numpy(digits.target[rows]).long()
        super().__init__(images, labels, [str(name) for name in digits.target_names])


@DATASETS.register_module()
class OmniglotImages(LabelledImages):
    """Handwritten characters of Omniglot, read from one of its archives without unpacking it.

    Each character of each alphabet is a class, of 20 drawings by 20 hands. Ink is 1, paper 0.

    Some archives share alphabets: both ``images_background_small1.zip`` and ``..._small2.zip`` have
    Greek and Latin. To test on characters that were not trained on, leave these out::

        dict(type='mmloss_plugins.OmniglotImages', archive='images_background_small2.zip',
             leave_out=('Greek', 'Latin'))

    Args:
        archive (str): 'images_background_small1.zip', 'images_evaluation.zip' or another one of
            https://github.com/brendenlake/omniglot, with members ``.../ALPHABET/CHARACTER/*.png``
        data_root (str): Folder of the archive. Defaults to '', the folder you are in
        size (int): Side in pixels that the drawings of 105x105 are averaged down to. Defaults to 28
        augment (dict, optional): Arguments of :class:`torchvision.transforms.RandomAffine` that
            each drawing is moved with anew whenever it is read. Defaults to None
        leave_out (Sequence[str]): Alphabets of the archive whose characters are no classes.
            Defaults to ()

    Raises:
        FileNotFoundError: no such archive.
        TypeError: ``leave_out`` is a string, or ``augment`` has an unknown argument.
        ValueError: it holds no drawings or not the alphabets to leave out, or a size out of range.

    Reference:
        Lake et al., Human-level concept learning through probabilistic program induction,
        Science 2015.
    """

    def __init__(
        self,
        archive: str,
        data_root: str = '',
        size: int = 28,
        augment: dict[str, Any] | None = None,
        leave_out: Sequence[str] = (),
    ) -> None:
        what = 'OmniglotImages'
        if type(size) is not int or not 1 <= size <= 105:
            rule, step = 'be an integer from 1 to 105', 'Take 28 or 32'
            raise ValueError(message(what, 'size', rule, repr(size), step))
        if isinstance(leave_out, str) or not isinstance(leave_out, Sequence):
            rule, step = 'be a sequence of names', "Pass ('Greek', 'Latin'), for instance"
            raise TypeError(message(what, 'leave_out', rule, repr(leave_out), step))
        self.move = _random_affine(augment)
        path = Path(data_root, archive)
        if not path.is_file():
            rule = 'be an archive of Omniglot'
            step = 'Get it from https://github.com/brendenlake/omniglot, under python'
            raise FileNotFoundError(message(what, 'archive', rule, repr(str(path)), step))
        images, labels, classes = _read_characters(path, size, _drawings(path, leave_out))
        super().__init__(images, labels, classes)

    def __getitem__(self, index: int) -> Sample:
        """Return a drawing and its character as :class:`LabelledImages` does, moved anew."""
        sample = super().__getitem__(index)
        if self.move is not None:
            sample['inputs'] = self.move(sample['inputs'])
        return sample


def _random_affine(augment: dict[str, Any] | None) -> Callable[[Tensor], Tensor] | None:
    if augment is None:
        return None
    from torchvision.transforms import RandomAffine
    from torchvision.transforms.functional import InterpolationMode

    move: Callable[[Tensor], Tensor] = RandomAffine(
        interpolation=InterpolationMode.BILINEAR, **augment
    )
    return move


def _drawings(path: Path, leave_out: Sequence[str]) -> list[PurePosixPath]:
    """Return the members of an archive that are drawings, but for those of some alphabets."""
    what = 'OmniglotImages'
    members: list[PurePosixPath] = []
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            members = [PurePosixPath(name) for name in sorted(archive.namelist())]
    drawings = [each for each in members if _is_drawing(each)]
    if not drawings:
        rule = 'be a zip file of drawings ALPHABET/CHARACTER/NAME.png'
        step = 'Take images_background_small1.zip, for instance'
        raise ValueError(message(what, 'archive', rule, repr(str(path)), step))
    alphabets = sorted({each.parts[-3] for each in drawings})
    for name in leave_out:
        check_choice(what, 'each of leave_out', name, alphabets)
    kept = [each for each in drawings if each.parts[-3] not in leave_out]
    if not kept:
        rule, step = 'leave an alphabet', f'The archive has {", ".join(alphabets)}'
        raise ValueError(message(what, 'leave_out', rule, repr(leave_out), step))
    return kept


def _is_drawing(member: PurePosixPath) -> bool:
    return member.suffix == '.png' and len(member.parts) >= 3 and '__MACOSX' not in member.parts


def _read_characters(
    path: Path, size: int, drawings: Sequence[PurePosixPath]
) -> tuple[Tensor, Tensor, list[str]]:
    """Return drawings (N, 1, size, size), labels (N,) and the names ALPHABET/CHARACTER."""
    from PIL import Image

    images = []
    with zipfile.ZipFile(path) as archive:
        for member in drawings:
            drawing = Image.open(io.BytesIO(archive.read(str(member)))).convert('L')
            drawing = drawing.resize((size, size), Image.Resampling.BOX)
            images.append(1 - np.asarray(drawing, dtype=np.float32) / 255)
    names = ['/'.join(member.parts[-3:-1]) for member in drawings]
    classes, labels = np.unique(names, return_inverse=True)
    stacked = torch.from_numpy(np.stack(images)).unsqueeze(1)
    return stacked, torch.from_numpy(labels), classes.tolist()
