"""IdentityFolders, Market1501 and PadBorder: real files, hosts as oracles, errors."""

from __future__ import annotations

import re

import mmcv
import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS as ROOT
from torch.testing import assert_close

pytest.importorskip('mmdet')

from mmdet.datasets import ReIDDataset

from mmloss_plugins.datasets import IdentityFolders, Market1501, PadBorder
from tests.identity_files import write_identities, write_market, write_picture

PACK = dict(type='mmdet.PackReIDInputs', meta_keys=('camera_id', 'is_query'))
LOAD = [
    dict(type='LoadImageFromFile'),
    dict(type='mmdet.Resize', scale=(16, 24), keep_ratio=False),
]


@pytest.fixture(scope='module')
def faces(tmp_path_factory):
    folder = tmp_path_factory.mktemp('faces')
    write_identities(folder, identities=5, views=3)
    (folder / 'm.002' / 'notes.txt').write_text('no picture')
    return folder


@pytest.fixture(scope='module')
def market(tmp_path_factory):
    folder = tmp_path_factory.mktemp('market')
    write_market(folder)
    return folder


def listed(data):
    return [data.get_data_info(index) for index in range(len(data))]


class TestIdentityFolders:
    def test_as_torchvision_lists_them(self, faces):
        from torchvision.datasets import ImageFolder

        data = ROOT.build(
            dict(type='mmloss_plugins.IdentityFolders', data_root=str(faces), num_classes=5)
        )
        assert isinstance(data, ReIDDataset)
        theirs = ImageFolder(str(faces))
        assert [(each['img_path'], int(each['gt_label'])) for each in listed(data)] == theirs.imgs
        assert len(data) == 15
        assert data.metainfo['classes'] == tuple(theirs.classes)
        assert data.metainfo['classes'][4] == 'm.004'

    def test_any_number_of_identities(self, faces):
        assert len(IdentityFolders(str(faces), indices=7)) == 7

    def test_packed_sample(self, faces, mmdet_scope):
        data = IdentityFolders(str(faces), pipeline=[*LOAD, dict(PACK, meta_keys=())])
        sample = data[10]
        assert sample['inputs'].shape == (1, 3, 24, 16)
        assert sample['data_samples'].gt_label.label.tolist() == [3]

    def test_another_number_of_identities(self, faces):
        text = 'data_root must hold 93431 identities, got 5. Set num_classes of the data set, of'
        with pytest.raises(ValueError, match=re.escape(f'IdentityFolders: {text}')):
            IdentityFolders(str(faces), num_classes=93431)

    def test_nothing_there(self, faces, tmp_path):
        text = r"data_root='.*nowhere' must be a folder with a folder of pictures .* got no folder"
        with pytest.raises(FileNotFoundError, match=text):
            IdentityFolders(str(tmp_path / 'nowhere'))
        with pytest.raises(FileNotFoundError, match=r'without folders\. Set the environment var'):
            IdentityFolders(str(faces / 'm.000'))

    def test_an_identity_without_pictures(self, tmp_path):
        write_identities(tmp_path, identities=2, views=1)
        (tmp_path / 'm.empty').mkdir()
        with pytest.raises(FileNotFoundError, match=r'empty folders: .*m\.empty.*Set the environ'):
            IdentityFolders(str(tmp_path))


class TestMarket1501:
    def test_train_counts_identities_anew(self, market):
        data = ROOT.build(
            dict(type='mmloss_plugins.Market1501', data_root=str(market), num_classes=4)
        )
        found = listed(data)
        assert len(found) == 16
        # Identities 2, 5, 8, 11, each four times.
        assert [int(each['gt_label']) for each in found] == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4
        assert found[4]['img_path'].endswith('bounding_box_train/0005_c1s1_000000_01.jpg')
        assert [each['camera_id'] for each in found[:4]] == [1, 1, 2, 2]
        assert not any(each['is_query'] for each in found)

    def test_test_is_query_and_gallery_without_junk(self, market):
        query, gallery, both = (
            listed(Market1501(str(market), split)) for split in ('query', 'gallery', 'test')
        )
        paths = [each['img_path'] for each in both]
        assert paths == [each['img_path'] for each in query + gallery]
        assert [int(each['gt_label']) for each in query] == [100, 103, 106, 109]
        assert {each['camera_id'] for each in query} == {1}
        assert [each['is_query'] for each in both] == [True] * 4 + [False] * 18
        labels = [int(each['gt_label']) for each in gallery]
        # Two distractors first; junk and Thumbs.db are no pictures of anyone.
        assert labels == [0, 0, *[100] * 4, *[103] * 4, *[106] * 4, *[109] * 4]

    def test_distractors_are_nobody_to_train_on(self, tmp_path):
        write_market(tmp_path, identities=2)
        for name in ('0000_c1s1_000001_00.jpg', '-1_c1s1_000001_00.jpg'):
            write_picture(tmp_path / 'bounding_box_train' / name, 7, 7, (64, 32))
        data = Market1501(str(tmp_path), num_classes=2)
        assert len(data) == 8

    def test_what_the_metric_needs_is_packed(self, market, mmdet_scope):
        data = Market1501(str(market), 'test', pipeline=[*LOAD, PACK])
        sample = data[4]['data_samples']
        assert (sample.camera_id, sample.is_query) == (1, False)
        kept = data[3]['data_samples'].to_dict()
        assert kept['is_query'] is True
        assert kept['gt_label']['label'].tolist() == [109]

    def test_triplet_sampler(self, market, mmdet_scope):
        each = dict(type='TransformBroadcaster', share_random_params=False, transforms=LOAD)
        data = Market1501(
            str(market),
            triplet_sampler=dict(num_ids=3, ins_per_id=2),
            pipeline=[each, dict(PACK, meta_keys=())],
        )
        sample = data[6]
        labels = sample['data_samples'].gt_label.label.tolist()
        assert sample['inputs'].shape == (6, 3, 24, 16)
        assert labels[0] == labels[1] == 1
        assert len(set(labels)) == 3
        assert labels[::2] == labels[1::2]

    @pytest.mark.parametrize(
        ('options', 'text'),
        [
            (dict(split='val'), "split must be one of 'train', 'query', 'gallery', 'test', got"),
            (dict(num_classes=751), 'data_root must hold 751 identities, got 4. Set num_classes'),
            (
                dict(triplet_sampler=dict(num_ids=16, ins_per_id=4)),
                'triplet_sampler.num_ids must be at most the 4 identities of the set, got 16. Draw',
            ),
            (
                dict(split='test', triplet_sampler=dict(num_ids=2)),
                "triplet_sampler must be None for split='test', got {'num_ids': 2}. Sample sets",
            ),
        ],
    )
    def test_bad_options(self, options, text, market):
        with pytest.raises(ValueError, match=re.escape(f'Market1501: {text}')):
            Market1501(str(market), **options)

    def test_nothing_there(self, tmp_path):
        text = r"Market1501: data_root='.*' must be a folder with bounding_box_train, query and bo"
        with pytest.raises(FileNotFoundError, match=text + '.*got no folder .*bounding_box_train'):
            Market1501(str(tmp_path))
        (tmp_path / 'bounding_box_train').mkdir()
        with pytest.raises(FileNotFoundError, match=text + '.*got without pictures'):
            Market1501(str(tmp_path))

    def test_another_name(self, tmp_path):
        write_market(tmp_path, identities=2)
        write_picture(tmp_path / 'query' / 'someone.jpg', 7, 7, (64, 32))
        text = "name of a picture must start with identity and camera, such as 0002_c1, got 'some"
        with pytest.raises(ValueError, match=text):
            Market1501(str(tmp_path), 'query')


