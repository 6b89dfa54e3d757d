"""SimCCLabel: labels, weights and the round trip."""

from __future__ import annotations

import copy
import math
import pickle
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mmpose.registry import KEYPOINT_CODECS

from mmloss_plugins.codecs import SimCCLabel


def host_codec(**config):
    return KEYPOINT_CODECS.build(dict(type='mmpose.SimCCLabel', **config))


def labels_of(encoded):
    return encoded['keypoint_x_labels'], encoded['keypoint_y_labels']


def points(*pairs):
    """One instance with the given (x, y) in px, shape (1, K, 2)."""
    return np.array([pairs], dtype=np.float64)


def loop_gaussian(mu, num_bins, sigma, normalize):
    values = [math.exp(-((i - mu) ** 2) / (2 * sigma**2)) for i in range(num_bins)]
    total = math.fsum(values) if normalize else 1.0
    return [value / total for value in values]


def loop_two_hot(mu, num_bins, smooth):
    label = []
    for i in range(num_bins):
        share = max(0.0, 1.0 - abs(i - mu))
        label.append((1 - smooth) * share + smooth / (num_bins - 1) * (1 - share))
    return label


# --- values -----------------------------------------------------------------------------------


def test_gaussian_value_by_hand():
    # mu = 0, sigma = 1, 3 bins: 1, e^-.5 = .606531, e^-2 = .135335; their sum is 1.741866.
    # Along y mu = 1.5, 4 bins: e^-1.125 = .324652, e^-.125 = .882497 and mirrored; sum 2.414298.
    codec = SimCCLabel((3, 4), sigma=1.0, simcc_split_ratio=1.0)
    x, y = labels_of(codec.encode(points((0.0, 1.5))))
    assert x.shape == (1, 1, 3)
    assert y.shape == (1, 1, 4)
    assert x.dtype == y.dtype == np.float32
    np.testing.assert_allclose(x[0, 0], [0.574097, 0.348207, 0.077695], atol=1e-6)
    np.testing.assert_allclose(y[0, 0], [0.134471, 0.365529, 0.365529, 0.134471], atol=1e-6)


def test_standard_value_by_hand():
    # W = 4, mu = 1.25, eps = .3: floor .3 / 3 = .1; .7 * .75 + .1 * .25 = .55; .7 * .25 + .1 * .75
    # = .25. Along y eps spreads over 5 bins, floor .3 / 4 = .075, and mu = 3 takes .7.
    codec = SimCCLabel(
        (4, 5), smoothing_type='standard', simcc_split_ratio=1.0, label_smooth_weight=0.3
    )
    x, y = labels_of(codec.encode(points((1.25, 3.0))))
    np.testing.assert_allclose(x[0, 0], [0.1, 0.55, 0.25, 0.1], atol=1e-7)
    np.testing.assert_allclose(y[0, 0], [0.075, 0.075, 0.075, 0.7, 0.075], atol=1e-7)


def test_encoded_keys_are_those_the_heads_read():
    codec = SimCCLabel((12, 16))
    encoded = codec.encode(points((1.0, 2.0), (3.0, 4.0)))
    assert set(encoded) == set(codec.label_mapping_table)
    assert encoded['keypoint_x_labels'].shape == (1, 2, 24)
    assert encoded['keypoint_y_labels'].shape == (1, 2, 32)
    assert encoded['keypoint_weights'].shape == (1, 2)
    assert encoded['keypoint_weights'].dtype == np.float32
    assert host_codec(input_size=(12, 16)).label_mapping_table == codec.label_mapping_table


@pytest.mark.parametrize('normalize', [True, False])
@pytest.mark.parametrize('sigma', [0.1, 1.0, (2.0, 6.0)])
@pytest.mark.parametrize('ratio', [1.0, 1.5, 2.0])
def test_gaussian_equals_the_loop(ratio, sigma, normalize):
    codec = SimCCLabel((24, 40), sigma=sigma, simcc_split_ratio=ratio, normalize=normalize)
    reach = 3 * codec.sigma / ratio
    rng = np.random.default_rng(0)
    keypoints = rng.uniform(-reach, np.array([24, 40]) + 0.9 * reach, (4, 5, 2))
    encoded = codec.encode(keypoints)
    assert (encoded['keypoint_weights'] == 1).all()
    for axis, labels in enumerate(labels_of(encoded)):
        for n, k in np.ndindex(4, 5):
            mu = keypoints[n, k, axis] * ratio
            want = loop_gaussian(mu, codec.num_bins[axis], codec.sigma[axis], normalize)
            np.testing.assert_allclose(labels[n, k], want, rtol=2e-4, atol=1e-6)


def test_normalised_label_far_outside_still_sums_to_one():
    # mu is 12.9 sigma from the nearest bin, exp(-83), and 22.9 sigma from the next, exp(-262).
    codec = SimCCLabel((8, 8), sigma=0.1, simcc_split_ratio=1.0)
    x, _ = labels_of(codec.encode(points((-1.29, 4.0))))
    np.testing.assert_array_equal(x[0, 0], [1, 0, 0, 0, 0, 0, 0, 0])


