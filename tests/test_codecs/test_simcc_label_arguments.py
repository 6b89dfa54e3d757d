"""SimCCLabel: every argument has an effect, and a bad one has a message."""

from __future__ import annotations

import numpy as np
import pytest
from mmpose.registry import KEYPOINT_CODECS

from mmloss_plugins.codecs import SimCCLabel

SIZE = (24, 16)


def build(**config):
    """Build as a config of MMPose does."""
    return KEYPOINT_CODECS.build(
        dict(type='mmloss_plugins.SimCCLabel', **{'input_size': SIZE, **config})
    )


def encoded_x(codec):
    return codec.encode(np.array([[[5.3, 6.1]]]))['keypoint_x_labels']


@pytest.mark.parametrize(
    ('base', 'change'),
    [
        ({}, {'input_size': (30, 16)}),
        ({}, {'smoothing_type': 'standard'}),
        ({}, {'sigma': 5.0}),
        ({}, {'sigma': (5.0, 6.0)}),
        ({}, {'simcc_split_ratio': 1.5}),
        ({'smoothing_type': 'standard'}, {'label_smooth_weight': 0.1}),
        ({}, {'normalize': False}),
    ],
)
def test_arguments_that_change_the_label(base, change):
    before, after = encoded_x(build(**base)), encoded_x(build(**{**base, **change}))
    assert before.shape != after.shape or not np.allclose(before, after, atol=1e-4)


@pytest.mark.parametrize(
    ('base', 'change'),
    [
        ({}, {'sigma': 3.0}),
        ({}, {'smoothing_type': 'standard'}),
        ({}, {'use_dark': True}),
        ({}, {'decode_mode': 'argmax'}),
        ({}, {'beta': 2.0}),
        ({}, {'normalize': False}),
        ({'beta': 1.0}, {'normalize': False}),
    ],
)
def test_arguments_that_change_the_decoded_point(base, change):
    x = -0.3 * np.abs(np.arange(48) - 3.3)[None]
    y = -0.3 * np.abs(np.arange(32) - 8.4)[None]
    before, _ = build(**base).decode(x, y)
    after, _ = build(**{**base, **change}).decode(x, y)
    assert np.abs(before - after).max() > 1e-3


def test_arguments_of_the_visibility():
    x, y = np.linspace(0, 0.01, 48)[None], np.linspace(0, 0.02, 32)[None]
    _, scores = build().decode(x, y)
    _, (same, visibility) = build(decode_visibility=True).decode(x, y)
    _, (_, other) = build(decode_visibility=True, decode_beta=50.0).decode(x, y)
    np.testing.assert_array_equal(scores, same)
    assert visibility.shape == scores.shape == (1, 1)
    assert visibility - other > 0.01


def test_beta_follows_the_recipe_of_the_labels():
    assert build().beta == 1.0
    assert build(normalize=False).beta == 10.0
    assert build(normalize=False, beta=1.0).beta == 1.0


def test_arguments_of_every_stock_config_are_accepted():
    rtmpose = build(
        input_size=(192, 256),
        sigma=(4.9, 5.66),
        simcc_split_ratio=2.0,
        normalize=False,
        use_dark=False,
        decode_visibility=True,
    )
    np.testing.assert_array_equal(rtmpose.sigma, [4.9, 5.66])
    np.testing.assert_array_equal(rtmpose.num_bins, [384, 512])
    positional = SimCCLabel((192, 256), 'standard', 6, 2, 0.1, True, False, False, 150)
    assert positional.label_smooth_weight == 0.1