class TestPadBorder:
    def test_on_every_side(self):
        image = np.arange(1, 37, dtype=np.uint8).reshape(3, 4, 3)
        found = PadBorder(width=2, value=9)(dict(img=image, gt_label=1, flip=True))
        assert found['img'].shape == (7, 8, 3)
        assert found['img_shape'] == (7, 8)
        assert (found['img'][2:5, 2:6] == image).all()
        # 7 * 8 - 3 * 4 pixels of 3 channels.
        assert (found['img'] == 9).sum() == 44 * 3 + 1

    def test_with_a_crop_it_moves_the_image_as_torchvision_does(self, mmdet_scope):
        """By up to the width, each of the 5 x 5 shifts about as often."""
        from mmdet.registry import TRANSFORMS
        from torchvision.transforms import RandomCrop

        image = np.zeros((9, 7, 3), dtype=np.uint8)
        image[4, 3] = 255
        crop = TRANSFORMS.build(dict(type='RandomCrop', crop_size=(7, 9)))
        ours, theirs = np.zeros((9, 7), int), np.zeros((9, 7), int)
        for _ in range(1500):
            found = crop(PadBorder(width=2)(dict(img=image)))['img']
            assert found.shape == image.shape
            ours += found[..., 0] > 0
            moved = RandomCrop((9, 7), padding=2)(torch.from_numpy(image).permute(2, 0, 1))
            theirs += moved[0].numpy() > 0
        assert ((ours > 0) == (theirs > 0)).all()
        assert (ours > 0).sum() == 25
        # 60 each, with a standard deviation of 7.6.
        assert abs(ours[ours > 0] - 60).max() < 38

    def test_grey_images(self):
        found = PadBorder(width=1)(dict(img=np.ones((2, 3), dtype=np.uint8)))['img']
        assert_close(torch.from_numpy(found.sum(0)), torch.tensor([0, 2, 2, 2, 0]).to(torch.uint64))

    @pytest.mark.parametrize(
        ('options', 'text'),
        [
            (dict(width=-1), 'width must be an integer from 0 to 1000000, got -1. Take width=10'),
            (dict(width=2.0), 'width must be an integer from 0 to 1000000, got 2.0'),
            (dict(width=2, value=300), 'value must be an integer from 0 to 255, got 300'),
        ],
    )
    def test_mistakes_die_in_the_constructor(self, options, text):
        with pytest.raises(ValueError, match=re.escape(f'PadBorder: {text}')):
            PadBorder(**options)

    def test_boxes_would_stay_behind(self):
        image = np.zeros((4, 4, 3), dtype=np.uint8)
        with pytest.raises(ValueError, match=r"must be without places, got \['gt_bboxes'\]\. Pad"):
            PadBorder(width=1)(dict(img=image, gt_bboxes=np.zeros((1, 4))))


def test_pictures_are_written_as_they_are_named(market):
    """The same identity looks alike to each camera, another one does not."""
    folder = market / 'query'
    one, other = (mmcv.imread(str(folder / f'{i:04d}_c1s1_000009_00.jpg')) for i in (100, 103))
    same = mmcv.imread(str(market / 'bounding_box_test' / '0100_c2s1_000001_01.jpg'))
    near, far = (np.abs(one.astype(int) - each).mean() for each in (same, other))
    assert near < 25 < far