@pytest.mark.parametrize('smooth', [0.0, 0.1, 1.0])
def test_standard_equals_the_loop(smooth):
    codec = SimCCLabel(
        (24, 40), smoothing_type='standard', simcc_split_ratio=1.5, label_smooth_weight=smooth
    )
    rng = np.random.default_rng(1)
    keypoints = rng.uniform(0, [35 / 1.5, 59 / 1.5], (4, 5, 2))
    keypoints[0, 0] = 0.0
    keypoints[0, 1] = 35 / 1.5, 59 / 1.5
    for axis, labels in enumerate(labels_of(codec.encode(keypoints))):
        for n, k in np.ndindex(4, 5):
            want = loop_two_hot(keypoints[n, k, axis] * 1.5, codec.num_bins[axis], smooth)
            np.testing.assert_allclose(labels[n, k], want, atol=1e-6)


@pytest.mark.parametrize(
    'config', [{}, {'normalize': False}, {'smoothing_type': 'standard', 'label_smooth_weight': 0.1}]
)
def test_whole_bins_inside_give_the_label_of_mmpose(config):
    rng = np.random.default_rng(2)
    keypoints = rng.integers(80, 300, (3, 17, 2)) / 2.0
    ours = SimCCLabel((192, 256), **config).encode(keypoints)
    theirs = host_codec(input_size=(192, 256), **config).encode(keypoints)
    for key, value in theirs.items():
        np.testing.assert_allclose(ours[key], value, atol=1e-6, err_msg=key)


# --- weights and range ------------------------------------------------------------------------


def test_weights_are_the_visibilities_and_the_input_stays():
    codec = SimCCLabel((12, 16))
    visible = np.array([[0.5, 1.0, 0.4, 0.0, 2.0]], dtype=np.float32)
    keypoints = np.full((1, 5, 2), 5.25, dtype=np.float32)
    keypoints[0, 1] = -50.0
    before = visible.copy(), keypoints.copy()
    encoded = codec.encode(keypoints, visible)
    np.testing.assert_array_equal(
        encoded['keypoint_weights'], np.array([[0.5, 0, 0, 0, 2]], dtype=np.float32)
    )
    np.testing.assert_array_equal(visible, before[0])
    np.testing.assert_array_equal(keypoints, before[1])
    assert not np.shares_memory(encoded['keypoint_weights'], visible)
    for labels in labels_of(encoded):
        np.testing.assert_allclose(labels.sum(axis=-1), [[1, 0, 0, 0, 1]], atol=1e-6)


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_broken_coordinate_of_an_invisible_keypoint_is_fine(value):
    codec = SimCCLabel((12, 16))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        encoded = codec.encode(points((value, 3.0), (4.0, 5.0)), np.array([[0.0, 1.0]]))
    np.testing.assert_array_equal(encoded['keypoint_weights'], [[0, 1]])
    for labels in labels_of(encoded):
        assert not labels[0, 0].any()
        assert np.isfinite(labels).all()


@pytest.mark.parametrize(
    ('mu', 'weight'), [(-7.0, 1), (-7.01, 0), (29.99, 1), (30.0, 0), (-1e30, 0), (1e30, 0)]
)
@pytest.mark.parametrize('axis', [0, 1])
def test_gaussian_range_is_that_of_mmpose(mu, weight, axis):
    # sigma 2: in range from -(3 * 2 + 1) = -7 up to, not including, W + 6 = 30.
    codec = SimCCLabel((24, 24), sigma=2.0, simcc_split_ratio=1.0)
    keypoints = points((10.5, 10.5))
    keypoints[..., axis] = mu
    encoded = codec.encode(keypoints)
    assert encoded['keypoint_weights'] == weight
    for labels in labels_of(encoded):
        assert labels.sum() == pytest.approx(weight, abs=1e-6)
    if mu == round(mu) and abs(mu) < 100:
        host = host_codec(input_size=(24, 24), sigma=2.0, simcc_split_ratio=1.0)
        assert host.encode(keypoints)['keypoint_weights'] == weight


@pytest.mark.parametrize(('mu', 'weight'), [(-0.01, 0), (0.0, 1), (23.0, 1), (23.99, 1), (24.0, 0)])
def test_standard_range_ends_with_the_last_pixel(mu, weight):
    codec = SimCCLabel((24, 30), smoothing_type='standard', simcc_split_ratio=1.0)
    x, y = labels_of(encoded := codec.encode(points((mu, 10.5))))
    assert encoded['keypoint_weights'] == weight
    assert x.sum() == y.sum() == weight
    if mu >= 23.0:  # beyond the centre of the last bin all mass is on it
        assert x[0, 0, 23] == weight


def test_no_instance():
    codec = SimCCLabel((12, 16))
    encoded = codec.encode(np.zeros((0, 17, 2)))
    assert encoded['keypoint_x_labels'].shape == (0, 17, 24)
    keypoints, scores = codec.decode(*labels_of(encoded))
    assert keypoints.shape == (0, 17, 2)
    assert scores.shape == (0, 17)


