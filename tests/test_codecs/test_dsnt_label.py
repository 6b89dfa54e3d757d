"""DSNTLabel: coordinates, weights, the round trip, heatmaps whose mean is the label."""

from __future__ import annotations

import copy
import math
import pickle

import dsntnn
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmpose.codecs import IntegralRegressionLabel, RegressionLabel
from mmpose.datasets.transforms import GenerateTarget, PackPoseInputs
from mmpose.models.heads import DSNTHead as MMPoseDSNTHead
from mmpose.registry import KEYPOINT_CODECS

from mmloss_plugins import functional as F
from mmloss_plugins.codecs import DSNTLabel

# Input and map in [w, h]: the minis', the full COCO setup, one with odd ratios.
SETUPS = [((56, 56), (7, 7)), ((192, 256), (48, 64)), ((97, 61), (20, 13))]
COORDINATES = ['centered', 'mmpose']


def points(*pairs):
    return np.array([pairs], dtype=np.float64)


def border_points(size):
    """Every combination of the outer edges, the centres of the border pixels and sub-pixels."""
    w, h = size
    xs = [-0.5, -0.31, 0, 0.77, w / 2 - 0.13, w - 2, w - 1, w - 0.83, w - 0.5]
    ys = [-0.5, 0.01, h / 3, h - 1.02, h - 0.5]
    return np.array([[(x, y) for x in xs for y in ys]])


def means_px(maps, size, map_size, coordinates):
    """Means of maps in px of the image, by loops in float64 over the cells of the convention."""
    found = []
    for one in maps.astype(np.float64):
        x = y = 0.0
        for j, row in enumerate(one):
            for i, value in enumerate(row):
                if coordinates == 'mmpose':
                    x += value * i * size[0] / map_size[0]
                    y += value * j * size[1] / map_size[1]
                else:
                    x += value * ((i + 0.5) * size[0] / map_size[0] - 0.5)
                    y += value * ((j + 0.5) * size[1] / map_size[1] - 0.5)
        found.append((x, y))
    return np.array(found)


# --- coordinates ------------------------------------------------------------------------------


def test_centered_by_hand():
    # 4 px wide: edges at -1 and 1, centres at -3/4, -1/4, 1/4, 3/4. 8 px high: 0 is at 3.5 px.
    codec = DSNTLabel((4, 8))
    encoded = codec.encode(points((0, 3.5), (3, 0), (-0.5, 7.5), (1.25, 1)))
    expected = [[[-0.75, 0], [0.75, -0.875], [-1, 1], [-0.125, -0.625]]]
    np.testing.assert_array_equal(encoded['keypoint_labels'], np.float32(expected))
    np.testing.assert_array_equal(encoded['keypoint_weights'], [[1, 1, 1, 1]])
    assert encoded['keypoint_labels'].dtype == encoded['keypoint_weights'].dtype == np.float32
    assert set(encoded) == {'keypoint_labels', 'keypoint_weights'}


def test_mmpose_by_hand():
    # px over width and height: 1 / 4 and 6 / 8.
    codec = DSNTLabel((4, 8), coordinates='mmpose')
    labels = codec.encode(points((1, 6), (0, 0)))['keypoint_labels']
    np.testing.assert_array_equal(labels, [[[0.25, 0.75], [0, 0]]])


def test_centered_is_the_convention_of_dsntnn_and_of_dsnt():
    """A map whose whole mass is in one cell has the mean that is the label of the cell's pixel."""
    codec = DSNTLabel((5, 3))
    cells = np.stack(np.meshgrid(np.arange(5.0), np.arange(3.0)), -1).reshape(1, 15, 2)
    labels = codec.encode(cells)['keypoint_labels']
    theirs = dsntnn.pixel_to_normalized_coordinates(torch.tensor(cells), (3, 5))
    np.testing.assert_allclose(labels, theirs.numpy(), atol=1e-7)
    maps = torch.eye(15).view(1, 15, 3, 5)
    np.testing.assert_allclose(labels, F.dsnt(maps).numpy(), atol=1e-7)


