"""OffsetHeatmap: labels, weights, the round trip at sub-pixel points, votes that disagree."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmpose.datasets.transforms import GenerateTarget, PackPoseInputs
from mmpose.registry import KEYPOINT_CODECS

from mmloss_plugins.codecs import OffsetHeatmap

# Input and map in [w, h], and R: the paper's; the minis'; a rectangle with the least radius.
SETUPS = [
    ((257, 353), (33, 45), 25.0),
    ((56, 56), (7, 7), 12.0),
    ((56, 56), (14, 14), 6.0),
    ((192, 256), (24, 32), 18.0),
    ((64, 48), (8, 6), 4 * math.sqrt(2)),
]


def points(*pairs):
    return np.array([pairs], dtype=np.float64)


def parts(encoded, order='grouped'):
    """Disks (K, H, W), offsets along x and along y."""
    maps = encoded['heatmaps']
    if order == 'interleaved':
        return maps[0::3], maps[1::3], maps[2::3]
    return np.split(maps, 3)


# --- labels -----------------------------------------------------------------------------------


def test_cells_by_hand():
    # 12 px and 3 cells: edges align, cells at 1.5, 5.5, 9.5. 9 px and 3 cells: 0, 4, 8.
    codec = OffsetHeatmap((12, 9), (3, 3), 4.0, align='centers')
    np.testing.assert_allclose(codec.grid.centres(0), [1.5, 5.5, 9.5])
    codec = OffsetHeatmap((9, 9), (3, 3), 4.0, align='corners')
    np.testing.assert_allclose(codec.grid.centres(0), [0, 4, 8])


def test_label_by_hand():
    # Cells at 0, 4, 8 along x and y. (5, 4) is 1 px from cell 1, 5 from 0, 3 from 2; R = 4 px
    # holds (1, 1), (2, 1); and not (1, 0), which is hypot(1, 4) = 4.12 px away.
    codec = OffsetHeatmap((9, 9), (3, 3), 4.0, align='corners')
    disk, x, y = parts(codec.encode(points((5, 4))))
    assert disk.dtype == x.dtype == np.float32
    np.testing.assert_array_equal(disk[0], [[0, 0, 0], [0, 1, 1], [0, 0, 0]])
    np.testing.assert_array_equal(x[0], [[0, 0, 0], [0, 1, -3], [0, 0, 0]])
    np.testing.assert_array_equal(y[0], np.zeros((3, 3)))


def test_a_cell_at_exactly_r_is_inside():
    codec = OffsetHeatmap((9, 9), (3, 3), 4.0, align='corners')
    disk, _, _ = parts(codec.encode(points((4, 4))))
    np.testing.assert_array_equal(disk[0], [[0, 1, 0], [1, 1, 1], [0, 1, 0]])


@pytest.mark.parametrize('order', ['grouped', 'interleaved'])
@pytest.mark.parametrize(('input_size', 'heatmap_size', 'radius'), SETUPS)
def test_labels_against_loops(input_size, heatmap_size, radius, order):
    codec = OffsetHeatmap(input_size, heatmap_size, radius, order=order)
    keypoints = np.random.default_rng(0).uniform(0, np.array(input_size) - 1, (1, 3, 2))
    encoded = codec.encode(keypoints)
    disk, x, y = parts(encoded, order)
    width, height = heatmap_size
    assert encoded['heatmaps'].shape == (9, height, width)
    columns, rows = codec.grid.centres(0), codec.grid.centres(1)
    for k, (at_x, at_y) in enumerate(keypoints[0]):
        for i, row in enumerate(rows):
            for j, column in enumerate(columns):
                inside = math.hypot(at_x - column, at_y - row) <= radius
                assert disk[k, i, j] == inside
                assert x[k, i, j] == pytest.approx(inside * (at_x - column), abs=1e-4)
                assert y[k, i, j] == pytest.approx(inside * (at_y - row), abs=1e-4)


def test_the_map_of_the_mirrored_image_is_the_mirrored_map():
    for align, size in (('centers', (56, 56)), ('corners', (57, 57))):
        codec = OffsetHeatmap(size, (8, 7), 7.0, align=align)
        disk, x, y = parts(codec.encode(points((13.3, 20.1))))
        flipped, flipped_x, flipped_y = parts(codec.encode(points((size[0] - 1 - 13.3, 20.1))))
        np.testing.assert_array_equal(flipped, disk[..., ::-1])
        np.testing.assert_allclose(flipped_x, -x[..., ::-1], atol=1e-5)
        np.testing.assert_allclose(flipped_y, y[..., ::-1], atol=1e-5)


def test_unlabelled_and_outside_get_no_disk_and_no_weight():
    codec = OffsetHeatmap((56, 40), (7, 5), 12.0)
    keypoints = points((10, 10), (10, 10), (-0.6, 10), (10, 39.6), (np.nan, np.inf), (55.5, -0.5))
    visible = np.array([[1, 0, 1, 1, 0, 0.5]])
    encoded = codec.encode(keypoints, visible)
    np.testing.assert_array_equal(encoded['keypoint_weights'], [[1, 0, 0, 0, 0, 0.5]])
    assert encoded['keypoint_weights'].dtype == np.float32
    filled = encoded['heatmaps'].reshape(3, 6, -1).any((0, 2))
    np.testing.assert_array_equal(filled, [True, False, False, False, False, True])


def test_every_keypoint_inside_the_image_has_a_cell():
    for input_size, heatmap_size, _ in SETUPS:
        step = OffsetHeatmap(input_size, heatmap_size, 100.0).grid.step
        codec = OffsetHeatmap(input_size, heatmap_size, np.hypot(*step) / 2 + 1e-4)
        w, h = input_size
        grid = np.stack(np.meshgrid(np.linspace(-0.5, w - 0.5, 97), np.linspace(-0.5, h - 0.5, 89)))
        disk, _, _ = parts(codec.encode(grid.reshape(2, -1).T[None]))
        assert disk.any((1, 2)).all()


# --- arguments --------------------------------------------------------------------------------


def test_auto_alignment():
    # 64 is 8 x 8 and 9 x 7 + 1: whole cells come first.
    assert OffsetHeatmap((64, 64), (8, 8), 12.0).grid.step.tolist() == [8, 8]
    assert OffsetHeatmap((257, 353), (33, 45)).grid.step.tolist() == [8, 8]
    assert OffsetHeatmap((257, 353), (33, 45)).grid.origin.tolist() == [0, 0]
    assert OffsetHeatmap((56, 56), (7, 7), 12.0).grid.origin.tolist() == [3.5, 3.5]
    with pytest.raises(ValueError, match=r"align='auto', got \[13, 13\].*Pass align='centers'"):
        OffsetHeatmap((100, 100), (13, 13))


@pytest.mark.parametrize(
    ('options', 'error', 'text'),
    [
        ({'radius': 3}, TypeError, "got 'radius'. Did you mean 'radius_px'"),
        ({'radius_px': 5.6}, ValueError, 'radius_px must be a number of px >= 5.657'),
        ({'radius_px': math.nan}, ValueError, 'radius_px must be'),
        ({'heatmap_size': (7,)}, ValueError, 'heatmap_size must be two positive whole'),
        ({'heatmap_size': (7, 0)}, ValueError, 'heatmap_size must be two positive whole'),
        ({'input_size': '56'}, ValueError, 'input_size must be two positive whole'),
        ({'order': 'mmpose'}, ValueError, 'order must be one of'),
        ({'align': 'center'}, ValueError, "Did you mean 'centers'"),
        ({'decode_mode': 'vote'}, ValueError, 'decode_mode must be one of'),
        ({'min_vote': 1.5}, ValueError, r'min_vote must be in \[0, 1\]'),
        ({'align': 'corners', 'heatmap_size': (1, 7)}, ValueError, 'be at least 2 with align='),
    ],
)
def test_bad_arguments(options, error, text):
    with pytest.raises(error, match=text):
        OffsetHeatmap(**{'input_size': (56, 56), 'heatmap_size': (7, 7), **options})


def test_bad_inputs():
    codec = OffsetHeatmap((56, 56), (7, 7), 12.0)
    with pytest.raises(ValueError, match=r'keypoints must have shape \(1, K, 2\), got \(2, 3, 2\)'):
        codec.encode(np.zeros((2, 3, 2)))
    with pytest.raises(ValueError, match=r'keypoints_visible must have shape \(1, K\) = \(1, 3\)'):
        codec.encode(np.zeros((1, 3, 2)), np.ones((1, 4)))
    with pytest.raises(ValueError, match=r'keypoints must be finite, got .* at keypoint 1'):
        codec.encode(points((1, 1), (np.nan, 2)))
    with pytest.raises(ValueError, match=r'keypoints_visible must be finite, got .* at keypoint 0'):
        codec.encode(points((1, 1)), np.array([[np.nan]]))
    with pytest.raises(ValueError, match=r'encoded must have the shape \(3K, 7, 7\).*\(6, 7, 8\)'):
        codec.decode(np.zeros((6, 7, 8)))


# --- round trip -------------------------------------------------------------------------------


@pytest.mark.parametrize('order', ['grouped', 'interleaved'])
@pytest.mark.parametrize('decode_mode', ['hough', 'argmax'])
@pytest.mark.parametrize(('input_size', 'heatmap_size', 'radius'), SETUPS)
def test_round_trip_of_the_borders(input_size, heatmap_size, radius, order, decode_mode):
    codec = OffsetHeatmap(input_size, heatmap_size, radius, order=order, decode_mode=decode_mode)
    w, h = input_size
    xs = [-0.5, -0.31, 0, 0.77, w / 2 - 0.13, w - 2, w - 1, w - 0.83, w - 0.5]
    ys = [-0.5, 0.01, h / 3, h - 1.02, h - 0.5]
    keypoints = np.array([[(x, y) for x in xs for y in ys]])
    encoded = codec.encode(keypoints)
    assert (encoded['keypoint_weights'] == 1).all()
    found, scores = codec.decode(encoded['heatmaps'], from_logits=False)
    assert found.shape == keypoints.shape
    np.testing.assert_allclose(found, keypoints, rtol=0, atol=1e-3)
    np.testing.assert_allclose(scores, 1, atol=1e-5)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_round_trip_of_any_point(data):
    input_size, heatmap_size, radius = data.draw(st.sampled_from(SETUPS))
    codec = OffsetHeatmap(input_size, heatmap_size, radius)
    x = data.draw(st.floats(-0.5, input_size[0] - 0.5))
    y = data.draw(st.floats(-0.5, input_size[1] - 0.5))
    maps = codec.encode(points((x, y)))['heatmaps']
    logits = maps.copy()
    logits[:1] = np.where(maps[:1] == 1, 9.0, -9.0)
    found, _ = codec.decode(logits)
    np.testing.assert_allclose(found, points((x, y)), rtol=0, atol=1e-3)


def test_the_disk_alone_is_off_by_as_much_as_the_peak_cell():
    codec = OffsetHeatmap((56, 56), (7, 7), 12.0, decode_mode='disk')
    found, scores = codec.decode(codec.encode(points((20.0, 20.0)))['heatmaps'], from_logits=False)
    assert (found % 8 == 3.5).all()
    assert scores == 1


# --- predictions that are not perfect ---------------------------------------------------------


def prediction(codec, *pairs):
    """Probabilities and offsets as encoded, to be disturbed."""
    return codec.encode(points(*pairs))['heatmaps']


def test_votes_outweigh_one_confident_cell():
    """A single wrong cell of 1 wins argmax; the disk of .6 wins the vote."""
    codec = OffsetHeatmap((257, 353), (33, 45))
    maps = prediction(codec, (100.3, 200.7))
    maps[0] *= 0.6
    maps[0, 5, 5] = 1.0
    voted, score = codec.decode(maps, from_logits=False)
    np.testing.assert_allclose(voted, points((100.3, 200.7)), atol=1e-3)
    assert score == pytest.approx(0.6, abs=1e-5)
    codec.decode_mode = 'argmax'
    peak, score = codec.decode(maps, from_logits=False)
    np.testing.assert_allclose(peak, points((40, 40)))
    assert score == 1


def test_the_score_does_not_depend_on_the_border():
    codec = OffsetHeatmap((257, 353), (33, 45))
    maps = prediction(codec, (0, 0), (128, 176), (256.5, 170.2))
    maps[:3] *= 0.3
    _, scores = codec.decode(maps, from_logits=False)
    np.testing.assert_allclose(scores, 0.3, atol=1e-5)


def test_noisy_offsets_average_out():
    rng = np.random.default_rng(0)
    codec = OffsetHeatmap((257, 353), (33, 45))
    truth = rng.uniform(40, 200, (1, 50, 2))
    maps = codec.encode(truth)['heatmaps']
    maps[50:] += rng.normal(0, 2, maps[50:].shape).astype(np.float32)
    errors = {}
    for mode in ('hough', 'argmax'):
        codec.decode_mode = mode
        found, _ = codec.decode(maps, from_logits=False)
        errors[mode] = np.linalg.norm(found - truth, axis=-1).mean()
    assert errors['hough'] < errors['argmax'] / 3


def test_min_vote_zero_counts_every_cell():
    codec = OffsetHeatmap((56, 56), (7, 7), 12.0, min_vote=0)
    maps = prediction(codec, (20.0, 31.0))
    maps[0] = np.where(maps[0] == 1, 1, 0.001)
    everything, _ = codec.decode(maps, from_logits=False)
    codec.min_vote = 0.01
    strong, _ = codec.decode(maps, from_logits=False)
    np.testing.assert_allclose(strong, points((20.0, 31.0)), atol=1e-3)
    assert 0 < np.abs(everything - strong).max() < 0.05


def test_positions_stay_inside_the_image_and_nan_shows():
    codec = OffsetHeatmap((56, 56), (7, 7), 12.0)
    for mode in ('hough', 'argmax'):
        codec.decode_mode = mode
        maps = np.zeros((6, 7, 7), np.float32)
        maps[2:] = -20.0
        maps[1, 3, 3] = np.nan
        found, scores = codec.decode(maps)
        assert ((found[0, 0] >= -0.5) & (found[0, 0] <= 55.5)).all()
        assert np.isfinite(scores[0, 0])
        assert np.isnan(scores[0, 1])


def test_a_batch_is_its_samples():
    codec = OffsetHeatmap((64, 48), (8, 6), 12.0)
    maps = torch.randn(3, 12, 6, 8, generator=torch.Generator().manual_seed(0))
    for mode in ('hough', 'argmax', 'disk'):
        codec.decode_mode = mode
        keypoints, scores = codec.batch_decode(maps)
        assert len(keypoints) == len(scores) == 3
        for sample, points_of_sample, scores_of_sample in zip(maps, keypoints, scores):
            alone = codec.decode(sample.numpy())
            assert points_of_sample.shape == (1, 4, 2)
            assert scores_of_sample.shape == (1, 4)
            np.testing.assert_allclose(points_of_sample, alone[0], atol=1e-4)
            np.testing.assert_allclose(scores_of_sample, alone[1], atol=1e-5)


# --- inside the hosts -------------------------------------------------------------------------


def test_in_the_pipeline_of_mmpose():
    config = dict(
        type='mmloss_plugins.OffsetHeatmap',
        input_size=(56, 40),
        heatmap_size=(7, 5),
        radius_px=12.0,
        order='interleaved',
    )
    results = dict(
        img=np.zeros((40, 56, 3), np.uint8),
        keypoints=points((10, 10), (30, 30), (70, 10)),
        keypoints_visible=np.ones((1, 3), np.float32),
        dataset_keypoint_weights=np.ones(3, np.float32),
    )
    packed = PackPoseInputs(meta_keys=())(GenerateTarget(encoder=config)(results))
    sample = packed['data_samples']
    assert sample.gt_fields.heatmaps.shape == (9, 5, 7)
    assert sample.gt_instance_labels.keypoint_weights.tolist() == [[1, 1, 0]]


def test_copies_and_pickles():
    codec = KEYPOINT_CODECS.build(
        dict(type='mmloss_plugins.OffsetHeatmap', input_size=(56, 56), heatmap_size=(14, 14))
    )
    assert codec.support_batch_decoding
    maps = codec.encode(points((11.5, 20.25)))['heatmaps']
    for other in (copy.deepcopy(codec), pickle.loads(pickle.dumps(codec))):
        np.testing.assert_array_equal(other.encode(points((11.5, 20.25)))['heatmaps'], maps)
