"""DSNTHead: scores, covariances, flip test, debias, and what MMPose's estimator makes of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from mmpose.models.heads import IntegralRegressionHead
from mmpose.registry import MODELS
from torch import nn
from torch.testing import assert_close

from .dsnt_cases import (
    CODEC,
    CODECS,
    INPUT,
    MAP,
    build,
    cells_of,
    draw,
    features,
    gaussian_logits,
    mirrored,
    pack,
    without_layers,
)

CONVENTIONS = {'centered': 'centered', 'mmpose': 'mmpose', 'host': 'mmpose'}
FLAGS = [
    {},
    dict(shift_coords=True, shift_heatmap=True),  # MMPose's stock config
    dict(shift_coords=False, shift_heatmap=False, flip_mode='heatmap'),
]


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmpose')


def maps_of(*cells):
    """One keypoint's map (1, 1, H, W) of logits from (x, y, mass) triples."""
    logits = torch.full((1, 1, MAP[1], MAP[0]), -math.inf)
    for x, y, mass in cells:
        logits[0, 0, y, x] = math.log(mass)
    return logits


def predict(logits, **options):
    (prediction,) = without_layers(build(1, **options)).predict((logits,), None)
    return prediction


# --- coordinates ------------------------------------------------------------------------------


@pytest.mark.parametrize('codec', CODECS)
def test_perfect_maps_decode_to_the_keypoints(codec):
    head, points = without_layers(build(codec=CODECS[codec])), draw()
    logits = gaussian_logits(cells_of(points, CONVENTIONS[codec]))
    predictions = head.predict((logits,), None)
    found = np.stack([each.keypoints for each in predictions])
    np.testing.assert_allclose(found, points, rtol=0, atol=0.01)


def test_hand_values():
    # Half of the mass in cell (3, 4), half in (5, 4): mean (4, 4), stride 4, px (4.5 * 4) - 0.5.
    prediction = predict(maps_of((3, 4, 0.5), (5, 4, 0.5)))
    np.testing.assert_allclose(prediction.keypoints, [[[17.5, 17.5]]], atol=1e-5)
    prediction = predict(maps_of((3, 4, 0.5), (5, 4, 0.5)), codec=CODECS['host'])
    np.testing.assert_allclose(prediction.keypoints, [[[16.0, 16.0]]], atol=1e-5)


# --- scores -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('options', 'score'),
    [
        ({}, 0.7),  # 2 cells away counts, 2.24 does not
        ({'score_radius_px': 1.99}, 0.4),
        ({'score_radius_px': 0.5}, 0.4),
        ({'score_radius_px': 2.3}, 0.8),
        ({'score_radius_px': 100.0}, 1.0),
        ({'score': 'peak'}, 0.4),
    ],
)
def test_scores_by_hand(options, score):
    # The mean is (8, 6): -2 * 0.15 + 2 * 0.15 + 2 * 0.05 - 2 * 0.05 + 5 * 0.1 - 5 * 0.1 = 0 in x.
    cells = [(8, 6, 0.4), (6, 6, 0.15), (10, 6, 0.15), (10, 7, 0.05), (6, 5, 0.05)]
    cells += [(13, 6, 0.1), (3, 6, 0.1)]
    for codec in (CODECS['centered'], CODECS['host']):
        prediction = predict(maps_of(*cells), codec=codec, **options)
        assert prediction.keypoint_scores.shape == (1, 1)
        assert prediction.keypoint_scores.dtype == np.float32
        assert prediction.keypoint_scores.item() == pytest.approx(score, abs=1e-5)


def test_score_of_a_gaussian_of_one_px():
    """1 - exp(-r^2 / 2) = 0.86 in the plane; cells are coarse."""
    points = draw(16, 3)
    logits = gaussian_logits(cells_of(points, 'centered'), sigma=1.0)
    predictions = without_layers(build()).predict((logits,), None)
    scores = np.concatenate([each.keypoint_scores for each in predictions])
    assert scores.mean() == pytest.approx(1 - math.exp(-2), abs=0.02)
    flat = without_layers(build()).predict((torch.zeros(1, 3, MAP[1], MAP[0]),), None)
    # 12 of 192 cells: their centres are within 2 cells of the middle, a corner of cells.
    np.testing.assert_allclose(flat[0].keypoint_scores, 12 / 192, atol=1e-6)


# --- covariances ------------------------------------------------------------------------------