@pytest.mark.parametrize(
    ('config', 'error', 'text'),
    [
        ({'simcc_split_ratio': 0}, ValueError, r'simcc_split_ratio must be > 0, got 0\.'),
        ({'simcc_split_ratio': -2.0}, ValueError, r'must be > 0, got -2\.0'),
        ({'simcc_split_ratio': float('nan')}, TypeError, 'must be a finite number, got nan'),
        ({'simcc_split_ratio': '2'}, TypeError, "got '2'"),
        ({'sigma': 0}, ValueError, r'sigma must be at least 0\.1 bins, got 0\.'),
        ({'sigma': (6.0, -1)}, ValueError, r'at least 0\.1 bins, got \(6\.0, -1\)'),
        ({'sigma': (1, 2, 3)}, ValueError, r'or two, \(x, y\), got \(1, 2, 3\)'),
        ({'sigma': 'wide'}, ValueError, "got 'wide'"),
        ({'sigma': float('inf')}, ValueError, 'got inf'),
        ({'sigma': 0.7, 'use_dark': True}, ValueError, "use_dark=True, got 0.7.*'expectation'"),
        ({'input_size': 192}, ValueError, 'two positive whole numbers of px.*got 192'),
        ({'input_size': (192, 256, 3)}, ValueError, r'got \(192, 256, 3\)'),
        ({'input_size': (192.0, 256)}, ValueError, r'got \(192\.0, 256\)'),
        ({'input_size': (0, 256)}, ValueError, r'got \(0, 256\)'),
        (
            {'input_size': (193, 256), 'simcc_split_ratio': 1.5},
            ValueError,
            r'whole number of bins, got 193 x 1\.5 = 289\.5\. Change input_size or simcc_split',
        ),
        # 0.29 * 100 = 28.999999999999996 is 28 bins for MMPose's head and 29 for its codec.
        ({'input_size': (100, 100), 'simcc_split_ratio': 0.29}, ValueError, 'got 100 x 0.29'),
        ({'input_size': (2, 8), 'simcc_split_ratio': 1}, ValueError, 'at least 3 bins, got 2 x 1'),
        ({'smoothing_type': 'gausian'}, ValueError, "got 'gausian'. Did you mean 'gaussian'"),
        ({'decode_mode': 'max'}, ValueError, "decode_mode must be one of 'expectation', 'argmax'"),
        (
            {'smoothing_type': 'standard', 'label_smooth_weight': 1.5},
            ValueError,
            r'label_smooth_weight must be in \[0, 1\], got 1\.5',
        ),
        ({'label_smooth_weight': -0.1}, ValueError, r'in \[0, 1\], got -0\.1'),
        ({'label_smooth_weight': 0.1}, ValueError, "must be 0 with smoothing_type='gaussian'"),
        ({'normalize': 'False'}, TypeError, "normalize must be True or False, got 'False'"),
        ({'use_dark': 1}, TypeError, 'use_dark must be True or False, got 1'),
        ({'decode_visibility': None}, TypeError, 'decode_visibility must be True or False'),
        ({'decode_beta': 0}, ValueError, 'decode_beta must be > 0'),
        ({'beta': -1}, ValueError, 'beta must be > 0, got -1'),
        (
            {'simcc_split_ration': 2.0},
            TypeError,
            "got 'simcc_split_ration'. Did you mean 'simcc_split_ratio'",
        ),
    ],
)
def test_bad_argument_is_refused_when_the_config_is_built(config, error, text):
    with pytest.raises(error, match=text):
        build(**config)


@pytest.mark.parametrize(
    ('keypoints', 'visible', 'text'),
    [
        (np.zeros((17, 2)), None, r'keypoints must have shape \(N, K, 2\), got \(17, 2\)'),
        (np.zeros((1, 17, 3)), None, r'got \(1, 17, 3\)'),
        (np.zeros((1, 17, 2)), np.ones((1, 17, 2)), r'\(N, K\) = \(1, 17\), got \(1, 17, 2\)'),
        (np.zeros((1, 17, 2)), np.ones((1, 16)), r'keypoints_visible must .* got \(1, 16\)'),
        (np.zeros((1, 1, 2)), np.full((1, 1), np.nan), 'keypoints_visible must be finite'),
    ],
)
def test_bad_shapes_of_a_sample_are_refused(keypoints, visible, text):
    with pytest.raises(ValueError, match=text):
        build().encode(keypoints, visible)


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_broken_visible_keypoint_is_named(value):
    keypoints = np.full((2, 3, 2), 4.0)
    keypoints[1, 2, 0] = value
    text = rf'keypoints must be finite, got \[{value}, 4\.0\] at instance 1, keypoint 2\. Repair'
    with pytest.raises(ValueError, match=text):
        build().encode(keypoints)
    # Every keypoint but this one is checked: hidden, it does not hide another broken one.
    keypoints[0, 0, 1] = np.nan
    visible = np.ones((2, 3))
    visible[1, 2] = 0
    with pytest.raises(ValueError, match='instance 0, keypoint 0'):
        build().encode(keypoints, visible)


@pytest.mark.parametrize(
    ('x_shape', 'y_shape', 'text'),
    [
        (
            (1, 3, 64),
            (1, 3, 32),
            r'simcc_x must have 48 bins \(input_size\[0\]=24 x simcc_split_ratio=2\), got 64\. '
            'Give the head the input_size and simcc_split_ratio of the codec',
        ),
        ((3, 48), (3, 48), r'simcc_y must have 32 bins \(input_size\[1\]=16 .* got 48'),
        ((1, 3, 48), (1, 4, 32), r'simcc_y must have the N and K of simcc_x, \(1, 3\), got \(1, 4'),
        ((3, 48), (1, 3, 32), r'N and K of simcc_x, \(3,\), got \(1, 3\)'),
        ((48,), (32,), r'shape \(K, 48\) or \(N, K, 48\), got \(48,\)'),
    ],
)
def test_predictions_that_do_not_fit_are_refused(x_shape, y_shape, text):
    with pytest.raises(ValueError, match=text):
        build().decode(np.zeros(x_shape), np.zeros(y_shape))


def test_logits_are_not_taken_for_probabilities():
    x, y = np.full((1, 48), 0.1), np.full((1, 32), -0.5)
    with pytest.raises(ValueError, match=r'hold no negative value, got -0\.5\. Pass log'):
        build().decode(x, y, from_logits=False)