def test_mmpose_labels_are_those_of_its_codec():
    keypoints = np.random.default_rng(0).uniform((0, 0), (191, 255), (1, 20, 2))
    ours = DSNTLabel((192, 256), coordinates='mmpose').encode(keypoints)
    theirs = RegressionLabel((192, 256)).encode(keypoints)
    for key in ('keypoint_labels', 'keypoint_weights'):
        np.testing.assert_array_equal(ours[key], theirs[key])


def test_a_mirrored_image_mirrors_the_labels():
    codec = DSNTLabel((56, 40))
    plain = codec.encode(points((13.3, 20.1), (0, 39.5)))['keypoint_labels']
    flipped = codec.encode(points((55 - 13.3, 20.1), (55, 39.5)))['keypoint_labels']
    np.testing.assert_allclose(flipped, plain * [-1, 1], atol=1e-6)


def test_unlabelled_and_outside_get_label_and_weight_zero():
    codec = DSNTLabel((56, 40), heatmap_size=(7, 5), sigma=1.0)
    keypoints = points((10, 10), (10, 10), (-0.6, 10), (10, 39.6), (np.nan, np.inf), (55.5, -0.5))
    visible = np.array([[1, 0, 1, 1, 0, 0.5]])
    encoded = codec.encode(keypoints, visible)
    np.testing.assert_array_equal(encoded['keypoint_weights'], [[1, 0, 0, 0, 0, 0.5]])
    zero = np.array([0, 1, 1, 1, 1, 0], bool)
    np.testing.assert_array_equal(encoded['keypoint_labels'][0, zero], np.zeros((4, 2)))
    np.testing.assert_array_equal(encoded['heatmaps'][zero], np.zeros((4, 5, 7)))
    np.testing.assert_allclose(encoded['heatmaps'][~zero].sum((1, 2)), 1, atol=1e-6)
    assert (encoded['keypoint_labels'][0, ~zero] != 0).all()


def test_several_instances():
    keypoints = np.random.default_rng(0).uniform(0, 30, (3, 4, 2))
    visible = np.eye(3, 4)
    codec = DSNTLabel((56, 40))
    encoded = codec.encode(keypoints, visible)
    assert encoded['keypoint_labels'].shape == (3, 4, 2)
    np.testing.assert_array_equal(encoded['keypoint_weights'], visible)
    for n in range(3):
        alone = codec.encode(keypoints[n : n + 1], visible[n : n + 1])
        np.testing.assert_array_equal(alone['keypoint_labels'][0], encoded['keypoint_labels'][n])


# --- round trip -------------------------------------------------------------------------------


@pytest.mark.parametrize('coordinates', COORDINATES)
@pytest.mark.parametrize('size', [(56, 56), (192, 256), (384, 288), (97, 61)])
def test_round_trip_of_the_borders(size, coordinates):
    codec = DSNTLabel(size, coordinates=coordinates)
    keypoints = border_points(size)
    encoded = codec.encode(keypoints)
    assert (encoded['keypoint_weights'] == 1).all()
    found, scores = codec.decode(encoded['keypoint_labels'])
    assert found.dtype == scores.dtype == np.float32
    # Half the spacing of float32 at 1, times half the side (w at [0, 1)): below 4e-5 px at 384.
    np.testing.assert_allclose(found, keypoints, rtol=0, atol=4e-5)
    np.testing.assert_array_equal(scores, np.ones(keypoints.shape[:2]))


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_round_trip_of_any_point(data):
    w, h = data.draw(st.tuples(st.integers(1, 500), st.integers(1, 500)))
    codec = DSNTLabel((w, h), coordinates=data.draw(st.sampled_from(COORDINATES)))
    x, y = data.draw(st.floats(-0.5, w - 0.5)), data.draw(st.floats(-0.5, h - 0.5))
    encoded = codec.encode(points((x, y)))
    assert encoded['keypoint_weights'] == 1
    assert np.abs(encoded['keypoint_labels']).max() <= 1
    np.testing.assert_allclose(
        codec.decode(encoded['keypoint_labels'])[0], points((x, y)), rtol=0, atol=1e-4
    )


