"""OmniglotImages: a small archive written here, values by hand, and the real ones if present."""

from __future__ import annotations

import io
import os
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS as ROOT
from PIL import Image

from mmloss_plugins.datasets.labelled_images import LabelledImages, OmniglotImages


def drawing(ink):
    """A bilevel PNG of 105x105 whose ink, black, is where ``ink`` is True."""
    buffer = io.BytesIO()
    Image.fromarray(np.where(ink, 0, 255).astype(np.uint8)).convert('1').save(buffer, 'PNG')
    return buffer.getvalue()


def block(rows, columns):
    ink = np.zeros((105, 105), bool)
    ink[rows, columns] = True
    return drawing(ink)


# The ninth of a drawing at size 3: 35 pixels a side.
CORNER = block(slice(0, 35), slice(0, 35))
# 21 of 35 columns are 3 / 5 of the pixels; the middle third of the rows.
STRIP = block(slice(35, 70), slice(70, 91))
FULL = block(slice(None), slice(None))
MEMBERS = {
    'set/Runes/character02/0002_02.png': STRIP,
    'set/Runes/character02/0002_01.png': CORNER,
    'set/Runes/character01/0001_01.png': FULL,
    'set/Cuneiform/character01/0003_01.png': CORNER,
    'set/Cuneiform/character01/0003_02.png': CORNER,
    # None of these is a drawing of a character.
    'set/Runes/character01/notes.txt': b'-',
    'set.png': FULL,
    '__MACOSX/set/Runes/character01/._0001_01.png': b'-',
}


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / 'small.zip'
    with zipfile.ZipFile(path, 'w') as members:
        members.writestr('set/Runes/', b'')
        for name, data in MEMBERS.items():
            members.writestr(name, data)
    return path


class TestByHand:
    def test_classes_and_order(self, archive):
        data = OmniglotImages(str(archive))
        assert data.classes == (
            'Cuneiform/character01',
            'Runes/character01',
            'Runes/character02',
        )
        assert data.metainfo == dict(classes=data.classes)
        assert data.labels.tolist() == [0, 0, 1, 2, 2]
        assert data.labels.dtype == torch.int64
        assert all(type(name) is str for name in data.classes)
        assert len(data) == len(list(data)) == 5

    def test_ink_is_averaged_over_the_pixels(self, archive):
        data = OmniglotImages('small.zip', data_root=str(archive.parent), size=3)
        assert data[0]['inputs'].dtype == torch.float32
        corner = torch.tensor([[1.0, 0, 0], [0, 0, 0], [0, 0, 0]])
        strip = torch.tensor([[0.0, 0, 0], [0, 0, 0.6], [0, 0, 0]])
        torch.testing.assert_close(data[3]['inputs'], corner[None])
        torch.testing.assert_close(data[2]['inputs'], torch.ones(1, 3, 3))
        # The PNG has 256 grey levels after averaging.
        torch.testing.assert_close(data[4]['inputs'], strip[None], rtol=0, atol=0.5 / 255)

    def test_size_and_the_default(self, archive):
        assert OmniglotImages(str(archive))[0]['inputs'].shape == (1, 28, 28)
        whole = OmniglotImages(str(archive), size=105)[4]['inputs'][0]
        assert whole.sum() == 35 * 21
        assert whole[35:70, 70:91].all()

    def test_batch_of_a_loader(self, archive):
        loader = torch.utils.data.DataLoader(OmniglotImages(str(archive)), batch_size=5)
        (batch,) = loader
        assert batch['inputs'].shape == (5, 1, 28, 28)
        assert batch['data_samples']['gt_label'].tolist() == [0, 0, 1, 2, 2]

    def test_an_epoch_ends(self, archive):
        with pytest.raises(IndexError):
            OmniglotImages(str(archive))[5]

    def test_built_by_a_config_of_any_host(self, archive):
        config = dict(type='mmloss_plugins.OmniglotImages', archive=str(archive), size=4)
        assert isinstance(ROOT.build(config), LabelledImages)


class TestLeavingOut:
    def test_labels_start_at_zero(self, archive):
        data = OmniglotImages(str(archive), leave_out=('Cuneiform',))
        assert data.classes == ('Runes/character01', 'Runes/character02')
        assert data.labels.tolist() == [0, 1, 1]
        whole = OmniglotImages(str(archive))
        torch.testing.assert_close(data.images, whole.images[2:], rtol=0, atol=0)

    def test_an_unknown_alphabet(self, archive):
        text = (
            "OmniglotImages: each of leave_out must be one of 'Cuneiform', 'Runes', got 'Rune'. "
            "Did you mean 'Runes'?"
        )
        with pytest.raises(ValueError, match=re.escape(text)):
            OmniglotImages(str(archive), leave_out=['Cuneiform', 'Rune'])

    def test_all_alphabets(self, archive):
        text = r'leave_out must leave an alphabet, got .*The archive has Cuneiform, Runes\.'
        with pytest.raises(ValueError, match=text):
            OmniglotImages(str(archive), leave_out=('Cuneiform', 'Runes'))

    @pytest.mark.parametrize('names', ['Runes', None, {'Runes'}])
    def test_other_than_a_sequence(self, archive, names):
        with pytest.raises(TypeError, match=r'leave_out must be a sequence of names, got'):
            OmniglotImages(str(archive), leave_out=names)


