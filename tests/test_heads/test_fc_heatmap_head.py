"""FCHeatmapHead: the paper's fully connected baseline."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from torch.testing import assert_close

from .dsnt_cases import CODECS, INPUT, MAP, build, draw, features, mirrored, pack

FC = dict(kind='FCHeatmapHead', heatmap_size=MAP)


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmpose')


def test_equation():
    head = build(**FC)
    torch.nn.init.normal_(head.final_layer.weight, std=1.0)
    logits = torch.nn.functional.conv2d(
        features()[0], head.final_layer.weight, head.final_layer.bias
    )
    maps = logits.flatten(2).softmax(-1)
    coords, heatmaps = head.forward(features())
    assert_close(heatmaps.flatten(2), maps)
    expected = torch.einsum('bkp,dp->bkd', maps, head.fc.weight) + head.fc.bias
    assert_close(coords, expected)
    assert head.fc.weight.shape == (2, MAP[0] * MAP[1])


@pytest.mark.parametrize('codec', CODECS)
def test_starts_near_the_middle(codec):
    for seed in range(5):
        torch.manual_seed(seed)
        predictions = build(codec=CODECS[codec], **FC).predict(features(), None)
        found = np.stack([each.keypoints for each in predictions])
        away = np.abs(found - (np.array(INPUT) - 1) / 2) / INPUT
        # Half of the range of the bias, 1 / sqrt(192), and a mean of weights in that range.
        assert away.max() < 0.1


@pytest.mark.parametrize('codec', CODECS)
def test_loss_on_packed_samples(codec):
    visible = np.ones((2, 1, 3))
    visible[:, 0, 1] = 0
    head, samples = build(codec=CODECS[codec], **FC), pack(draw(), visible, CODECS[codec])
    losses = head.loss(features(), samples)
    assert set(losses) == {'loss_coord', 'acc_pose'}
    losses['loss_coord'].backward()
    assert all(torch.isfinite(p.grad).all() for p in head.parameters())
    gradient = head.final_layer.weight.grad.flatten(1)
    assert (gradient[[0, 2]] != 0).any(1).all()
    assert (gradient[1] == 0).all()
    assert (head.fc.weight.grad != 0).all()


def test_learns_one_sample_by_heart():
    points = draw(1, 2)
    feats = (torch.eye(192).view(1, 192, 12, 16),)
    head, samples = build(2, in_channels=192, **FC), pack(points)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
    for step in range(200):
        for group in optimizer.param_groups:
            group['lr'] = 0.05 * (1 - step / 200)
        losses = head.loss(feats, samples)
        optimizer.zero_grad()
        losses['loss_coord'].backward()
        optimizer.step()
    (prediction,) = head.predict(feats, samples)
    np.testing.assert_allclose(prediction.keypoints, points[0], atol=0.3)
    assert losses['acc_pose'] == 1


@pytest.mark.parametrize('codec', CODECS)
def test_flip_test_averages_coordinates(codec):
    """What the layer makes of a mirrored map is unknown: only its coordinates can be mirrored."""
    head = build(codec=CODECS[codec], **FC)
    torch.nn.init.normal_(head.final_layer.weight, std=1.0)
    plain, other = features(), (torch.randn(2, 8, MAP[1], MAP[0]),)
    one, two = (
        np.stack([each.keypoints for each in head.predict(feats, None)]) for feats in (plain, other)
    )
    config = dict(flip_test=True, shift_heatmap=True, shift_coords=True)
    found = np.stack(
        [each.keypoints for each in head.predict([plain, other], pack(draw()), config)]
    )
    np.testing.assert_allclose(found, (one + mirrored(two)) / 2, rtol=0, atol=1e-3)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
def test_coordinates_are_not_rounded_by_autocast(dtype):
    head = build(**FC)
    with torch.autocast('cpu', dtype=dtype):
        logits = head.logits(features())
        found = head.read(logits)
    assert logits.dtype == dtype
    assert found.means.dtype == torch.float32
    assert_close(found.means, head.read(logits.float()).means, rtol=0, atol=1e-6)


def test_scores():
    head = build(**FC)
    torch.nn.init.normal_(head.final_layer.weight, std=1.0)
    predictions, fields = head.predict(features(), None, dict(output_heatmaps=True))
    for prediction, field in zip(predictions, fields):
        assert_close(torch.from_numpy(prediction.keypoint_scores[0]), field.heatmaps.amax((-1, -2)))
    by_mass = build(score='mass', score_radius_px=100.0, **FC).predict(features(), None)
    np.testing.assert_allclose(by_mass[0].keypoint_scores, 1, atol=1e-5)


def test_another_size():
    head = build(**FC)
    with pytest.raises(
        ValueError, match=r'size of the maps must be \(16, 12\), the heatmap_size .* got \(12, 16\)'
    ):
        head.forward(features(size=(12, 16)))
    deconv = build(deconv_out_channels=(8,), **FC)
    assert deconv.forward(features(size=(8, 6)))[0].shape == (2, 3, 2)


@pytest.mark.parametrize('size', [7, (7,), (0, 7), (7.0, 7.0), (7, 7, 7)])
def test_what_is_no_size(size):
    with pytest.raises(ValueError, match=r'heatmap_size must be two positive whole numbers'):
        build(kind='FCHeatmapHead', heatmap_size=size)


@pytest.mark.parametrize('option', ['debias', 'covariance', 'num_stages', 'heatmap_sise'])
def test_options_that_it_does_not_have(option):
    with pytest.raises(TypeError, match=rf"FCHeatmapHead: argument must be .*, got '{option}'"):
        build(**{option: True}, **FC)
