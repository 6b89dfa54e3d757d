"""Pictures of identities on disk, for MMDetection's ReID pipelines; needs MMDetection."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.datasets import ReIDDataset

from mmloss_plugins.errors import check_choice, message
from mmloss_plugins.registry import DATASETS

FOLDERS = dict(
    train=('bounding_box_train',),
    query=('query',),
    gallery=('bounding_box_test',),
    test=('query', 'bounding_box_test'),
)
# 0002_c1s1_000451_03.jpg: identity, camera, sequence, frame, box.
NAME = re.compile(r'(-?\d+)_c(\d+)')
JUNK, DISTRACTOR = -1, 0


class Identities(ReIDDataset):
    """What the sets of this module have in common: where they look, and what they count.

    Args:
        data_root: folder.
        num_classes: identities that there must be, or None.
        triplet_sampler: as in :obj:`ReIDDataset`.
        base_options: ``pipeline``, ``test_mode``, ``indices``, ...; of MMEngine's BaseDataset.
    """

    # What is missing where ``data_root`` is wrong, and what to do about it.
    content = 'a folder for each identity'
    next_step = 'See the docstring'

    def __init__(
        self,
        data_root: str,
        num_classes: int | None = None,
        triplet_sampler: Mapping[str, int] | None = None,
        **base_options: Any,
    ) -> None:
        self.what = type(self).__name__
        self.num_classes = num_classes
        super().__init__(triplet_sampler, ann_file='', data_root=data_root, **base_options)

    def full_init(self) -> None:
        """Read the set, unless it is read already, and check how many identities it has."""
        if self._fully_initialized:
            return
        super().full_init()
        if self.num_classes is not None and self.num_classes != len(self.pids):
            rule = f'hold {self.num_classes} identities'
            step = 'Set num_classes of the data set, of the head and of CenterLoss to those found'
            raise ValueError(self._error('data_root', rule, len(self.pids), step))
        least = (self.triplet_sampler or {}).get('num_ids', 0)
        if least > len(self.pids):
            rule = f'be at most the {len(self.pids)} identities of the set'
            step = 'Draw fewer identities for each batch'
            raise ValueError(self._error('triplet_sampler.num_ids', rule, least, step))

    def load_data_list(self) -> list[dict[str, Any]]:
        """Return a dict for each picture, in the order of their names."""
        data = list(self.pictures())
        if not data:
            raise FileNotFoundError(self._missing('without pictures'))
        self._parse_ann_info(data)
        return data

    def pictures(self) -> Iterator[dict[str, Any]]:
        """Yield ``img_path``, ``gt_label`` and what else is known of each picture."""
        raise TypeError(self._error('pictures', 'be implemented', 'none', 'Yield dicts'))

    def folder(self, name: str = '') -> Path:
        """Return a folder of the set.

        Raises:
            FileNotFoundError: it is not there.
        """
        folder = Path(self.data_root) / name
        if not folder.is_dir():
            raise FileNotFoundError(self._missing(f'no folder {folder.absolute()}'))
        return folder

    def _missing(self, got: str) -> str:
        rule = f'be a folder with {self.content}'
        return self._error(f'data_root={self.data_root!r}', rule, got, self.next_step)

    def _error(self, argument: str, rule: str, got: Any, step: str) -> str:
        return message(self.what, argument, rule, got, step)


@DATASETS.register_module()
class IdentityFolders(Identities):
    """A folder of pictures for each identity, ``data_root/IDENTITY/*.jpg``, as MS1M is unpacked.

    Classes are the folders in the order of their names, found as torchvision's ``ImageFolder``
    finds them. It is a :obj:`ReIDDataset`: its ``triplet_sampler`` draws sets of pictures, and its
    pipelines end with ``PackReIDInputs``.

    Args:
        data_root (str): Folder
        num_classes (int, optional): Identities that there must be, those of the head; None takes
            any number, as for a validation on identities that were not trained. Defaults to None
        triplet_sampler (dict, optional): ``num_ids`` and ``ins_per_id`` of each sample. Defaults
            to None
        base_options: ``pipeline``, ``test_mode``, ``indices``, ...; of MMEngine's BaseDataset

    Raises:
        FileNotFoundError: no such folder, no identity in it, or an identity without pictures.
        ValueError: another number of identities than asked for.
    """

    content = 'a folder of pictures for each identity'
    next_step = 'Set the environment variable FACES to the folder with train and val'

    def pictures(self) -> Iterator[dict[str, Any]]:
        """Yield ``img_path`` and ``gt_label``, the place of the folder among all."""
        from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset

        folder = self.folder()
        if not any(each.is_dir() for each in folder.iterdir()):
            raise FileNotFoundError(self._missing(f'{folder.absolute()} without folders'))
        names, labels = find_classes(str(folder))
        self._metainfo['classes'] = tuple(names)
        try:
            found = make_dataset(str(folder), labels, extensions=IMG_EXTENSIONS)
        except FileNotFoundError as error:
            # Its text names every identity without pictures, which may be all of a million.
            got = f'{folder.absolute()} with empty folders: {str(error)[:100]}...'
            raise FileNotFoundError(self._missing(got)) from None
        for path, label in found:
            yield dict(img_path=path, gt_label=np.array(label, dtype=np.int64))


@DATASETS.register_module()
class Market1501(Identities):
    """Market-1501: pedestrians under six cameras, ``0002_c1s1_000451_03.jpg`` for identity 2.

    It is a :obj:`ReIDDataset`: its ``triplet_sampler`` draws sets of pictures, and its pipelines
    end with ``PackReIDInputs``. Beside ``img_path`` and ``gt_label`` each picture has ``camera_id``
    and ``is_query``, which :class:`SearchMetric` reads; for that, keep them with
    ``dict(type='PackReIDInputs', meta_keys=('camera_id', 'is_query'))``.

    Junk, identity -1, is left out of every split; distractors, identity 0, are in the gallery. For
    'train' the identities are counted anew, 0...C-1 in the order of their numbers.

    Args:
        data_root (str): Folder with ``bounding_box_train``, ``query`` and ``bounding_box_test``
        split (str): 'train', 12,936 pictures of 751 identities; 'query', 3,368 of 750; 'gallery',
            15,913 of the same ones and distractors; or 'test', query and gallery. Defaults to
            'train'
        num_classes (int, optional): Identities that there must be. Defaults to None
        triplet_sampler (dict, optional): ``num_ids`` and ``ins_per_id`` of each sample; for 'train'
            alone. Defaults to None
        base_options: ``pipeline``, ``test_mode``, ``indices``, ...; of MMEngine's BaseDataset

    Raises:
        FileNotFoundError: no such folder, or no picture in it.
        ValueError: an unknown split, a picture whose name has no identity and camera, another
            number of identities than asked for, or a ``triplet_sampler`` for another split.

    Reference:
        Zheng et al., Scalable Person Re-identification: A Benchmark, ICCV 2015.
    """

    content = 'bounding_box_train, query and bounding_box_test'
    next_step = 'Set the environment variable MARKET1501 to the folder Market-1501-v15.09.15'

    def __init__(
        self,
        data_root: str,
        split: str = 'train',
        num_classes: int | None = None,
        triplet_sampler: Mapping[str, int] | None = None,
        **base_options: Any,
    ) -> None:
        what = 'Market1501'
        check_choice(what, 'split', split, FOLDERS)
        if triplet_sampler is not None and split != 'train':
            rule, step = f'be None for split={split!r}', 'Sample sets of pictures for training only'
            raise ValueError(message(what, 'triplet_sampler', rule, triplet_sampler, step))
        self.split = split
        super().__init__(data_root, num_classes, triplet_sampler, **base_options)

    def pictures(self) -> Iterator[dict[str, Any]]:
        """Yield ``img_path``, ``gt_label``, ``camera_id`` and ``is_query``."""
        found = [
            (path, *self._identity_and_camera(path))
            for name in FOLDERS[self.split]
            for path in sorted(self.folder(name).glob('*.jpg'))
        ]
        left_out = (JUNK, DISTRACTOR) if self.split == 'train' else (JUNK,)
        found = [each for each in found if each[1] not in left_out]
        numbers = sorted({identity for _, identity, _ in found})
        labels = {identity: place for place, identity in enumerate(numbers)}
        for path, identity, camera in found:
            label = labels[identity] if self.split == 'train' else identity
            yield dict(
                img_path=str(path),
                gt_label=np.array(label, dtype=np.int64),
                camera_id=camera,
                is_query=path.parent.name == 'query',
            )

    def _identity_and_camera(self, path: Path) -> tuple[int, int]:
        found = NAME.match(path.name)
        if found is None:
            rule = 'start with identity and camera, such as 0002_c1'
            step = 'Keep the names of the data set'
            raise ValueError(self._error('name of a picture', rule, repr(path.name), step))
        return int(found[1]), int(found[2])
