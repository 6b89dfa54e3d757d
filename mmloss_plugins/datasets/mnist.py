"""MNIST from its own files."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from mmloss_plugins.datasets.labelled_images import SPLITS, LabelledImages, Sample
from mmloss_plugins.errors import check_choice, message
from mmloss_plugins.registry import DATASETS

WHAT = 'MnistImages'
PREFIXES = dict(train='train', val='t10k')
# Where torchvision puts the files, and where a copy may have them.
PLACES = ('MNIST/raw', 'raw', '.')


@DATASETS.register_module()
class MnistImages(LabelledImages):
    """The handwritten digits of MNIST: 28x28, ink 255 on 0, 10 classes.

    Reads the four unpacked files ``{train,t10k}-images-idx3-ubyte`` and
    ``{train,t10k}-labels-idx1-ubyte`` of ``root``, of its ``raw`` or of its ``MNIST/raw``, which is
    where torchvision puts them.

    Args:
        root (str): Folder
        split (str): 'train', 60,000 images, or 'val', the 10,000 images for tests
        download (bool): Let torchvision fetch the files, 12 MB, if they are not there. Defaults to
            False

    Raises:
        ImportError: torchvision is missing.
        FileNotFoundError: the files are not there.
        TypeError: ``download`` is no bool.
        ValueError: an unknown split, or files with other than one label per image.

    Reference:
        LeCun et al., Gradient-based learning applied to document recognition, Proceedings of the
        IEEE 1998.
    """

    def __init__(self, root: str, split: str = 'train', download: bool = False) -> None:
        check_choice(WHAT, 'split', split, SPLITS)
        if not isinstance(download, bool):
            step = 'True fetches the files if they are not there'
            raise TypeError(message(WHAT, 'download', 'be True or False', repr(download), step))
        if find_spec('torchvision') is None:
            step = 'Install the torchvision that is made for your PyTorch'
            raise ImportError(message(WHAT, 'torchvision', 'be installed', 'none', step))
        from torchvision.datasets import MNIST
        from torchvision.datasets.mnist import read_image_file, read_label_file

        names = _names(split)
        if download and _folder(root, names) is None:
            MNIST(root, train=split == 'train', download=True)
        folder = _folder(root, names)
        if folder is None:
            raise FileNotFoundError(_missing(root, names))
        images = read_image_file(str(folder / names[0]))
        labels = read_label_file(str(folder / names[1]))
        if len(images) != len(labels):
            rule, step = f'have {len(images)} labels for its images', 'Unpack the files anew'
            raise ValueError(message(WHAT, f'root={root!r}', rule, len(labels), step))
        super().__init__(images.unsqueeze(1), labels.long(), [str(digit) for digit in range(10)])

    def __getitem__(self, index: int) -> Sample:
        """Return ``inputs``, float32 (1, 28, 28), and ``data_samples``, a dict with ``gt_label``.

        The set is kept in a byte per pixel.
        """
        sample = super().__getitem__(index)
        sample['inputs'] = sample['inputs'].to(torch.float32)
        return sample


def _names(split: str) -> tuple[str, str]:
    prefix = PREFIXES[split]
    return (f'{prefix}-images-idx3-ubyte', f'{prefix}-labels-idx1-ubyte')


def _folder(root: str, names: tuple[str, str]) -> Path | None:
    """Return the folder that has all of ``names``, or None."""
    for place in PLACES:
        folder = Path(root) / place
        if all((folder / name).is_file() for name in names):
            return folder
    return None


def _missing(root: Any, names: tuple[str, str]) -> str:
    rule = f'be a folder with {names[0]} and {names[1]}, or with MNIST/raw that has them'
    got = f'{Path(root).absolute()}' + (' without them' if Path(root).is_dir() else ', no folder')
    step = (
        'Set the environment variable MNIST to the folder of the files, unpacked; or let '
        'torchvision fetch them with download=True'
    )
    return message(WHAT, f'root={root!r}', rule, got, step)
