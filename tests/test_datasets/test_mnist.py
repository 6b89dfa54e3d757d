"""MnistImages: real idx files, torchvision as the oracle, places of the files, errors."""

from __future__ import annotations

import re

import pytest
import torch
from mmengine.registry import DATASETS as ROOT
from torch.testing import assert_close

from mmloss_plugins.datasets import MnistImages, mnist
from tests.identity_files import write_mnist

pytest.importorskip('torchvision')


@pytest.mark.parametrize('place', ['MNIST/raw', 'raw', ''])
@pytest.mark.parametrize(('split', 'prefix'), [('train', 'train'), ('val', 't10k')])
def test_pixels_and_labels_of_the_files(place, split, prefix, tmp_path):
    images, labels = write_mnist(tmp_path / place)[prefix]
    data = ROOT.build(dict(type='mmloss_plugins.MnistImages', root=str(tmp_path), split=split))
    assert type(data) is MnistImages
    assert len(data) == 20
    assert data.metainfo['classes'] == tuple('0123456789')
    for index in (0, 13):
        sample = data[index]
        assert sample['inputs'].dtype == torch.float32
        assert_close(sample['inputs'], torch.from_numpy(images[index]).float()[None])
        assert sample['data_samples']['gt_label'].item() == labels[index]
    assert data[3]['inputs'].max() > 200


def test_as_torchvision_reads_them(tmp_path):
    from torchvision.datasets import MNIST

    write_mnist(tmp_path / 'MNIST' / 'raw')
    theirs, ours = MNIST(str(tmp_path), train=False), MnistImages(str(tmp_path), 'val')
    for index, (picture, label) in enumerate(theirs):
        sample = ours[index]
        assert list(picture.getdata()) == sample['inputs'].flatten().tolist()
        assert label == sample['data_samples']['gt_label'].item()


def test_batches_are_collated(tmp_path):
    write_mnist(tmp_path)
    loader = torch.utils.data.DataLoader(MnistImages(str(tmp_path)), batch_size=8)
    batch = next(iter(loader))
    assert batch['inputs'].shape == (8, 1, 28, 28)
    assert batch['data_samples']['gt_label'].tolist() == list(range(8))
    assert batch['data_samples']['gt_label'].dtype == torch.int64


class TestErrors:
    def test_no_files(self, tmp_path):
        text = r'must be a folder with train-images-idx3-ubyte and .* got .*, no folder\. Set the'
        with pytest.raises(FileNotFoundError, match=text):
            MnistImages(str(tmp_path / 'nowhere'))
        with pytest.raises(FileNotFoundError, match=r'got .* without them\. .* download=True'):
            MnistImages(str(tmp_path))

    def test_images_without_labels(self, tmp_path):
        write_mnist(tmp_path)
        (tmp_path / 't10k-labels-idx1-ubyte').unlink()
        assert len(MnistImages(str(tmp_path))) == 20
        with pytest.raises(FileNotFoundError, match='t10k-labels-idx1-ubyte'):
            MnistImages(str(tmp_path), 'val')

    def test_another_number_of_labels(self, tmp_path):
        write_mnist(tmp_path)
        write_mnist(tmp_path / 'other', count=7)
        (tmp_path / 'other' / 'train-labels-idx1-ubyte').replace(
            tmp_path / 'train-labels-idx1-ubyte'
        )
        with pytest.raises(ValueError, match=r'must have 20 labels for its images, got 7\. Unpack'):
            MnistImages(str(tmp_path))

    @pytest.mark.parametrize(
        ('options', 'error', 'text'),
        [
            (dict(split='test'), ValueError, "split must be one of 'train', 'val', got 'test'"),
            (dict(download='no'), TypeError, "download must be True or False, got 'no'"),
        ],
    )
    def test_mistakes_die_in_the_constructor(self, options, error, text, tmp_path):
        with pytest.raises(error, match=re.escape(f'MnistImages: {text}')):
            MnistImages(str(tmp_path), **options)

    def test_without_torchvision(self, monkeypatch, tmp_path):
        monkeypatch.setattr(mnist, 'find_spec', lambda name: None)
        with pytest.raises(ImportError, match=r'torchvision must be installed, got none\. Install'):
            MnistImages(str(tmp_path))


def test_downloads_only_if_asked_and_only_what_is_missing(monkeypatch, tmp_path):
    import torchvision.datasets

    asked = []

    def fetch(root, train, download):
        asked.append((root, train, download))
        write_mnist(tmp_path / 'MNIST' / 'raw')

    monkeypatch.setattr(torchvision.datasets, 'MNIST', fetch)
    with pytest.raises(FileNotFoundError):
        MnistImages(str(tmp_path))
    assert asked == []
    for _ in range(2):
        assert len(MnistImages(str(tmp_path), download=True)) == 20
    assert asked == [(str(tmp_path), True, True)]