class TestMoving:
    def test_a_quarter_turn(self, archive):
        still = OmniglotImages(str(archive), size=9)
        turned = OmniglotImages(str(archive), size=9, augment=dict(degrees=(90, 90)))
        # Clockwise, as images have y downwards.
        expected = still[4]['inputs'].rot90(-1, (1, 2))
        assert not torch.equal(expected, still[4]['inputs'])
        torch.testing.assert_close(turned[4]['inputs'], expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(turned.images, still.images, rtol=0, atol=0)

    def test_anew_each_time_and_as_the_seed_says(self, archive):
        data = OmniglotImages(str(archive), augment=dict(degrees=10, translate=(0.2, 0.2)))
        torch.manual_seed(3)
        first, second = data[4], data[4]
        torch.manual_seed(3)
        assert (first['inputs'] != second['inputs']).any()
        assert first['data_samples']['gt_label'] == 2
        torch.testing.assert_close(data[4]['inputs'], first['inputs'], rtol=0, atol=0)

    def test_beyond_the_border_is_paper(self, archive):
        data = OmniglotImages(str(archive), size=9, augment=dict(degrees=0, scale=(1 / 3, 1 / 3)))
        moved = data[2]['inputs'][0]  # a full square, shrunk to the middle ninth
        assert moved[3:6, 3:6].sum() == moved.sum() == 9


class TestErrors:
    @pytest.mark.parametrize('size', [0, 106, 28.0, True])
    def test_size(self, archive, size):
        with pytest.raises(ValueError, match=r'size must be an integer from 1 to 105, got'):
            OmniglotImages(str(archive), size=size)

    def test_missing_archive_is_named_with_its_folder(self, tmp_path):
        text = f"archive must be an archive of Omniglot, got '{tmp_path / 'none.zip'}'. Get it from"
        with pytest.raises(FileNotFoundError, match=re.escape(text)):
            OmniglotImages('none.zip', data_root=str(tmp_path))

    def test_no_zip_file_and_one_without_drawings(self, tmp_path):
        path = tmp_path / 'other.zip'
        path.write_text('no zip')
        text = r'archive must be a zip file of drawings ALPHABET/CHARACTER/NAME\.png, got'
        with pytest.raises(ValueError, match=text):
            OmniglotImages(str(path))
        with zipfile.ZipFile(path, 'w') as members:
            members.writestr('character01/0001_01.png', FULL)
        with pytest.raises(ValueError, match=text):
            OmniglotImages(str(path))

    def test_unknown_option_of_the_augmentation(self, archive):
        with pytest.raises(TypeError, match='degree'):
            OmniglotImages(str(archive), augment=dict(degree=10))


@pytest.fixture(scope='module')
def omniglot():
    beside = Path(__file__).parents[3] / 'shared' / 'datasets' / 'omniglot_small'
    folder = Path(os.environ.get('OMNIGLOT', beside))
    if not folder.is_dir():
        pytest.skip(f'no Omniglot: {folder} is absent and OMNIGLOT is not set')
    return {
        number: OmniglotImages(f'images_background_small{number}.zip', str(folder))
        for number in (1, 2)
    }


def alphabets(data):
    return {name.split('/')[0] for name in data.classes}


class TestRealArchives:
    def test_counts(self, omniglot):
        for data, classes in ((omniglot[1], 136), (omniglot[2], 156)):
            assert len(data.classes) == classes
            assert data.labels.bincount().tolist() == [20] * classes
            assert len(alphabets(data)) == 5
            # Strokes are thin; ink and paper are not the other way round.
            assert 0.05 < data.images.mean() < 0.1

    def test_two_alphabets_are_in_both(self, omniglot):
        shared = alphabets(omniglot[1]) & alphabets(omniglot[2])
        assert shared == {'Greek', 'Latin'}
        for alphabet in shared:
            first, second = (_of(data, alphabet) for data in omniglot.values())
            torch.testing.assert_close(first, second, rtol=0, atol=0)

    def test_without_them_nothing_is_shared(self, omniglot):
        kept = [
            label
            for label, name in enumerate(omniglot[2].classes)
            if not name.startswith(('Greek/', 'Latin/'))
        ]
        assert len(kept) == 106
        unseen = omniglot[2].images[torch.isin(omniglot[2].labels, torch.tensor(kept))]
        assert len(unseen) == 2120
        known = {image.numpy().tobytes() for image in omniglot[1].images}
        assert not known & {image.numpy().tobytes() for image in unseen}


def _of(data, alphabet):
    rows = [data.classes[label].startswith(f'{alphabet}/') for label in data.labels]
    return data.images[torch.tensor(rows)]