def test_decode_keeps_scores_and_shows_nan():
    codec = DSNTLabel((10, 20))
    # ((0 + 1) 10 - 1) / 2 = 4.5; a fully connected layer may point outside: (3 10 - 1) / 2 = 14.5.
    coords = np.array([[[0, 0], [2, np.nan]]], np.float32)
    keypoints, scores = codec.decode(coords, np.array([[0.25, 0.5]]))
    np.testing.assert_array_equal(keypoints, np.float32([[[4.5, 9.5], [14.5, np.nan]]]))
    np.testing.assert_array_equal(scores, np.float32([[0.25, 0.5]]))


# --- heatmaps ---------------------------------------------------------------------------------


@pytest.mark.parametrize('sigma', [0.3, 1.0, 2.5])
@pytest.mark.parametrize(('size', 'map_size'), SETUPS)
def test_heatmaps_are_those_of_dsntnn(size, map_size, sigma):
    """In float64, at sub-pixel and border positions; dsntnn's mean is in (-1, 1)."""
    codec = DSNTLabel(size, heatmap_size=map_size, sigma=sigma)
    keypoints = border_points(size)
    maps = codec.encode(keypoints)['heatmaps']
    means = torch.tensor((2 * keypoints + 1) / size - 1)
    theirs = dsntnn.make_gauss(means, map_size[::-1], sigma)[0].numpy()
    assert maps.dtype == np.float32
    assert maps.shape == (keypoints.shape[1], *map_size[::-1])
    np.testing.assert_allclose(maps, theirs, rtol=0, atol=1e-6)
    np.testing.assert_allclose(maps.sum((1, 2)), 1, atol=1e-6)
    plain = DSNTLabel(size, heatmap_size=map_size, sigma=sigma, normalize=False)
    theirs = dsntnn.make_gauss(means, map_size[::-1], sigma, normalize=False)[0].numpy()
    np.testing.assert_allclose(plain.encode(keypoints)['heatmaps'], theirs, rtol=0, atol=1e-6)


def test_a_sigma_per_axis():
    # Cell 3 of 7 and cell 2 of 5 are the middle. One cell along x is half a sigma of 2, along y
    # two of .5: exp(-1/8) and exp(-2) of the peak.
    codec = DSNTLabel((56, 40), heatmap_size=(7, 5), sigma=(2.0, 0.5), normalize=False)
    (gauss,) = codec.encode(points((27.5, 19.5)))['heatmaps']
    assert gauss[2, 3] == 1
    assert gauss[2, 4] == pytest.approx(math.exp(-1 / 8))
    assert gauss[3, 3] == pytest.approx(math.exp(-2))
    assert gauss[1, 2] == pytest.approx(math.exp(-2 - 1 / 8))


def test_a_narrow_gaussian_between_cells_does_not_vanish():
    # Half way between cells 2 and 3: exp(-.5 (.5 / .01)^2) = exp(-1250) is 0 in float64.
    codec = DSNTLabel((56, 56), heatmap_size=(7, 7), sigma=0.01)
    (gauss,) = codec.encode(points((23.5, 27.5)))['heatmaps']
    np.testing.assert_allclose(gauss[3], [0, 0, 0.5, 0.5, 0, 0, 0], atol=1e-6)


@pytest.mark.parametrize('coordinates', COORDINATES)
@pytest.mark.parametrize('sigma', [1.0, 2.0])
def test_the_mean_of_a_heatmap_is_the_label(sigma, coordinates):
    """Where the Gaussian is inside; MMPose's, at the rounded cell, is up to half a cell off."""
    size, map_size = (192, 256), (48, 64)
    margin = 5 * sigma + 1  # in cells of 4 px
    low, high = margin * 4, np.array(size) - 1 - margin * 4
    keypoints = np.random.default_rng(0).uniform(low, high, (1, 40, 2))
    maps = DSNTLabel(size, coordinates, map_size, sigma).encode(keypoints)['heatmaps']
    errors = np.abs(means_px(maps, size, map_size, coordinates) - keypoints[0])
    assert errors.max() < 1e-4
    theirs = IntegralRegressionLabel(size, map_size, sigma)
    maps = theirs.encode(keypoints, np.ones((1, 40), np.float32))['heatmaps']
    errors = np.abs(means_px(maps, size, map_size, 'mmpose') - keypoints[0])
    assert 1.9 < errors.max() < 2.1
    assert errors.mean() > 0.9


