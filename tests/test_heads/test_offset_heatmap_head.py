"""OffsetHeatmapHead: channels, prior, loss on real packed samples, decoding, flip test."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from mmpose.datasets.transforms import GenerateTarget, PackPoseInputs
from mmpose.models.losses.heatmap_loss import CombinedTargetMSELoss
from torch.testing import assert_close

from mmloss_plugins.functional import split_offset_maps
from mmloss_plugins.heads.offset_heatmap import OffsetHeatmapHead, flip_offset_maps
from mmloss_plugins.losses import OffsetHeatmapLoss
from mmloss_plugins.registry import MODELS

INPUT, MAP = (64, 48), (8, 6)  # (w, h), so that H != W
CODEC = dict(
    type='mmloss_plugins.OffsetHeatmap', input_size=INPUT, heatmap_size=MAP, radius_px=12.0
)
ORDERS = ['grouped', 'interleaved']


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmpose')


def build(keypoints=3, codec=CODEC, **options):
    config = dict(type='mmloss_plugins.OffsetHeatmapHead', in_channels=8, out_channels=keypoints)
    head = MODELS.build({**config, 'decoder': dict(codec), **options})
    head.init_weights()
    return head


def draw(batch=2, keypoints=3):
    return np.random.default_rng(0).uniform(2, np.array(INPUT) - 3, (batch, 1, keypoints, 2))


def pack(points, visible=None, codec=CODEC):
    """Samples as the pipeline makes them; points (B, 1, K, 2) in px of the input."""
    encode, form = GenerateTarget(encoder=dict(codec)), PackPoseInputs(meta_keys=('flip_indices',))
    visible = np.ones(points.shape[:3]) if visible is None else visible
    samples = []
    for keypoints, flags in zip(points, visible):
        results = dict(
            img=np.zeros((INPUT[1], INPUT[0], 3), np.uint8),
            keypoints=keypoints,
            keypoints_visible=flags.astype(np.float32),
            dataset_keypoint_weights=np.ones(points.shape[2], np.float32),
            flip_indices=list(range(points.shape[2]))[::-1],
        )
        samples.append(form(encode(results))['data_samples'])
    return samples


def features(batch=2, size=MAP):
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(batch, 8, size[1], size[0], generator=generator),)


def perfect_maps(samples):
    """What a head that has learnt everything predicts for ``samples``, in the grouped order."""
    target = torch.stack([sample.gt_fields.heatmaps for sample in samples])
    maps = target.clone()
    disks, _ = split_offset_maps(maps)
    disks.mul_(24).sub_(12)
    return maps


# --- layers -----------------------------------------------------------------------------------


@pytest.mark.parametrize('order', ORDERS)
def test_the_prior_is_in_the_bias_of_the_disks_alone(order):
    head = build(codec={**CODEC, 'order': order}, prior_prob=0.2)
    disks, offsets = split_offset_maps(head.final_layer.bias.view(1, -1, 1, 1), order)
    assert_close(disks.sigmoid(), torch.full_like(disks, 0.2))
    assert (offsets == 0).all()
    disks, offsets = split_offset_maps(head.forward(features()), order)
    assert disks.shape == (2, 3, 6, 8)
    assert_close(disks.sigmoid().mean().item(), 0.2, rtol=0.02, atol=0)
    assert offsets.abs().max() < 0.1


def test_a_pretrained_bias_is_kept(tmp_path):
    trained = build(prior_prob=0.3)
    torch.save({'state_dict': trained.state_dict()}, tmp_path / 'head.pth')
    head = build(init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'head.pth')))
    assert_close(head.final_layer.bias, trained.final_layer.bias)


def test_layers_of_the_host():
    head = build(
        deconv_out_channels=(16,),
        deconv_kernel_sizes=(4,),
        conv_out_channels=(12,),
        conv_kernel_sizes=(3,),
        final_layer=dict(kernel_size=3, padding=1),
    )
    assert head.forward(features()).shape == (2, 9, 12, 16)
    assert head.out_channels == 3


def test_a_checkpoint_of_another_resolution():
    small, large = build(), build(codec={**CODEC, 'heatmap_size': (16, 12), 'radius_px': 6.0})
    missing = large.load_state_dict(small.state_dict())
    assert not missing.missing_keys
    assert not missing.unexpected_keys
    # An order of the decoder is not part of the weights either.
    assert all('weight' in name or 'bias' in name for name in small.state_dict())


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        ({'prior_prob': 0.0}, r'prior_prob must be in \(0, 1\), got 0.0'),
        ({'final_layer': None}, 'final_layer must be a convolution with a bias'),
        ({'final_layer': dict(bias=False)}, 'final_layer must be a convolution with a bias'),
        (
            {'loss': dict(type='mmloss_plugins.OffsetHeatmapLoss', order='interleaved')},
            "loss must have the order of the decoder, 'grouped', got 'interleaved'",
        ),
    ],
)
def test_bad_configs(options, text):
    with pytest.raises(ValueError, match=text):
        build(**options)


# --- loss -------------------------------------------------------------------------------------


@pytest.mark.parametrize('order', ORDERS)
def test_loss_on_packed_samples(order):
    codec = {**CODEC, 'order': order}
    head, samples = build(codec=codec), pack(draw(), codec=codec)
    feats = features()
    losses = head.loss(feats, samples)
    assert list(losses) == ['loss_heatmap', 'loss_offset', 'offset_error_px']
    target = torch.stack([sample.gt_fields.heatmaps for sample in samples])
    expected = OffsetHeatmapLoss(order=order)(head.forward(feats), target)
    assert_close(losses['loss_heatmap'] + losses['loss_offset'], expected)
    (losses['loss_heatmap'] + losses['loss_offset']).backward()
    assert all(p.grad.abs().sum() > 0 for p in head.parameters())
    # The offsets start at 0, so their error is the distance of the cells from the keypoint.
    assert 3 < losses['offset_error_px'] < 12


def test_compute_acc_false_leaves_the_error_out():
    losses = build().loss(features(), pack(draw()), dict(compute_acc=False))
    assert list(losses) == ['loss_heatmap', 'loss_offset']


def test_one_invisible_joint_gets_no_gradient():
    visible = np.ones((2, 1, 3))
    visible[:, 0, 1] = 0
    head = build()
    losses = head.loss(features(), pack(draw(), visible))
    (losses['loss_heatmap'] + losses['loss_offset']).backward()
    gradient = head.final_layer.weight.grad.view(3, 3, -1)  # disk, x, y by keypoint
    assert (gradient[:, 1] == 0).all()
    assert (gradient[:, [0, 2]].abs().sum(-1) > 0).all()


def test_a_joint_outside_the_image_counts_as_invisible():
    points = draw()
    points[:, 0, 1] = (-30.0, 90.0)
    losses = build().loss(features(), pack(points))
    visible = np.ones((2, 1, 3))
    visible[:, 0, 1] = 0
    expected = build().loss(features(), pack(draw(), visible))
    assert_close(losses['loss_offset'], expected['loss_offset'], rtol=0, atol=0.02)
    assert losses['loss_offset'] > 0


def test_no_visible_joint():
    head = build()
    losses = head.loss(features(), pack(draw(), np.zeros((2, 1, 3))))
    assert all(value == 0 for value in losses.values())
    (losses['loss_heatmap'] + losses['loss_offset']).backward()
    assert all((p.grad == 0).all() for p in head.parameters())


@pytest.mark.parametrize(('batch', 'keypoints'), [(1, 1), (1, 3), (2, 1)])
def test_one_keypoint_and_one_sample(batch, keypoints):
    head, samples = build(keypoints), pack(draw(batch, keypoints))
    losses = head.loss(features(batch), samples)
    assert all(value.isfinite() and value > 0 for value in losses.values())
    predictions = head.predict(features(batch), samples)
    assert [p.keypoints.shape for p in predictions] == [(1, keypoints, 2)] * batch


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast(dtype):
    head, samples = build(), pack(draw())
    expected = head.loss(features(), samples)
    with torch.autocast('cpu', dtype=dtype):
        losses = head.loss(features(), samples)
        predictions = head.predict(features(), samples)
    (losses['loss_heatmap'] + losses['loss_offset']).backward()
    for name, value in losses.items():
        assert value.dtype == torch.float32
        assert_close(value, expected[name], rtol=0.02, atol=0.02)
    assert all(p.grad.isfinite().all() for p in head.parameters())
    assert all(np.isfinite(p.keypoints).all() for p in predictions)


def test_the_host_s_loss_is_called_as_the_host_calls_it():
    codec = {**CODEC, 'order': 'interleaved'}
    loss = dict(type='CombinedTargetMSELoss', use_target_weight=True)
    head, samples = build(codec=codec, loss=loss), pack(draw(), codec=codec)
    losses = head.loss(features(), samples)
    target = torch.stack([sample.gt_fields.heatmaps for sample in samples])
    host = CombinedTargetMSELoss(use_target_weight=True)
    expected = host(head.forward(features()), target, torch.ones(2, 3))
    assert list(losses) == ['loss_kpt']
    assert_close(losses['loss_kpt'], expected)


# --- prediction -------------------------------------------------------------------------------


def test_perfect_maps_decode_to_the_keypoints(monkeypatch):
    head, points = build(), draw()
    samples = pack(points)
    monkeypatch.setattr(head, 'forward', lambda feats: perfect_maps(samples))
    predictions = head.predict(None, samples)
    found = np.stack([each.keypoints for each in predictions])
    np.testing.assert_allclose(found, points, rtol=0, atol=1e-3)
    scores = np.stack([each.keypoint_scores for each in predictions])
    np.testing.assert_allclose(scores, 1, atol=1e-4)


def test_output_heatmaps_are_the_probabilities_of_the_disks(monkeypatch):
    head, samples = build(), pack(draw())
    monkeypatch.setattr(head, 'forward', lambda feats: perfect_maps(samples))
    predictions, fields = head.predict(None, samples, dict(output_heatmaps=True))
    assert len(predictions) == len(fields) == 2
    disks = samples[0].gt_fields.heatmaps[:3]
    assert_close(fields[0].heatmaps, disks, rtol=0, atol=1e-4)


def mirrored(points):
    """The keypoints of the mirrored image, in the order of ``flip_indices``."""
    result = points[:, :, ::-1].copy()
    result[..., 0] = INPUT[0] - 1 - result[..., 0]
    return result


@pytest.mark.parametrize('order', ORDERS)
def test_flipped_maps_of_the_mirrored_image_are_the_maps(order):
    codec = {**CODEC, 'order': order}
    here, there = (
        torch.stack([sample.gt_fields.heatmaps for sample in pack(points, codec=codec)])
        for points in (draw(), mirrored(draw()))
    )
    untouched = there.clone()
    assert_close(flip_offset_maps(there, [2, 1, 0], order), here, rtol=0, atol=1e-4)
    assert_close(there, untouched)


def test_flip_test_averages_both(monkeypatch):
    head, points = build(), draw()
    samples = pack(points)
    maps = {
        'plain': perfect_maps(samples),
        'mirrored': perfect_maps(pack(mirrored(points))),
    }
    # 2 px too far to the right in the mirrored image is 2 px too far to the left in this one.
    maps['mirrored'][:, 3:6] += 2
    monkeypatch.setattr(head, 'forward', lambda feats: maps[feats])
    config = dict(flip_test=True, shift_heatmap=False)
    predictions = head.predict(['plain', 'mirrored'], samples, config)
    found = np.stack([each.keypoints for each in predictions])
    np.testing.assert_allclose(found, points - np.array([1.0, 0.0]), rtol=0, atol=1e-3)


def test_a_shift_in_the_flip_test_is_refused():
    config = dict(flip_test=True, shift_heatmap=True)
    with pytest.raises(ValueError, match=r'shift_heatmap must be False.*test_cfg.shift_heatmap='):
        build().predict([features(), features()], pack(draw()), config)


def test_learns_one_sample_by_heart():
    points = draw(1, 2)
    samples = pack(points)
    feats = (torch.eye(48).view(1, 48, 6, 8),)  # every cell has a feature of its own
    head = build(2, in_channels=48)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.3)
    for _ in range(150):
        losses = head.loss(feats, samples)
        optimizer.zero_grad()
        (losses['loss_heatmap'] + losses['loss_offset']).backward()
        optimizer.step()
    (prediction,) = head.predict(feats, samples)
    np.testing.assert_allclose(prediction.keypoints, points[0], atol=0.2)
    assert (prediction.keypoint_scores > 0.8).all()


def test_registered_under_its_own_name():
    assert MODELS.get('mmloss_plugins.OffsetHeatmapHead') is OffsetHeatmapHead
