"""DigitImages: the digits of scikit-learn, once each, in two splits that stay as they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS as ROOT
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, default_collate

from mmloss_plugins.datasets import labelled_images
from mmloss_plugins.datasets.labelled_images import DigitImages

# The first of 'val'; results of all releases are on the same images.
EXPECTED = [2, 0, 4, 9, 4, 1, 2, 4, 6, 7, 9, 1]


@pytest.fixture(scope='module')
def splits():
    return {split: DigitImages(split) for split in ('train', 'val')}


def test_both_splits_are_all_digits_once_with_their_labels(splits):
    digits = load_digits()
    rows = [
        (*image.flatten().tolist(), int(label))
        for data in splits.values()
        for image, label in zip(data.images, data.labels)
    ]
    expected = [(*x.tolist(), int(y)) for x, y in zip(digits.data, digits.target)]
    assert len(rows) == 1797
    assert sorted(rows) == sorted(expected)


def test_sizes_types_and_range(splits):
    assert [len(data) for data in splits.values()] == [1347, 450]
    for data in splits.values():
        assert data.images.shape[1:] == (1, 8, 8)
        assert (data.images.dtype, data.labels.dtype) == (torch.float32, torch.int64)
        assert (data.images.min().item(), data.images.max().item()) == (0, 16)
        assert data.metainfo == dict(classes=tuple('0123456789'))


def test_a_quarter_of_each_class_is_for_validation(splits):
    counts = [np.bincount(data.labels, minlength=10) for data in splits.values()]
    assert np.abs(counts[1] / (counts[0] + counts[1]) - 0.25).max() < 0.005


def test_the_splits_do_not_depend_on_the_seed_of_the_run(splits):
    np.random.seed(5)  # noqa: NPY002 (what MMEngine sets)
    torch.manual_seed(5)
    for split, data in splits.items():
        torch.testing.assert_close(DigitImages(split).images, data.images, rtol=0, atol=0)
    assert splits['val'].labels[:12].tolist() == EXPECTED


def test_the_first_of_each_class(splits):
    few = DigitImages('train', per_class=3)
    labels = few.labels.tolist()
    assert [labels.count(c) for c in range(10)] == [3] * 10
    left = iter(zip(splits['train'].images, splits['train'].labels))
    # In the order of the split, so that what was not taken of a class comes after all that was.
    assert all(
        any(label == other and (image == found).all() for found, other in left)
        for image, label in zip(few.images, few.labels)
    )
    for c in range(10):
        of_class = splits['train'].images[splits['train'].labels == c]
        torch.testing.assert_close(few.images[few.labels == c], of_class[:3], rtol=0, atol=0)
    assert len(DigitImages('val', per_class=1000)) == 450


@pytest.mark.parametrize('per_class', [0, 2.0, True])
def test_bad_number_of_images(per_class):
    with pytest.raises(
        ValueError, match=r'per_class must be a positive integer, got .* None takes'
    ):
        DigitImages(per_class=per_class)


def test_images_stand_upright(splits):
    # A one has more ink in its two middle columns than in any two rows.
    ones = splits['train'].images[splits['train'].labels == 1].mean(0)[0]
    assert ones[:, 3:5].sum() > ones.sum(1).topk(2).values.sum()


def test_batches(splits):
    loader = DataLoader(splits['val'], batch_size=64, collate_fn=default_collate)
    batches = list(loader)
    assert [len(batch['inputs']) for batch in batches] == [64] * 7 + [2]
    labels = torch.cat([batch['data_samples']['gt_label'] for batch in batches])
    torch.testing.assert_close(labels, splits['val'].labels)


def test_built_by_a_config_of_any_host():
    data = ROOT.build(dict(type='mmloss_plugins.DigitImages'))
    assert len(data) == 1347


def test_unknown_split():
    with pytest.raises(ValueError, match=r"split must be one of 'train', 'val', got 'test'"):
        DigitImages('test')


def test_without_scikit_learn(monkeypatch):
    monkeypatch.setattr(labelled_images, 'find_spec', lambda name: None)
    with pytest.raises(ImportError, match=r'scikit-learn must be installed, got none. Run pip'):
        DigitImages()