def test_the_mean_near_an_edge():
    """Where the map ends the rest of the Gaussian is missing; figures of the docstring."""
    sigma = 2.0
    codec = DSNTLabel((192, 256), heatmap_size=(48, 64), sigma=sigma)
    at = np.array([0, 3, 5]) * sigma * 4 - 0.5  # px from the left edge
    keypoints = np.stack((at, np.full(3, 127.5)), -1)[None]
    found = means_px(codec.encode(keypoints)['heatmaps'], (192, 256), (48, 64), 'centered')
    off = (found[:, 0] - at) / 4 / sigma
    np.testing.assert_allclose(off, [0.806, 0.0041, 0], atol=1e-3)
    np.testing.assert_allclose(found[:, 1], 127.5, atol=1e-4)


def test_repairs_the_target_of_mmposes_own_head():
    """The mean that MMPose's head computes of the map is the label that its other loss asks for."""
    head = MMPoseDSNTHead(
        in_channels=4,
        in_featuremap_size=(12, 16),
        num_joints=6,
        deconv_out_channels=(),
        deconv_kernel_sizes=(),
    )
    keypoints = np.random.default_rng(0).uniform(60, 130, (1, 6, 2))
    options = dict(input_size=(192, 256), heatmap_size=(12, 16), sigma=1.0)
    worst = {}
    for codec in (DSNTLabel(coordinates='mmpose', **options), IntegralRegressionLabel(**options)):
        encoded = codec.encode(keypoints, np.ones((1, 6), np.float32))
        maps = torch.as_tensor(encoded['heatmaps'])[None]
        mean = [head._linear_expectation(maps, axis) for axis in (head.linspace_x, head.linspace_y)]
        coords = torch.cat(mean, -1)[0].detach().numpy()
        error = np.abs(coords - encoded['keypoint_labels'][0]) * (192, 256)
        worst[type(codec).__name__] = error.max()
    assert worst['DSNTLabel'] < 0.02
    assert worst['IntegralRegressionLabel'] > 5


# --- arguments --------------------------------------------------------------------------------

HEATMAPS = dict(heatmap_size=(7, 7), sigma=1.0)


@pytest.mark.parametrize(
    ('options', 'error', 'text'),
    [
        ({'sgima': 1.0}, TypeError, "got 'sgima'. Did you mean 'sigma'"),
        ({'unbiased': True}, TypeError, "got 'unbiased'. Remove it: .* never rounded"),
        ({'blur_kernel_size': 11}, TypeError, "got 'blur_kernel_size'. Remove it: .* DARK"),
        ({'coordinates': 'center'}, ValueError, "Did you mean 'centered'"),
        ({'input_size': 56}, ValueError, 'input_size must be two positive whole numbers'),
        ({'input_size': (56.0, 56)}, ValueError, 'input_size must be two positive whole'),
        ({'sigma': 1.0}, ValueError, 'heatmap_size must be given with sigma, got None'),
        ({'heatmap_size': (7, 7)}, ValueError, 'sigma must be given with heatmap_size, got None'),
        ({**HEATMAPS, 'heatmap_size': (7, 0)}, ValueError, 'heatmap_size must be two positive'),
        ({**HEATMAPS, 'sigma': 0}, ValueError, 'sigma must be a number of px of the map > 0'),
        ({**HEATMAPS, 'sigma': -1.0}, ValueError, 'got -1.0'),
        ({**HEATMAPS, 'sigma': (1.0, math.nan)}, ValueError, 'sigma must be'),
        ({**HEATMAPS, 'sigma': (1, 1, 1)}, ValueError, r'sigma must be .*, \(x, y\)'),
        ({**HEATMAPS, 'normalize': 1}, TypeError, 'normalize must be True or False, got 1'),
        ({'normalize': False}, ValueError, 'normalize must be True without heatmaps'),
    ],
)
def test_bad_arguments(options, error, text):
    with pytest.raises(error, match=text):
        DSNTLabel(**{'input_size': (56, 56), **options})