@pytest.mark.parametrize('codec', ['centered', 'host'])
def test_covariances_by_hand(codec):
    # Half of the mass one cell to the left and above, half to the right and below: variances of
    # 1 and a covariance of 1 square cell, cells of 4 px; then a stride of 4 and 8.
    logits = maps_of((7, 5, 0.5), (9, 7, 0.5))
    prediction = predict(logits, codec=CODECS[codec], covariance=True)
    assert prediction.keypoint_covariances.shape == (1, 1, 2, 2)
    np.testing.assert_allclose(
        prediction.keypoint_covariances, np.full((1, 1, 2, 2), 16), rtol=1e-4
    )
    codec = {**CODECS[codec], 'input_size': (64, 96)}
    prediction = predict(logits, codec=codec, covariance=True)
    expected = [[[[16, 32], [32, 64]]]]
    np.testing.assert_allclose(prediction.keypoint_covariances, expected, rtol=1e-4)
    assert 'keypoint_covariances' not in predict(logits)


@pytest.mark.parametrize('codec', CODECS)
def test_covariance_of_two_passes_is_that_of_their_mixture(codec):
    """Passes that disagree by 2 px of the input in x: one more square pixel of variance."""
    head, points = without_layers(build(codec=CODECS[codec], covariance=True)), draw(margin=18)
    off = np.array([2.0, 0.0])
    feats = [
        (gaussian_logits(cells_of(points + off / 2, CONVENTIONS[codec]), 1.2),),
        (gaussian_logits(cells_of(mirrored(points - off / 2), CONVENTIONS[codec]), 1.2),),
    ]
    predictions = head.predict(feats, pack(points), dict(flip_test=True))
    found = np.stack([each.keypoints for each in predictions])
    np.testing.assert_allclose(found, points, rtol=0, atol=0.03)
    covariances = np.stack([each.keypoint_covariances for each in predictions])
    spread = 16 * 1.2**2
    expected = np.array([[spread + 1, 0], [0, spread]])
    np.testing.assert_allclose(covariances[:, 0], np.tile(expected, (2, 3, 1, 1)), atol=0.3)


# --- flip test --------------------------------------------------------------------------------


@pytest.mark.parametrize('flags', FLAGS)
@pytest.mark.parametrize('codec', CODECS)
def test_the_mirrored_image_gives_the_same_result(codec, flags):
    """Exact for every flag of MMPose, with the same scores and covariances."""
    convention = CONVENTIONS[codec]
    for score in ('mass', 'peak'):
        head = without_layers(build(codec=CODECS[codec], score=score, covariance=True))
        points = draw()
        plain = (gaussian_logits(cells_of(points, convention)),)
        other = (gaussian_logits(cells_of(mirrored(points), convention)),)
        expected = head.predict(plain, None)
        found = head.predict([plain, other], pack(points), dict(flip_test=True, **flags))
        for one, two, truth in zip(found, expected, points):
            np.testing.assert_allclose(one.keypoints, truth, rtol=0, atol=0.01)
            np.testing.assert_allclose(one.keypoints, two.keypoints, rtol=0, atol=0.01)
            # Maps of the centred convention coincide; MMPose's lie 3/4 of a cell apart.
            exact = convention == 'centered'
            fields = ['keypoint_covariances'] + ['keypoint_scores'] * (exact or score == 'mass')
            for field in fields:
                np.testing.assert_allclose(one[field], two[field], atol=1e-4 if exact else 0.3)


def test_flip_test_averages_normalised_maps():
    head = build()
    torch.nn.init.normal_(head.final_layer.weight, std=1.0)
    plain, other = features(), (torch.randn(2, 8, MAP[1], MAP[0]),)
    config = dict(flip_test=True, output_heatmaps=True)
    predictions, fields = head.predict([plain, other], pack(draw()), config)
    maps = (head.heatmaps(plain) + head.heatmaps(other)[:, [2, 1, 0]].flip(-1)) / 2
    assert_close(torch.stack([field.heatmaps for field in fields]), maps.detach())
    assert_close(maps.sum((-1, -2)), torch.ones(2, 3))
    (again,) = without_layers(build()).predict((maps[:1].log(),), None)
    np.testing.assert_allclose(predictions[0].keypoints, again.keypoints, rtol=0, atol=1e-3)
    np.testing.assert_allclose(predictions[0].keypoint_scores, again.keypoint_scores, atol=1e-3)


def test_flip_test_of_mmpose_gives_the_same_coordinates():
    """With shift_coords=True, its only exact setting."""
    ours = without_layers(build(codec=CODECS['host']))
    host = IntegralRegressionHead(
        8, MAP, 3, deconv_out_channels=None, decoder=dict(CODECS['host']), final_layer=None
    )
    feats = [(torch.randn(2, 3, MAP[1], MAP[0]),), (torch.randn(2, 3, MAP[1], MAP[0]),)]
    samples = pack(draw(), codec=CODECS['host'])
    for sample in samples:
        sample.set_metainfo(dict(input_size=INPUT))
    config = dict(flip_test=True, shift_coords=True, shift_heatmap=True)
    for one, two in zip(ours.predict(feats, samples, config), host.predict(feats, samples, config)):
        np.testing.assert_allclose(one.keypoints, two.keypoints, rtol=0, atol=1e-4)
        assert (one.keypoint_scores < two.keypoint_scores).all()  # those of MMPose are 1


