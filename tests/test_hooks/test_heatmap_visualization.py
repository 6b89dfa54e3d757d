"""HeatmapVisualizationHook: what its pictures show, when it draws, and when it says why not."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
import torch
from mmengine.registry import HOOKS
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mmloss_plugins.visualization._figure import DPI
from mmloss_plugins.visualization.heatmap_panels import GAP, PANEL, TITLE
from tests.test_hooks.toy_pose import (
    HEIGHT,
    WIDTH,
    Samples,
    ToyPose,
    record_panels,
    runner_of,
)

NAN = float('nan')
DRAWS_NOTHING = 'HeatmapVisualizationHook draws nothing'


def cells(*places, size=(6, 4)):
    """Return maps (K, h, w), each with all of its mass at one (row, column)."""
    maps = torch.zeros(len(places), *size)
    for joint, place in enumerate(places):
        maps[joint][place] = 1
    return maps


MAPS = cells((2, 1), (0, 0), (5, 3))


def train(model, work_dir, **options):
    """Return (names of the pictures, log)."""
    runner_of(model, work_dir, **options).train()
    return pictures(work_dir), next(work_dir.glob('*/*.log')).read_text()


def pictures(work_dir):
    return sorted(path.name for path in work_dir.glob('*/vis_data/vis_image/*'))


def read(work_dir, name):
    (path,) = work_dir.glob(f'*/vis_data/vis_image/{name}')
    return np.asarray(Image.open(path).convert('RGB')).astype(int)


@pytest.fixture
def drawn(monkeypatch):
    return record_panels(monkeypatch)


def numbers(drawn):
    return [panels[0].image[0, 0, 0] for panels in drawn]


def test_pictures_in_files_and_in_tensorboard(tmp_path):
    names, log = train(ToyPose(MAPS), tmp_path, hook=dict(num_images=2))
    assert names == [f'heatmaps_{image}_{step}.png' for image in (0, 1) for step in (2, 4)]
    (folder,) = tmp_path.glob('*/vis_data')
    events = EventAccumulator(str(folder), size_guidance=dict(images=0)).Reload()
    assert events.Tags()['images'] == ['heatmaps_0', 'heatmaps_1']
    for image in (0, 1):
        kept = events.Images(f'heatmaps_{image}')
        assert [event.step for event in kept] == [2, 4]
        for event in kept:
            there = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))
            here = read(tmp_path, f'heatmaps_{image}_{event.step}.png')
            np.testing.assert_array_equal(there, here)
    assert DRAWS_NOTHING not in log


def test_what_a_picture_shows(tmp_path):
    """Cell, cross and label circle lie where they should; a joint without a label has none."""
    train(ToyPose(MAPS), tmp_path, hook=dict(num_images=1), iterations=2)
    picture = read(tmp_path, 'heatmaps_0_2.png')
    panel = PANEL * WIDTH / HEIGHT
    scale = PANEL * DPI / HEIGHT  # 10 pixels of the picture for one of the image
    assert picture.shape[0] == round((PANEL + TITLE) * DPI)
    assert abs(picture.shape[1] - (3 * panel + 2 * GAP) * DPI) <= 1
    for joint, (row, column) in enumerate([(2, 1), (0, 0), (5, 3)]):
        left = round(joint * (panel + GAP) * DPI)
        shown = picture[round(TITLE * DPI) :, left : left + int(panel * DPI)]
        # The map has 4 x 4 px of the image in a cell: 40 x 40 px of the picture.
        cell = int(4 * scale)
        inside = shown[row * cell :, column * cell :][5 : cell - 5, 5 : cell - 5]
        # The brightest colour of the map is a pale yellow, the image is black.
        assert np.median(inside, (0, 1)).min() > 100
        rest = shown.copy()
        rest[row * cell : (row + 1) * cell + 1, column * cell : (column + 1) * cell + 1] = 0
        green = (shown[..., 1] > 180) & (shown[..., 0] < 100)
        assert green.any() == (joint != 1)
        assert np.median(rest) < 40
        # White: the arms of the cross, in the middle of the cell.
        white = np.argwhere((inside > 250).all(-1)).mean(0)
        np.testing.assert_allclose(white, (cell - 10) / 2 - 0.5, atol=1.5)
    # The label (5.5, 8): a circle of 10 pixels' diameter round (6, 8.5) px from the edges.
    first = picture[round(TITLE * DPI) :, : int(panel * DPI)]
    green = np.argwhere((first[..., 1] > 180) & (first[..., 0] < 100))
    np.testing.assert_allclose(green.mean(0), [8.5 * scale, 6 * scale], atol=1.5)


@pytest.mark.parametrize(
    ('num_images', 'batch_size', 'expected'),
    [(1, 2, [0]), (2, 2, [0, 4]), (3, 2, [0, 2, 4]), (3, 5, [0, 2, 4]), (9, 3, [0, 1, 2, 3, 4])],
)
def test_images_are_evenly_spaced_and_stay_the_same(
    tmp_path, drawn, num_images, batch_size, expected
):
    hook = dict(num_images=num_images)
    names, _ = train(ToyPose(MAPS), tmp_path, hook=hook, batch_size=batch_size)
    assert numbers(drawn) == expected * 2
    assert len(names) == 2 * len(expected)


def test_heatmaps_are_asked_for_only_where_they_are_drawn(tmp_path, drawn):
    model = ToyPose(MAPS, flip_test=False)
    train(model, tmp_path, hook=dict(num_images=2, interval=2), iterations=6)
    # Batches (0, 1), (2, 3), (4) of the first and of the third validation.
    assert model.asked == [True, False, True, *[False] * 3, True, False, True]
    assert not model.test_cfg['output_heatmaps']
    assert numbers(drawn) == [0, 4] * 2
    model = ToyPose(MAPS, output_heatmaps=True)
    train(model, tmp_path / 'on')
    assert model.test_cfg['output_heatmaps'] is True


def test_name_interval_and_step(tmp_path, drawn):
    hook = dict(num_images=1, interval=3, name='maps')
    names, _ = train(ToyPose(MAPS), tmp_path, hook=hook, iterations=8)
    assert names == ['maps_0_2.png', 'maps_0_8.png']


@pytest.mark.parametrize(
    ('keypoints', 'titles'),
    [
        (None, ['nose', 'left ear', 'right ear']),
        (['right_ear', 0], ['right ear', 'nose']),
        ([1], ['left ear']),
    ],
)
def test_keypoints_by_name_and_index(tmp_path, drawn, keypoints, titles):
    train(ToyPose(MAPS), tmp_path, hook=dict(num_images=1, keypoints=keypoints), iterations=2)
    assert [panel.title.split('  ')[0] for panel in drawn[0]] == titles


def test_a_few_of_many_keypoints(tmp_path, drawn):
    """Without names, such as of a list as a data set, the titles are indices."""
    train(
        ToyPose(cells(*[(1, 1)] * 17)), tmp_path, samples=list(Samples(2)), hook=dict(num_images=1)
    )
    assert [panel.title for panel in drawn[0]] == [f'{n}  0.00 px' for n in (0, 5, 11, 16)]
    # The val set has labels for another number of keypoints.
    assert np.isnan([panel.label for panel in drawn[0]]).all()


def test_image_label_mean_and_covariance(tmp_path, drawn):
    maps = torch.zeros(3, 6, 4)
    maps[:, 2, 1] = maps[:, 2, 3] = 0.5
    train(ToyPose(maps), tmp_path, hook=dict(num_images=1), iterations=2)
    panel, unlabelled = drawn[0][:2]
    # Columns 1 and 3: mean 2 = 2.5 cells of 4 px from the edge, pixel 9.5; row 2: pixel 9.5, too.
    np.testing.assert_allclose(panel.mean, [9.5, 9.5])
    # Variance 1 px^2 of the map along x, 16 px^2 of the image.
    np.testing.assert_allclose(panel.covariance, [[16, 0], [0, 0]], atol=1e-9)
    assert panel.title == 'nose  0.71 px'
    np.testing.assert_allclose(panel.label, [5.5, 8])
    assert np.isnan(unlabelled.label).all()
    assert panel.image.shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize('labels', ['none visible', 'no labels', 'no positions'])
def test_without_labels(tmp_path, drawn, labels):
    samples = Samples(2)
    for sample in samples:
        if labels == 'none visible':
            sample['data_samples'].gt_instances.keypoints_visible[:] = 0
        elif labels == 'no labels':
            del sample['data_samples'].gt_instances
        else:
            sample['data_samples'].pop('input_center')
    train(ToyPose(MAPS), tmp_path, samples=samples, hook=dict(num_images=1), iterations=2)
    assert np.isnan([panel.label for panel in drawn[0]]).all()


@pytest.mark.parametrize('value', [NAN, float('inf')])
def test_a_run_that_diverges_goes_on(tmp_path, value):
    maps = MAPS.clone()
    maps[1] = value
    names, log = train(ToyPose(maps), tmp_path, hook=dict(num_images=1), iterations=2)
    assert names == ['heatmaps_0_2.png']
    assert (read(tmp_path, names[0]) > 250).all(-1).sum() > 100
    assert DRAWS_NOTHING not in log


@pytest.mark.parametrize(
    ('maps', 'got'),
    [
        (None, 'no heatmaps'),
        (MAPS * 2, 'sums from 2 to 2'),
        # One cell of 24 is 0.9 and the others are -0.1.
        (MAPS - 0.1, 'sums from -1.4 to -1.4'),
        (torch.cat([MAPS[:2], MAPS[2:] / 2]), 'sums from 0.5 to 1'),
    ],
    ids=['none', 'twice', 'negative', 'one half'],
)
def test_it_says_once_why_nothing_can_be_drawn(tmp_path, maps, got):
    names, log = train(ToyPose(maps), tmp_path)
    assert names == []
    text = f'the head must give (K, H, W) heatmaps that sum to 1, got {got}.'
    assert log.count(DRAWS_NOTHING) == log.count(text) == 1


def test_a_model_without_test_cfg(tmp_path):
    model = ToyPose(MAPS)
    del model.test_cfg
    model.forward = lambda inputs, data_samples=None, mode='loss': (
        dict(loss_kpt=model.weight.sum()) if mode == 'loss' else data_samples
    )
    names, log = train(model, tmp_path)
    assert names == []
    assert log.count(DRAWS_NOTHING) == 1


def test_a_run_without_validation(tmp_path):
    options = dict(val_dataloader=None, val_evaluator=None, val_cfg=None)
    names, log = train(ToyPose(MAPS), tmp_path, **options)
    assert names == []
    assert log.count('HeatmapVisualizationHook: the run must have a validation, got none.') == 1


@pytest.mark.parametrize(
    ('keypoints', 'text'),
    [
        (['noze'], "keypoints must be one of 'nose', 'left_ear', 'right_ear', got 'noze'. Did you"),
        ([0, 3], 'keypoints must be from 0 to 2, got 3. Take indices of that range, or names'),
        ([-1], 'keypoints must be from 0 to 2, got -1'),
    ],
)
def test_unknown_keypoints_stop_before_the_first_iteration(tmp_path, keypoints, text):
    runner = runner_of(ToyPose(MAPS), tmp_path, hook=dict(keypoints=keypoints))
    with pytest.raises(ValueError, match=re.escape(text)):
        runner.train()
    assert runner.iter == 0


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        (dict(interval=0), 'interval must be a positive integer, got 0.'),
        (dict(num_images=1.5), 'num_images must be a positive integer, got 1.5.'),
        (dict(num_images='all'), "num_images must be a positive integer, got 'all'."),
        (dict(keypoints='nose'), "keypoints must be a list, got 'nose'."),
        (dict(keypoints=[]), 'keypoints must be a list, got [].'),
        (dict(sigmas=(1, 0)), 'sigmas must be positive, got (1, 0).'),
        (dict(name='val/maps'), "name must be part of a file name, got 'val/maps'."),
        (dict(name=''), "name must be part of a file name, got ''."),
    ],
)
def test_bad_arguments(options, text):
    with pytest.raises(ValueError, match=re.escape(f'HeatmapVisualizationHook: {text}')):
        HOOKS.build(dict(type='mmloss_plugins.HeatmapVisualizationHook', **options))