# --- round trip -------------------------------------------------------------------------------


def sub_pixel_points(codec, low, high):
    """Random points and every border and corner of [low, high] bins, in px, shape (N, 4, 2)."""
    rng = np.random.default_rng(3)
    random = rng.uniform(low, high, (40, 4, 2))
    for axis in range(2):
        random[:5, :, axis] = low
        random[5:10, :, axis] = high[axis]
        random[10:15, :, axis] = rng.uniform(low, low + 3, (5, 4))
        random[15:20, :, axis] = rng.uniform(high[axis] - 3, high[axis], (5, 4))
        random[20, :, axis] = 7.5
    random[0] = [(low, low), (low, high[1]), (high[0], low), high]
    return random / codec.simcc_split_ratio


@pytest.mark.parametrize('size', [(48, 64), (30, 22)])
@pytest.mark.parametrize('ratio', [1.0, 1.5, 2.0, 3.0])
@pytest.mark.parametrize('sigma', [1.0, 2.0, 4.0, 6.0, (4.9, 5.66)])
def test_gaussian_round_trip(size, ratio, sigma):
    codec = SimCCLabel(size, sigma=sigma, simcc_split_ratio=ratio)
    keypoints = sub_pixel_points(codec, -1.0, codec.num_bins)
    x, y = labels_of(codec.encode(keypoints))
    logits = [np.log(np.maximum(labels, 1e-38)) for labels in (x, y)]
    for decoded, scores in (codec.decode(x, y, from_logits=False), codec.decode(*logits)):
        assert np.abs(decoded - keypoints).max() < 1e-4
        assert scores.min() > 0.99


@pytest.mark.parametrize('ratio', [1.0, 1.5, 2.0, 3.0])
@pytest.mark.parametrize('smooth', [0.0, 0.1])
def test_standard_round_trip(ratio, smooth):
    codec = SimCCLabel(
        (48, 64),
        smoothing_type='standard',
        simcc_split_ratio=ratio,
        label_smooth_weight=smooth,
    )
    keypoints = sub_pixel_points(codec, 0.0, codec.num_bins - 1)
    x, y = labels_of(codec.encode(keypoints))
    logits = [np.log(np.maximum(labels, 1e-38)) for labels in (x, y)]
    for decoded, scores in (codec.decode(x, y, from_logits=False), codec.decode(*logits)):
        assert np.abs(decoded - keypoints).max() < 1e-3
        assert scores.min() > 0.99 - smooth


def test_rtmpose_round_trip():
    # RTMPose's loss drives softmax(10 * logits) to softmax(10 * label): logits equal the label.
    codec = SimCCLabel((192, 256), sigma=(4.9, 5.66), normalize=False)
    keypoints = sub_pixel_points(codec, 0.0, codec.num_bins - 1)
    decoded, scores = codec.decode(*labels_of(codec.encode(keypoints)))
    inside = ((keypoints > 12) & (keypoints < [180, 244])).all(axis=-1)
    assert np.abs(decoded - keypoints)[inside].max() < 1e-3
    # Near the border the narrowed label is only close to a Gaussian.
    assert np.abs(decoded - keypoints).max() < 0.03
    assert scores.min() > 0.98


@settings(max_examples=60, deadline=None)
@given(
    x=st.floats(-0.5, 24.0),
    y=st.floats(-0.5, 16.0),
    sigma=st.floats(0.5, 8.0),
    ratio=st.sampled_from([1.0, 1.5, 2.0]),
)
def test_any_point_survives_the_round_trip(x, y, sigma, ratio):
    codec = SimCCLabel((24, 16), sigma=sigma, simcc_split_ratio=ratio)
    labels = labels_of(encoded := codec.encode(points((x, y))))
    assert encoded['keypoint_weights'] == 1
    for label in labels:
        assert label.sum() == pytest.approx(1.0, abs=1e-5)
        assert label.min() >= 0
    decoded, scores = codec.decode(*labels, from_logits=False)
    assert 0 <= scores.min() <= scores.max() <= 1
    np.testing.assert_allclose(decoded[0, 0], [x, y], atol=1e-3)


@settings(max_examples=30, deadline=None)
@given(mu=st.floats(30.0, 60.0), sigma=st.floats(0.5, 4.0))
def test_label_moves_with_the_point(mu, sigma):
    codec = SimCCLabel((100, 100), sigma=sigma, simcc_split_ratio=1.0)
    labels, _ = labels_of(codec.encode(points((mu, 50.0), (mu + 1, 50.0))))
    np.testing.assert_allclose(labels[0, 1, 1:], labels[0, 0, :-1], atol=1e-6)


def test_copies_encode_alike():
    codec = SimCCLabel([12, 16], sigma=(1.0, 2.0))
    keypoints = points((3.3, 4.4))
    want = codec.encode(keypoints)
    for other in (copy.deepcopy(codec), pickle.loads(pickle.dumps(codec))):
        for key, value in other.encode(keypoints).items():
            np.testing.assert_array_equal(value, want[key])