# --- debias -----------------------------------------------------------------------------------


@pytest.mark.parametrize(('height', 'biased'), [(3, 0.485), (5, 0.585), (8, 0.732)])
def test_debias_of_a_peak_on_a_background_of_zero(height, biased):
    """A map of 12 x 16 cells with a peak in cell (9, 4), at (9 / 12, 4 / 16) in MMPose's units."""
    logits = torch.zeros(1, 1, 16, 12)
    logits[0, 0, 4, 9] = height
    size = dict(input_size=(48, 64), heatmap_size=(12, 16))
    head = without_layers(build(1, {**CODECS['host'], **size}, debias=True))
    coords, _ = head.forward((logits,))
    assert_close(coords, torch.tensor([[[0.75, 0.25]]]), rtol=0, atol=1e-5)
    host = IntegralRegressionHead(
        1, (12, 16), 1, debias=True, deconv_out_channels=None, final_layer=None
    )
    assert host((logits,))[0][0, 0, 0].item() == pytest.approx(biased, abs=6e-4)
    # The formula as Gu et al. write it, in float64.
    total = logits.double().exp().sum()
    plain = (logits.double().exp() / total).sum((0, 1, 2)) @ torch.arange(12.0).double() / 12
    formula = total / (total - 192) * (plain - 192 / total * (11 / 24))
    assert_close(coords[0, 0, 0].double(), formula, rtol=0, atol=1e-5)


def test_debias_uses_beta():
    logits = torch.zeros(1, 1, MAP[1], MAP[0])
    logits[0, 0, 3, 12] = 2.0
    head = without_layers(build(1, debias=True, beta=1.7))
    expected = torch.tensor([[[25 / 16 - 1, 7 / 12 - 1]]])
    assert_close(head.forward((logits,))[0], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize('scale', [0.0, 1e-4, 1.0, 100.0, 6e4])
@pytest.mark.parametrize('offset', [0.0, -3.0, 3.0, -6e4])
def test_debias_without_a_peak_above_the_background(scale, offset):
    """Flat and negative maps have C <= HW: division by zero, or a result outside of the map."""
    logits = (torch.randn(2, 3, MAP[1], MAP[0]) * scale + offset).requires_grad_()
    head = without_layers(build(debias=True))
    coords, _ = head.forward((logits,))
    assert (coords.abs() <= 1).all()
    losses = head.loss((logits,), pack(draw()))
    (losses['loss_coord'] + losses['loss_js']).backward()
    assert torch.isfinite(logits.grad).all()
    assert scale == 6e4 or (logits.grad != 0).any()
    if offset < 0 and scale <= 1:
        plain = without_layers(build()).forward((logits,))[0]
        assert_close(coords, plain)


# --- MMPose's estimator -----------------------------------------------------------------------


class Backbone(nn.Module):
    def forward(self, x):
        return (nn.functional.avg_pool2d(x, 4).repeat(1, 3, 1, 1)[:, :8],)


@pytest.mark.parametrize('indices', [None, [2, 0]])
def test_through_the_estimator(indices):
    """It moves keypoints to the image, and selects keypoints of every field called keypoint*."""
    head = dict(
        type='mmloss_plugins.DSNTHead',
        in_channels=8,
        out_channels=3,
        deconv_out_channels=None,
        covariance=True,
        decoder=dict(CODEC),
    )
    test_cfg = dict(flip_test=True, output_heatmaps=True, output_keypoint_indices=indices)
    backbone = dict(type='ResNet', depth=18, stem_channels=8, base_channels=8)
    config = dict(type='TopdownPoseEstimator', backbone=backbone, head=head, test_cfg=test_cfg)
    model = MODELS.build(config)
    model.backbone = Backbone()
    samples = pack(draw())
    centre, scale = np.array([50.0, 60.0]), np.array([128.0, 96.0])
    for sample in samples:
        sample.set_metainfo(dict(input_size=INPUT, input_center=centre, input_scale=scale))
        sample.gt_instances = InstanceData(bboxes=np.zeros((1, 4)), bbox_scores=np.ones(1))
    images = torch.randn(2, 3, INPUT[1], INPUT[0])
    results = model.predict(images, samples)
    keypoints = 3 if indices is None else 2
    for result in results:
        pred = result.pred_instances
        assert pred.keypoints.shape == (1, keypoints, 2)
        assert pred.keypoint_scores.shape == pred.keypoints_visible.shape == (1, keypoints)
        assert pred.keypoint_covariances.shape == (1, keypoints, 2, 2)
        assert np.linalg.eigvalsh(pred.keypoint_covariances).min() > 0
        assert result.pred_fields.heatmaps.shape == (keypoints, MAP[1], MAP[0])
        # The middle of the input is the centre of the box, but for half a pixel of the convention.
        assert np.abs(pred.keypoints - [50.0, 60.0]).max() < 5
