"""The generated pixel sets: the same on every run, as sparse as they claim, with look-alikes."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS as ROOT

from mmloss_plugins.datasets import DotsDataset, StripesDataset
from mmloss_plugins.datasets.pixels import PixelDataset

SETS = (DotsDataset, StripesDataset)


def unpack(sample):
    return sample['inputs'], sample['data_samples']['target']


@pytest.mark.parametrize('cls', SETS)
class TestAnySet:
    def test_shapes_and_values(self, cls):
        image, target = unpack(cls(num_images=1)[0])
        height, width = cls().size_hw
        assert image.shape == target.shape == (1, height, width)
        assert image.dtype == target.dtype == torch.float32
        assert set(target.unique().tolist()) == {0.0, 1.0}

    def test_same_sample_in_any_order_and_in_a_larger_set(self, cls):
        small, large = cls(num_images=3), cls(num_images=9)
        backwards = [unpack(large[index]) for index in (8, 2, 1, 0)][1:]
        for index, (image, target) in zip((2, 1, 0), backwards):
            torch.testing.assert_close(unpack(small[index])[0], image, rtol=0, atol=0)
            torch.testing.assert_close(unpack(small[index])[1], target, rtol=0, atol=0)

    def test_same_sample_in_another_process(self, cls):
        code = (
            f'from mmloss_plugins.datasets import {cls.__name__} as C\n'
            'print(C(num_images=8, split="val")[7]["inputs"].double().sum().item())'
        )
        other = subprocess.run(
            [sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True
        )
        here = cls(num_images=8, split='val')[7]['inputs'].double().sum().item()
        assert float(other.stdout) == here

    @pytest.mark.parametrize(
        ('change', 'index'), [(dict(seed=1), 0), (dict(split='val'), 0), (dict(), 1)]
    )
    def test_seed_split_and_index_change_the_sample(self, cls, change, index):
        image, target = unpack(cls(**change)[index])
        assert (image != unpack(cls()[0])[0]).float().mean() > 0.99
        assert (target != unpack(cls()[0])[1]).any()

    def test_noise_changes_the_image_alone(self, cls):
        image, target = unpack(cls(noise=0.0)[0])
        noisy, same = unpack(cls(noise=0.3)[0])
        assert (noisy - image).std().item() == pytest.approx(0.3, rel=0.05)
        assert image.min() == 0
        torch.testing.assert_close(same, target)

    def test_samples_are_drawn_once(self, cls):
        data = cls()
        assert data[5] is data[5]

    def test_rectangular_maps(self, cls):
        image, target = unpack(cls(size_hw=(64, 100))[0])
        assert image.shape == target.shape == (1, 64, 100)
        assert target.sum() > 0

    def test_an_epoch_ends(self, cls):
        data = cls(num_images=3)
        assert len(list(data)) == len(data) == 3
        with pytest.raises(IndexError, match=r'index must be from 0 to 2, got 3\. Raise num'):
            data[3]

    def test_built_by_a_config_of_any_host(self, cls):
        data = ROOT.build(dict(type=f'mmloss_plugins.{cls.__name__}', num_images=2))
        assert type(data) is cls
        assert data.metainfo['dataset_name'] == cls.__name__.replace('Dataset', '').lower()

    @pytest.mark.parametrize(
        ('arguments', 'error', 'text'),
        [
            (dict(split='test'), ValueError, r"split must be one of 'train', 'val', got 'test'"),
            (dict(num_images=0), ValueError, r'num_images must be an integer of at least 1, got 0'),
            (dict(num_images=2.5), TypeError, r'num_images must be an integer .*got 2\.5'),
            (dict(size_hw=(133, 8)), ValueError, r'size_hw\[1\] must be .*got 8'),
            (dict(noise=-1.0), ValueError, r'noise must be 0 or more, got -1\.0'),
            (dict(noise=float('nan')), ValueError, r'noise must be 0 or more, got nan'),
            (dict(seed=-1), ValueError, r'seed must be an integer of at least 0, got -1'),
        ],
        ids=str,
    )
    def test_bad_arguments(self, cls, arguments, error, text):
        with pytest.raises(error, match=f'{cls.__name__}: {text}'):
            cls(**arguments)


class TestDots:
    def test_one_to_5918(self):
        data = DotsDataset(num_images=20)
        foreground = [int(unpack(data[i])[1].sum()) for i in range(20)]
        assert foreground == [4] * 20
        # 178 * 133 = 23,674 pixels.
        assert (23_674 - 4) / 4 == 5917.5
        assert unpack(data[0])[1].numel() == 23_674

    def test_target_is_the_only_square_and_the_others_are_half_of_it(self):
        data = DotsDataset(num_images=30, noise=0.0)
        for index in range(30):
            image, target = (values[0] > 0 for values in unpack(data[index]))
            assert (image & target).sum() == 4
            # 12 look-alikes of two pixels each.
            assert (image & ~target).sum() == 24
            squares = image[1:, 1:] & image[1:, :-1] & image[:-1, 1:] & image[:-1, :-1]
            assert squares.sum() == 1

    def test_blobs_do_not_touch(self):
        image = unpack(DotsDataset(noise=0.0, num_distractors=351)[0])[0][0].numpy() > 0
        # No 2x2 window but the target's own holds more than two pixels.
        windows = sum(
            image[top : top + 132, left : left + 177].astype(int)
            for top in (0, 1)
            for left in (0, 1)
        )
        assert np.sort(windows.ravel())[-1] == 4
        assert np.sort(windows.ravel())[-2] == 2

    def test_brightness_does_not_tell_them_apart(self):
        data = DotsDataset(num_images=60, noise=0.0)
        pairs = [unpack(data[i]) for i in range(60)]
        dots = torch.cat([image[target == 1] for image, target in pairs])
        others = torch.cat([image[(target == 0) & (image > 0)] for image, target in pairs])
        assert dots.mean().item() == pytest.approx(1.0, abs=0.06)
        assert others.mean().item() == pytest.approx(1.0, abs=0.06)

    def test_number_of_look_alikes(self):
        image, target = unpack(DotsDataset(noise=0.0, num_distractors=0)[0])
        torch.testing.assert_close((image > 0).float(), target)
        with pytest.raises(ValueError, match=r'num_distractors must be at most 351 .*got 352'):
            DotsDataset(num_distractors=352)


class TestStripes:
    def test_share_of_the_foreground(self):
        data = StripesDataset(num_images=200)
        shares = torch.stack([unpack(data[i])[1].mean() for i in range(200)])
        # Two lines of 3 rows and 26 columns on average, of 96 * 96 pixels.
        assert shares.mean().item() == pytest.approx(2 * 3 * 26 / 96**2, abs=5e-4)
        assert round(100 * shares.mean().item(), 1) == 1.7

    def test_lines_have_gaps_and_bars_have_none(self):
        data = StripesDataset(num_images=30, noise=0.0)
        for index in range(30):
            image, target = unpack(data[index])
            ink = image[target == 1] > 0
            assert 0.3 < ink.float().mean() < 0.75
        bars = unpack(StripesDataset(noise=0.0, num_lines=0)[0])
        assert bars[1].sum() == 0
        # Two bars of 5 rows, 20 to 32 columns each.
        assert 2 * 5 * 20 <= (bars[0] > 0).sum() <= 2 * 5 * 32

    def test_everything_has_a_band_of_its_own(self):
        data = StripesDataset(num_images=50, noise=0.0, num_lines=3, num_bars=3)
        for index in range(50):
            image, target = unpack(data[index])
            rows = image[0].sum(1).reshape(6, 16)
            assert (rows.sum(1) > 0).all()
            assert (rows[:, [0, 15]] == 0).all()
            assert (target[0].reshape(6, 16, 96).sum((1, 2)) > 0).sum() == 3

    def test_more_lines_than_fit(self):
        with pytest.raises(ValueError, match=r'num_lines \+ num_bars must be at most 6 .*got 7'):
            StripesDataset(num_lines=5, num_bars=2)


def test_importing_the_package_of_data_sets_stays_light():
    code = (
        'import mmloss_plugins.datasets, sys; print(sorted({"torch", "mmengine"} & {*sys.modules}))'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.stdout == '[]\n'


def test_a_set_without_draw_says_so():
    class Bare(PixelDataset):
        pass

    with pytest.raises(TypeError, match=r'Bare: draw must be implemented by the subclass'):
        Bare('train', 1, (48, 48), 0.1, 0, 48)[0]
