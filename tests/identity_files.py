"""Generated pictures in the layouts of MNIST, of folders of identities and of Market-1501."""

from __future__ import annotations

import struct
from pathlib import Path

import mmcv
import numpy as np


def write_mnist(folder: Path, count: int = 20) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Write four idx files, and return images (N, 28, 28) and labels (N,) of both splits."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for seed, prefix in enumerate(('train', 't10k')):
        random = np.random.default_rng(seed)
        images = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        # A big-endian head: type 8, unsigned byte, and the number of dimensions, then the sizes.
        head = struct.pack('>4B3I', 0, 0, 8, 3, count, 28, 28)
        (folder / f'{prefix}-images-idx3-ubyte').write_bytes(head + images.tobytes())
        head = struct.pack('>4BI', 0, 0, 8, 1, count)
        (folder / f'{prefix}-labels-idx1-ubyte').write_bytes(head + labels.tobytes())
        found[prefix] = (images, labels)
    return found


def write_picture(path: Path, look: int, view: int, shape: tuple[int, int]) -> None:
    """Write the picture of one look, with the noise of one view."""
    colour = np.random.default_rng(look).integers(0, 256, (4, 4, 3))
    picture = np.kron(colour, np.ones((-(-shape[0] // 4), -(-shape[1] // 4), 1)))[: shape[0]]
    picture = picture[:, : shape[1]]
    noise = np.random.default_rng(1000 + view).integers(-20, 21, picture.shape)
    mmcv.imwrite((picture + noise).clip(0, 255).astype(np.uint8), str(path))


def write_identities(folder: Path, identities: int, views: int, first: int = 0) -> None:
    """Write ``folder/IDENTITY/VIEW.jpg`` of 40x30."""
    for identity in range(first, first + identities):
        for view in range(views):
            path = folder / f'm.{identity:03d}' / f'{view}.jpg'
            write_picture(path, identity, 10 * identity + view, (40, 30))


def write_market(folder: Path, identities: int = 4) -> None:
    """Write a Market-1501 of ``identities`` for training and as many others for the test.

    Each identity has two pictures by each of two cameras; one more by the first is the query. The
    gallery also has two distractors and two of junk.
    """
    for half, first in (('bounding_box_train', 2), ('bounding_box_test', 100)):
        for identity in range(first, first + 3 * identities, 3):
            for camera in (1, 2):
                for frame in range(2):
                    name = f'{identity:04d}_c{camera}s1_{frame:06d}_01.jpg'
                    write_picture(folder / half / name, identity, 10 * camera + frame, (64, 32))
            if half == 'bounding_box_test':
                name = f'{identity:04d}_c1s1_{9:06d}_00.jpg'
                write_picture(folder / 'query' / name, identity, 9, (64, 32))
    for number, name in enumerate(('0000_c1s1_{:06d}_01.jpg', '-1_c2s1_{:06d}_01.jpg')):
        for frame in range(2):
            path = folder / 'bounding_box_test' / name.format(frame)
            write_picture(path, 500 + 10 * number + frame, frame, (64, 32))
    # What the archive has beside the pictures.
    (folder / 'bounding_box_test' / 'Thumbs.db').write_bytes(b'')