def test_bad_inputs():
    codec = DSNTLabel((56, 56))
    with pytest.raises(
        ValueError, match=r'encode: keypoints must have shape \(N, K, 2\).*\(3, 2\)'
    ):
        codec.encode(np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r'keypoints must have shape .* got \(1, 3, 3\)'):
        codec.encode(np.zeros((1, 3, 3)))
    with pytest.raises(ValueError, match=r'keypoints_visible must have shape .*\(1, 3\), got'):
        codec.encode(np.zeros((1, 3, 2)), np.ones((1, 3, 2)))
    with pytest.raises(ValueError, match=r'keypoints must be finite, got .* at keypoint 1 of inst'):
        codec.encode(points((1, 1), (np.nan, 2)))
    with pytest.raises(ValueError, match=r'keypoints_visible must be finite, got .* at keypoint 0'):
        codec.encode(points((1, 1)), np.array([[np.nan]]))
    with pytest.raises(ValueError, match=r'decode: encoded must have shape \(N, K, 2\)'):
        codec.decode(np.zeros((1, 3, 4)))
    with pytest.raises(ValueError, match=r'decode: scores must have shape .*\(1, 3\), got \(3,\)'):
        codec.decode(np.zeros((1, 3, 2)), np.ones(3))
    with_maps = DSNTLabel((56, 56), **HEATMAPS)
    with pytest.raises(ValueError, match=r'shape \(1, K, 2\) with heatmap_size, got \(2, 3, 2\)'):
        with_maps.encode(np.zeros((2, 3, 2)))


# --- inside the hosts -------------------------------------------------------------------------


@pytest.mark.parametrize('maps', [{}, dict(heatmap_size=(7, 5), sigma=1.0)])
def test_in_the_pipeline_of_mmpose(maps):
    config = dict(type='mmloss_plugins.DSNTLabel', input_size=(56, 40), **maps)
    results = dict(
        img=np.zeros((40, 56, 3), np.uint8),
        keypoints=points((10, 10), (30, 30), (70, 10)),
        keypoints_visible=np.ones((1, 3), np.float32),
        dataset_keypoint_weights=np.ones(3, np.float32),
    )
    packed = PackPoseInputs(meta_keys=())(GenerateTarget(encoder=config)(results))
    sample = packed['data_samples']
    assert sample.gt_instance_labels.keypoint_labels.shape == (1, 3, 2)
    assert sample.gt_instance_labels.keypoint_weights.tolist() == [[1, 1, 0]]
    assert ('gt_fields' in sample) == bool(maps)
    if maps:
        assert sample.gt_fields.heatmaps.shape == (3, 5, 7)


def test_copies_pickles_and_leaves_its_input():
    codec = KEYPOINT_CODECS.build(
        dict(type='mmloss_plugins.DSNTLabel', input_size=[56, 56], heatmap_size=[7, 7], sigma=1.0)
    )
    keypoints = points((11.5, 20.25), (99, np.nan))
    visible = np.array([[1.0, 0.0]])
    before = keypoints.copy(), visible.copy()
    labels = codec.encode(keypoints, visible)['keypoint_labels']
    np.testing.assert_array_equal(keypoints, before[0])
    np.testing.assert_array_equal(visible, before[1])
    for other in (copy.deepcopy(codec), pickle.loads(pickle.dumps(codec))):
        np.testing.assert_array_equal(other.encode(keypoints, visible)['keypoint_labels'], labels)
