"""SimCCLabel: decoding of predictions, its limits and the heads that call it."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.structures import InstanceData
from mmpose.datasets.transforms import GenerateTarget
from mmpose.registry import KEYPOINT_CODECS, MODELS
from mmpose.structures import PoseDataSample

from mmloss_plugins.codecs import SimCCLabel

SIZE = (24, 16)


def random_logits(rng, num_bins, shape=(2, 3), scale=3.0):
    return [(rng.standard_normal((*shape, bins)) * scale).astype(np.float32) for bins in num_bins]


def loop_softmax(row, beta=1.0):
    top = max(row)
    values = [math.exp(beta * (value - top)) for value in row]
    total = math.fsum(values)
    return [value / total for value in values]


def most_likely_centre(probs, sigma, radius):
    """Ternary search for the Gaussian over the window under which ``probs`` are most likely."""
    peak = probs.index(max(probs))
    border = min(peak, len(probs) - 1 - peak)
    radius = max(min(radius, border), math.ceil(sigma))
    window = [i for i in range(len(probs)) if abs(i - peak) <= radius]

    def likelihood(mu):
        exponents = [-((i - mu) ** 2) / (2 * sigma**2) for i in window]
        top = max(exponents)
        norm = top + math.log(math.fsum(math.exp(e - top) for e in exponents))
        return math.fsum(probs[i] * (e - norm) for i, e in zip(window, exponents))

    reach = radius if border >= math.ceil(sigma) else 1
    low = max(peak - reach, -1.0)
    high = min(peak + reach, float(len(probs)))
    for _ in range(200):
        third = (high - low) / 3
        if likelihood(low + third) < likelihood(high - third):
            low += third
        else:
            high -= third
    return (low + high) / 2


# --- against the definition -------------------------------------------------------------------


@pytest.mark.parametrize('sigma', [1.0, 2.5, (4.9, 5.66)])
@pytest.mark.parametrize('beta', [1.0, 0.3])
def test_expectation_is_the_most_likely_centre(sigma, beta):
    codec = SimCCLabel(SIZE, sigma=sigma, beta=beta)
    logits = random_logits(np.random.default_rng(0), codec.num_bins)
    keypoints, scores = codec.decode(*logits)
    assert keypoints.dtype == scores.dtype == np.float32
    for n, k in np.ndindex(2, 3):
        masses = []
        for axis in range(2):
            probs = loop_softmax(logits[axis][n, k].tolist(), beta)
            radius = math.ceil(3 * codec.sigma[axis])
            centre = most_likely_centre(probs, codec.sigma[axis], radius)
            assert keypoints[n, k, axis] * 2 == pytest.approx(centre, abs=1e-3)
            peak = probs.index(max(probs))
            masses.append(math.fsum(probs[max(peak - radius, 0) : peak + radius + 1]))
        assert scores[n, k] == pytest.approx(min(masses), abs=1e-5)


@pytest.mark.parametrize(('ratio', 'radius'), [(1.0, 1), (2.0, 2), (3.0, 3)])
def test_standard_expectation_and_score_by_the_loop(ratio, radius):
    codec = SimCCLabel(SIZE, smoothing_type='standard', simcc_split_ratio=ratio)
    logits = random_logits(np.random.default_rng(1), codec.num_bins)
    keypoints, scores = codec.decode(*logits)
    for n, k in np.ndindex(2, 3):
        masses = []
        for axis in range(2):
            probs = loop_softmax(logits[axis][n, k].tolist())
            peak = probs.index(max(probs))
            first = min(max(peak - 1, 0), len(probs) - 3)
            three = probs[first : first + 3]
            above = [p - min(three) for p in three]
            centre = first + (above[1] + 2 * above[2]) / sum(above)
            assert keypoints[n, k, axis] * ratio == pytest.approx(centre, abs=1e-4)
            masses.append(math.fsum(probs[max(peak - radius, 0) : peak + radius + 1]))
        assert scores[n, k] == pytest.approx(min(masses), abs=1e-5)


def test_argmax_is_that_of_mmpose_on_positive_logits():
    logits = [np.abs(v) for v in random_logits(np.random.default_rng(2), (48, 32))]
    codec = SimCCLabel(SIZE, decode_mode='argmax')
    host = KEYPOINT_CODECS.build(dict(type='mmpose.SimCCLabel', input_size=SIZE))
    np.testing.assert_array_equal(codec.decode(*logits)[0], host.decode(*logits)[0])
    for ours, theirs in zip(
        codec.decode(*(v[0] for v in logits)), host.decode(*(v[0] for v in logits))
    ):
        assert ours.shape == theirs.shape


@pytest.mark.parametrize('mode', ['argmax', 'expectation'])
def test_a_constant_on_the_logits_changes_nothing(mode):
    # MMPose decodes all-negative logits to (-0.5, -0.5).
    codec = SimCCLabel(SIZE, sigma=2.0, decode_mode=mode)
    logits = random_logits(np.random.default_rng(3), codec.num_bins)
    keypoints, scores = codec.decode(*logits)
    for shift in (-100.0, 100.0):
        moved, moved_scores = codec.decode(*(v + np.float32(shift) for v in logits))
        np.testing.assert_allclose(moved, keypoints, atol=1e-3)
        np.testing.assert_allclose(moved_scores, scores, atol=1e-4)
    host = KEYPOINT_CODECS.build(dict(type='mmpose.SimCCLabel', input_size=SIZE))
    assert (host.decode(*(v - np.float32(100.0) for v in logits))[0] == -0.5).all()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    scale=st.floats(0.01, 30.0),
    sigmas=st.tuples(st.floats(0.1, 9.0), st.floats(0.8, 9.0)),
    dark=st.booleans(),
)
def test_any_logits_give_a_point_in_range_and_a_probability(seed, scale, sigmas, dark):
    codec = SimCCLabel(SIZE, sigma=np.maximum(sigmas, 0.8) if dark else sigmas, use_dark=dark)
    logits = random_logits(np.random.default_rng(seed), codec.num_bins, scale=scale)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        keypoints, scores = codec.decode(*logits)
    assert (keypoints >= -0.5).all()
    assert (keypoints <= SIZE).all()
    assert (scores > 0).all()
    assert (scores <= 1).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_moving_the_logits_by_a_bin_moves_the_point_by_a_bin(seed):
    rng = np.random.default_rng(seed)
    codec = SimCCLabel((40, 40), sigma=2.0)
    logits = np.full((1, 1, 80), -8.0)
    logits[..., 20:60] = rng.standard_normal(40)
    logits[..., 40] = 4.0
    here, score = codec.decode(logits, logits)
    there, moved_score = codec.decode(np.roll(logits, 1, axis=-1), np.roll(logits, 1, axis=-1))
    np.testing.assert_allclose(there - here, 0.5, atol=1e-4)
    np.testing.assert_allclose(moved_score, score, atol=1e-6)


@pytest.mark.parametrize('width', [1.5, 3.0, 10.0])
def test_prediction_of_another_width_is_not_drawn_to_a_side(width):
    # The labels have sigma 6; a window cut at the border would move these by up to 5 bins.
    codec = SimCCLabel((96, 96))
    mu = np.arange(0.0, 60.0, 0.3)
    logits = -((np.arange(192) - mu[None, :, None]) ** 2) / (2 * width**2)
    keypoints, _ = codec.decode(logits, logits)
    errors = np.abs(keypoints[0, :, 0] * 2 - mu)
    assert errors.max() <= 1.5
    assert errors[mu >= 6].max() < 0.8
    assert errors[mu >= 18].max() < 0.15


# --- limits -----------------------------------------------------------------------------------


@pytest.mark.parametrize('config', [{}, {'smoothing_type': 'standard'}, {'use_dark': True}])
@pytest.mark.parametrize('dtype', [np.float16, np.float32, np.float64])
@pytest.mark.parametrize('hot', [0, 1, 17, -1])
def test_largest_logits_decode_to_finite_points(config, dtype, hot):
    codec = SimCCLabel(SIZE, decode_visibility=True, **config)
    x, y = (np.full((1, 2, bins), -65504, dtype=dtype) for bins in codec.num_bins)
    x[..., hot] = y[..., hot] = 65504
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        keypoints, (scores, visibility) = codec.decode(x, y)
    wanted = np.array([hot % 48, hot % 32]) / 2
    # A whole prediction near a border is most likely from a Gaussian centred beyond it.
    tolerance = 0.5 if hot in (0, 1, -1) else 1e-3
    np.testing.assert_allclose(keypoints, np.broadcast_to(wanted, (1, 2, 2)), atol=tolerance)
    assert (scores == 1).all()
    assert (visibility == 1).all()


@pytest.mark.parametrize('value', [0.0, -65504.0, 65504.0, 3e38, -3e38])
@pytest.mark.parametrize(
    'config', [{}, {'smoothing_type': 'standard'}, {'use_dark': True}, {'decode_mode': 'argmax'}]
)
def test_flat_logits_decode_to_a_finite_point_with_a_low_score(value, config):
    codec = SimCCLabel((192, 256), **config)
    x, y = (np.full((1, 1, bins), value, dtype=np.float32) for bins in codec.num_bins)
    keypoints, scores = codec.decode(x, y)
    assert np.isfinite(keypoints).all()
    assert (keypoints >= -0.5).all()
    assert scores < 0.1


def test_opposite_float32_extremes():
    codec = SimCCLabel(SIZE)
    x, y = (np.full((1, 1, bins), -3e38, dtype=np.float32) for bins in codec.num_bins)
    x[..., 10] = y[..., 12] = 3e38
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        keypoints, scores = codec.decode(x, y)
    np.testing.assert_allclose(keypoints[0, 0], [5, 6], atol=1e-3)
    assert scores == 1


@pytest.mark.parametrize('value', [np.nan, np.inf])
@pytest.mark.parametrize('config', [{}, {'smoothing_type': 'standard'}, {'use_dark': True}])
def test_broken_prediction_shows_and_spares_the_others(value, config):
    codec = SimCCLabel(SIZE, decode_visibility=True, **config)
    logits = random_logits(np.random.default_rng(4), codec.num_bins)
    want, (want_scores, _) = codec.decode(*logits)
    logits[1][1, 2, 5] = value
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        keypoints, (scores, visibility) = codec.decode(*logits)
    assert np.isnan(keypoints[1, 2]).all()
    assert np.isnan(scores[1, 2])
    assert np.isnan(visibility[1, 2])
    np.testing.assert_array_equal(keypoints[0], want[0])
    np.testing.assert_array_equal(scores[1, :2], want_scores[1, :2])


def test_minus_infinity_is_probability_zero():
    codec = SimCCLabel(SIZE, sigma=2.0)
    x, y = (np.full((1, 1, bins), -np.inf, dtype=np.float32) for bins in codec.num_bins)
    x[..., 9:12] = y[..., 20:23] = [0.0, 1.0, 0.0]
    keypoints, scores = codec.decode(x, y)
    np.testing.assert_allclose(keypoints[0, 0], [5.0, 10.5], atol=1e-5)
    assert scores == 1


def test_row_of_zero_probabilities_has_score_zero():
    codec = SimCCLabel(SIZE, decode_visibility=True)
    encoded = codec.encode(np.full((1, 2, 2), 6.25), np.array([[1, 0]]))
    keypoints, (scores, visibility) = codec.decode(
        encoded['keypoint_x_labels'], encoded['keypoint_y_labels'], from_logits=False
    )
    np.testing.assert_allclose(keypoints, [[[6.25, 6.25], [0, 0]]], atol=1e-4)
    assert scores[0, 0] > 0.99
    assert scores[0, 1] == visibility[0, 1] == 0


def test_inputs_stay_as_they_were():
    for config in ({}, {'use_dark': True}, {'smoothing_type': 'standard'}):
        codec = SimCCLabel(SIZE, decode_visibility=True, **config)
        logits = random_logits(np.random.default_rng(5), codec.num_bins)
        before = [v.copy() for v in logits]
        codec.decode(*logits)
        codec.decode(*(np.exp(v) for v in logits), from_logits=False)
        for now, then in zip(logits, before):
            np.testing.assert_array_equal(now, then)


# --- options of MMPose ------------------------------------------------------------------------


def test_dark_refines_like_mmpose():
    # On a Gaussian inside, MMPose's DARK on the label is right; ours takes logits.
    config = dict(input_size=(96, 128), sigma=3.0, use_dark=True)
    codec = SimCCLabel(**config)
    host = KEYPOINT_CODECS.build(dict(type='mmpose.SimCCLabel', **config))
    keypoints = np.random.default_rng(6).uniform(20, 76, (2, 5, 2))
    encoded = codec.encode(keypoints)
    x, y = encoded['keypoint_x_labels'], encoded['keypoint_y_labels']
    decoded, _ = codec.decode(np.log(x + 1e-12), np.log(y + 1e-12))
    np.testing.assert_allclose(decoded, keypoints, atol=0.02)
    np.testing.assert_allclose(decoded, host.decode(x.copy(), y.copy())[0], atol=0.02)


@pytest.mark.parametrize('sigma', [(0.8, 1.0), (1.5, 2.0), (3.0, 6.0)])
def test_dark_is_that_of_mmpose_on_the_distribution(sigma):
    config = dict(input_size=SIZE, sigma=sigma, use_dark=True)
    logits = random_logits(np.random.default_rng(8), (48, 32), shape=(40, 17), scale=1.0)
    decoded, _ = SimCCLabel(**config).decode(*logits)
    relative = [np.exp(v - v.max(axis=-1, keepdims=True)) for v in logits]
    bins = np.stack([v.argmax(axis=-1) for v in logits], axis=-1)
    host = KEYPOINT_CODECS.build(dict(type='mmpose.SimCCLabel', **config))
    theirs = host.decode(*relative)[0] * 2
    # MMPose throws a point without curvature far away: ours stays within 3 sigma and the image.
    reach = np.ceil(3 * np.array(sigma))
    want = np.clip(np.clip(theirs, bins - reach, bins + reach), -1, [48, 32])
    assert np.abs(theirs - want).max() > 0.1
    np.testing.assert_allclose(decoded * 2, want, atol=1e-3)


def test_visibility_is_that_of_mmpose():
    config = dict(input_size=SIZE, decode_visibility=True, decode_beta=2.0, sigma=(0.9, 1.1))
    logits = random_logits(np.random.default_rng(7), (48, 32), scale=1.0)
    host = KEYPOINT_CODECS.build(dict(type='mmpose.SimCCLabel', **config))
    _, (_, want) = host.decode(*logits)
    for beta in (1.0, 3.0):
        _, (scores, visibility) = SimCCLabel(beta=beta, **config).decode(*logits)
        assert scores.shape == visibility.shape == (2, 3)
        np.testing.assert_allclose(visibility, want, rtol=1e-4)


# --- the heads that call it -------------------------------------------------------------------


def build_head(kind, **decoder):
    common = dict(
        in_channels=8,
        out_channels=3,
        input_size=(48, 64),
        in_featuremap_size=(6, 8),
        simcc_split_ratio=2.0,
        decoder=dict(
            type='mmloss_plugins.SimCCLabel', input_size=(48, 64), sigma=(2.0, 3.0), **decoder
        ),
    )
    if kind == 'SimCCHead':
        return MODELS.build(dict(type='mmpose.SimCCHead', deconv_out_channels=None, **common))
    gau = dict(
        hidden_dims=16, s=16, expansion_factor=2, dropout_rate=0.0, drop_path=0.0,
        act_fn='SiLU', use_rel_bias=False, pos_enc=False,
    )  # fmt: skip
    loss = dict(type='KLDiscretLoss', use_target_weight=True, beta=10.0, label_softmax=True)
    return MODELS.build(
        dict(type='mmpose.RTMCCHead', gau_cfg=gau, final_layer_kernel_size=1, loss=loss, **common)
    )


def packed_samples(codec, batch):
    samples = []
    for seed in range(batch):
        rng = np.random.default_rng(seed)
        results = dict(
            keypoints=rng.uniform(0, 47, (1, 3, 2)).astype(np.float32),
            keypoints_visible=np.array([[1, 1, 0]], dtype=np.float32),
        )
        results = GenerateTarget(encoder=codec).transform(results)
        labels = InstanceData()
        for key, name in results['label_mapping_table'].items():
            labels.set_field(torch.from_numpy(results[key]), name)
        sample = PoseDataSample(metainfo=dict(flip_indices=[0, 2, 1]))
        sample.gt_instance_labels = labels
        samples.append(sample)
    return samples


@pytest.mark.parametrize(
    ('kind', 'config'), [('SimCCHead', {}), ('RTMCCHead', {'normalize': False})]
)
def test_heads_of_mmpose_train_and_predict(kind, config):
    torch.manual_seed(0)
    head = build_head(kind, decode_visibility=True, **config)
    codec = dict(type='mmloss_plugins.SimCCLabel', input_size=(48, 64), sigma=(2.0, 3.0), **config)
    samples = packed_samples(codec, batch=2)
    feats = (torch.randn(2, 8, 8, 6),)
    losses = head.loss(feats, samples)
    losses['loss_kpt'].backward()
    assert all(torch.isfinite(p.grad).all() for p in head.parameters() if p.grad is not None)

    preds = head.predict(feats, samples)
    x, y = head.forward(feats)
    assert len(preds) == 2
    for index, pred in enumerate(preds):
        want, (scores, visibility) = head.decoder.decode(
            x[index].detach().numpy(), y[index].detach().numpy()
        )
        np.testing.assert_allclose(pred.keypoints, want, atol=1e-5)
        np.testing.assert_allclose(pred.keypoint_scores, scores, atol=1e-6)
        np.testing.assert_allclose(pred.keypoints_visible, visibility, atol=1e-6)
        assert pred.keypoints.shape == (1, 3, 2)
        assert (pred.keypoints >= -0.5).all()
        assert (pred.keypoints <= [48, 64]).all()

    flip = head.predict([feats, feats], samples, dict(flip_test=True, output_heatmaps=True))
    assert flip[0][0].keypoints.shape == (1, 3, 2)
    assert flip[1][0].heatmaps.shape == (3, 128, 96)


def test_head_of_another_size_is_told_so():
    head = build_head('SimCCHead')
    head.decoder = SimCCLabel((48, 96), sigma=2.0)
    with pytest.raises(ValueError, match=r'simcc_y must have 192 bins .*got 128\. Give the head'):
        head.predict((torch.randn(1, 8, 8, 6),), [])
