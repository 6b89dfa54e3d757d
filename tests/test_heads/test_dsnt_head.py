"""DSNTHead: losses on real packed samples, stages, accuracy, options."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.registry import init_default_scope
from mmpose.evaluation.functional import keypoint_pck_accuracy
from mmpose.models.backbones import HourglassNet
from mmpose.models.losses.regression_loss import SoftWingLoss
from torch.testing import assert_close

from mmloss_plugins.functional import value_checks
from mmloss_plugins.registry import MODELS
from tests.contract.test_device import NoSync

from .dsnt_cases import (
    CODEC,
    CODECS,
    INPUT,
    build,
    cells_of,
    draw,
    features,
    gaussian_logits,
    pack,
    without_layers,
)

NORMALIZATIONS = ['softmax', 'thresholded_softmax', 'abs', 'relu', 'sigmoid']


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmpose')


def terms(**losses):
    return dict(type='mmloss_plugins.MultiLoss', terms=losses)


def total(losses):
    return sum(value for name, value in losses.items() if 'loss' in name)


# --- loss -------------------------------------------------------------------------------------


@pytest.mark.parametrize('codec', CODECS)
@pytest.mark.parametrize('normalization', NORMALIZATIONS)
def test_loss_on_packed_samples(normalization, codec):
    head = build(normalization=normalization, codec=CODECS[codec])
    torch.nn.init.normal_(head.final_layer.weight, std=0.5)
    samples = pack(draw(), codec=CODECS[codec])
    losses = head.loss(features(), samples)
    assert set(losses) == {'loss_coord', 'loss_js', 'acc_pose'}
    coords, heatmaps = head.forward(features())
    labels = torch.cat([sample.gt_instance_labels.keypoint_labels for sample in samples])
    assert_close(losses['loss_coord'], (coords - labels).square().sum(-1).sqrt().mean())
    assert_close(heatmaps.sum((-1, -2)), torch.ones(2, 3))
    assert 0 < losses['loss_js'] < math.log(2)
    total(losses).backward()
    assert all(torch.isfinite(p.grad).all() for p in head.parameters())
    assert (head.final_layer.weight.grad.flatten(1) != 0).any(1).all()


@pytest.mark.parametrize('codec', CODECS)
def test_coordinates_and_maps_are_pulled_to_the_same_place(codec):
    """A Gaussian where the regulariser wants it has its mean at the label, to 1e-3 px."""
    head = without_layers(build(codec=CODECS[codec]))
    points = draw()
    samples = pack(points, codec=CODECS[codec])
    convention = 'centered' if codec == 'centered' else 'mmpose'
    logits = gaussian_logits(cells_of(points, convention), sigma=1.0)
    losses = head.loss((logits,), samples)
    assert losses['loss_coord'] < 1e-3
    assert losses['loss_js'] < 1e-6
    assert losses['acc_pose'] == 1


def test_a_joint_beyond_the_last_cell_of_mmpose_stays_in_the_map():
    points = np.tile(np.array(INPUT, dtype=float) - 1, (2, 1, 3, 1))
    head = build(codec=CODECS['host'])
    samples = pack(points, codec=CODECS['host'])
    labels = torch.cat([sample.gt_instance_labels.keypoint_labels for sample in samples])
    found = head.read(head.logits(features()))
    # 63 / 64 * 2 - 1 + 1 / 16 = 1.03
    assert (labels * 2 - 1 + found.half_cell > 1).all()
    assert (head.from_labels(labels, found) == 1).all()
    total(head.loss(features(), samples)).backward()
    assert torch.isfinite(head.final_layer.weight.grad).all()


@pytest.mark.parametrize('codec', CODECS)
@pytest.mark.parametrize('invisible', [[(0, 1)], [(0, 1), (1, 1)]])
def test_an_invisible_joint_gets_no_gradient(codec, invisible):
    visible = np.ones((2, 1, 3))
    for sample, keypoint in invisible:
        visible[sample, 0, keypoint] = 0
    head = build(codec=CODECS[codec])
    losses = head.loss(features(), pack(draw(), visible, CODECS[codec]))
    total(losses).backward()
    gradient = head.final_layer.weight.grad.flatten(1)
    assert torch.isfinite(gradient).all()
    assert (gradient[[0, 2]] != 0).any(1).all()
    assert (gradient[1] != 0).any() == (len(invisible) == 1)


def test_a_joint_outside_of_the_image_is_not_read():
    points = draw()
    points[0, 0, 1] = (-3000.0, 7000.0)
    visible = np.ones((2, 1, 3))
    visible[0, 0, 1] = 0
    for codec in CODECS.values():
        losses = build(codec=codec).loss(features(), pack(points, visible, codec))
        expected = build(codec=codec).loss(features(), pack(draw(), visible, codec))
        for name in ('loss_coord', 'loss_js'):
            assert torch.isfinite(losses[name])
            assert_close(losses[name], expected[name], rtol=0, atol=0.02)


def test_no_visible_joint():
    head = build()
    losses = head.loss(features(), pack(draw(), np.zeros((2, 1, 3))))
    assert all(value == 0 for value in losses.values())
    total(losses).backward()
    assert all((p.grad == 0).all() for p in head.parameters())


@pytest.mark.parametrize(('batch', 'keypoints'), [(1, 1), (1, 3), (2, 1)])
def test_one_keypoint_and_one_sample(batch, keypoints):
    head, samples = build(keypoints), pack(draw(batch, keypoints))
    losses = head.loss(features(batch), samples)
    assert all(value.isfinite() for value in losses.values())
    predictions = head.predict(features(batch), samples)
    assert [p.keypoints.shape for p in predictions] == [(1, keypoints, 2)] * batch
    assert [p.keypoint_scores.shape for p in predictions] == [(1, keypoints)] * batch


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize('normalization', NORMALIZATIONS)
def test_autocast(normalization, dtype):
    """The layers run in half precision; coordinates do not, where 1 / 256 is the least step."""
    head, samples = build(normalization=normalization), pack(draw())
    torch.nn.init.normal_(head.final_layer.weight, std=0.5)
    with torch.autocast('cpu', dtype=dtype):
        logits = head.logits(features())
        losses = head.loss(features(), samples)
        found = head.read(logits)
    assert logits.dtype == dtype
    assert found.means.dtype == found.heatmaps.dtype == torch.float32
    assert_close(found.means, head.read(logits.float()).means, rtol=0, atol=1e-6)
    total(losses).backward()
    assert all(p.grad.isfinite().all() for p in head.parameters())


def test_one_loss_is_the_term_coord():
    head = build(loss=dict(type='mmloss_plugins.EuclideanLoss', loss_weight=2.0))
    samples = pack(draw())
    losses = head.loss(features(), samples)
    assert set(losses) == {'loss_coord', 'acc_pose'}
    expected = build().loss(features(), samples)['loss_coord']
    assert_close(losses['loss_coord'], 2 * expected, rtol=0, atol=0.01)


def test_any_number_of_named_losses():
    """MMPose's head adds up the first two and drops the others."""
    loss = terms(
        coord=dict(type='mmloss_plugins.EuclideanLoss'),
        smooth=dict(type='SmoothL1Loss', use_target_weight=True),
        js=dict(type='mmloss_plugins.HeatmapJSLoss'),
        variance_loss=dict(type='mmloss_plugins.HeatmapVarianceLoss'),
    )
    head = build(loss=loss)
    losses = head.loss(features(), pack(draw()))
    names = {'loss_coord', 'loss_smooth', 'loss_js', 'loss_variance', 'acc_pose'}
    assert set(losses) == names
    parts = [torch.autograd.grad(losses[name], head.final_layer.weight, retain_graph=True)[0]
             for name in sorted(names - {'acc_pose'})]  # fmt: skip
    total(losses).backward()
    assert_close(head.final_layer.weight.grad, sum(parts))
    assert all((part != 0).any() for part in parts)


def test_losses_of_the_host_get_a_weight_that_they_cannot_misread():
    """With weights (B, K) and K = 2, SoftWingLoss takes the keypoints for axes."""
    visible = np.array([[[1, 0]], [[0, 1]]])
    samples = pack(draw(2, 2), visible)
    head = build(2, loss=dict(type='SoftWingLoss', use_target_weight=True))
    loss = head.loss(features(), samples)['loss_coord']
    coords = head.forward(features())[0]
    labels = torch.cat([sample.gt_instance_labels.keypoint_labels for sample in samples])
    weight = torch.from_numpy(visible[:, 0, :, None]).float()
    host = SoftWingLoss(use_target_weight=True)
    assert_close(loss, host(coords, labels, weight.expand(2, 2, 2)))
    assert not torch.isclose(loss, host(coords, labels, weight[..., 0]))


def test_schedules_switch_terms_off():
    step = dict(type='step', values=[1.0, 0.0], milestones=[5])
    head = build(
        loss=dict(
            **terms(
                coord=dict(type='mmloss_plugins.EuclideanLoss'),
                js=dict(type='mmloss_plugins.HeatmapJSLoss'),
            ),
            weights=dict(js=step),
        )
    )
    samples, hub = pack(draw()), MessageHub.get_current_instance()
    try:
        hub.update_info('epoch', 4)
        losses = head.loss(features(), samples)
        assert set(losses) == {'loss_coord', 'loss_js', 'weight_js', 'acc_pose'}
        assert losses['weight_js'] == 1
        hub.update_info('epoch', 5)
        losses = head.loss(features(), samples)
        assert set(losses) == {'loss_coord', 'weight_js', 'acc_pose'}
        assert losses['weight_js'] == 0
    finally:
        hub.update_info('epoch', 0)


def test_every_term_at_weight_zero():
    loss = dict(**terms(coord=dict(type='mmloss_plugins.EuclideanLoss')), weights=dict(coord=0.0))
    head = build(loss=loss)
    losses = head.loss(features(), pack(draw()))
    total(losses).backward()
    assert total(losses) == 0
    assert all((p.grad == 0).all() for p in head.parameters())


def test_the_default_sigma_is_that_of_the_codec():
    assert build().loss_module.terms['js'].sigma_px == 1.0
    head = build(codec={**CODECS['host'], 'sigma': 2.0})
    assert head.loss_module.terms['js'].sigma_px == 2.0


def test_learns_one_sample_by_heart():
    points = draw(1, 2, margin=4)
    feats = (torch.eye(192).view(1, 192, 12, 16),)  # every cell has a feature of its own
    for codec in (CODECS['centered'], CODECS['host']):
        head, samples = build(2, codec, in_channels=192), pack(points, codec=codec)
        optimizer = torch.optim.Adam(head.parameters(), lr=0.3)
        for _ in range(100):
            losses = head.loss(feats, samples)
            optimizer.zero_grad()
            total(losses).backward()
            optimizer.step()
        (prediction,) = head.predict(feats, samples)
        np.testing.assert_allclose(prediction.keypoints, points[0], atol=0.3)
        assert (prediction.keypoint_scores > 0.8).all()
        assert losses['acc_pose'] == 1


# --- stages -----------------------------------------------------------------------------------


def test_stages_of_a_hourglass():
    backbone = HourglassNet(
        downsample_times=2,
        num_stacks=3,
        stage_channels=(256, 8, 8),
        stage_blocks=(1, 1, 1),
        feat_channel=8,
    )
    head = build(num_stages=3)
    samples = pack(draw())
    feats = backbone(torch.randn(2, 3, INPUT[1], INPUT[0]))
    losses = head.loss(feats, samples)
    total(losses).backward()
    used = [head.final_layer, *(stage.final_layer for stage in head.earlier_stages)]
    assert len(used) == 3
    assert all((layer.weight.grad != 0).any() for layer in used)
    assert not torch.equal(used[0].weight, used[1].weight)
    # Each stage by itself is a head of one stage.
    parts = []
    for layer, feat in zip([used[1], used[2], used[0]], feats):
        single = build()
        single.final_layer = layer
        parts.append(single.loss((feat,), samples))
    for name in ('loss_coord', 'loss_js'):
        assert_close(losses[name], sum(part[name] for part in parts))
    assert_close(losses['acc_pose'], parts[-1]['acc_pose'])
    assert_close(head.forward(feats)[0], head.to_labels(head.read(head.logits(feats[-1]))))


def test_a_checkpoint_of_one_stage_is_the_last_of_several():
    single, stacked = build(), build(num_stages=2)
    found = stacked.load_state_dict(single.state_dict(), strict=False)
    assert found.missing_keys == [f'earlier_stages.0.final_layer.{n}' for n in ('weight', 'bias')]
    assert not found.unexpected_keys
    feats = features() * 2
    assert_close(stacked.forward(feats), single.forward(feats))


def test_another_number_of_feature_maps_than_stages():
    with pytest.raises(ValueError, match=r'feats must be 3 feature maps, got 2. Set num_stages'):
        build(num_stages=3).loss(features() * 2, pack(draw()))


# --- layers and resolution --------------------------------------------------------------------


def test_layers_of_the_host():
    head = build(
        deconv_out_channels=(16, 12),
        deconv_kernel_sizes=(4, 2),
        conv_out_channels=(12,),
        conv_kernel_sizes=(3,),
        final_layer=dict(kernel_size=3, padding=1, bias=False),
    )
    assert head.forward(features())[1].shape == (2, 3, 48, 64)
    default = MODELS.build(dict(type='mmloss_plugins.DSNTHead', in_channels=8, out_channels=3))
    assert default.forward(features(size=(2, 3)))[1].shape == (2, 3, 24, 16)
    assert_close(build().forward(features()[0]), build().forward(features()), rtol=0, atol=0.02)


def test_a_checkpoint_of_another_resolution():
    small, large = build(), build(codec={**CODEC, 'input_size': (128, 96)})
    found = large.load_state_dict(small.state_dict())
    assert not found.missing_keys + found.unexpected_keys
    assert set(small.state_dict()) == {'final_layer.weight', 'final_layer.bias'}
    without_layers(large)
    points = torch.tensor([[[40.25, 20.5], [90.0, 70.75]]])  # px of 128 x 96
    logits = gaussian_logits((points + 0.5) / 4 - 0.5, size=(32, 24))
    (prediction,) = large.predict((logits,), None)
    assert_close(torch.from_numpy(prediction.keypoints), points, rtol=0, atol=1e-3)


def test_start_in_the_middle():
    """Gaussian weights of 0.001: flat maps, whose mean is the middle of the image."""
    (prediction, _) = build().predict(features(), None)
    middle = (np.array(INPUT) - 1) / 2
    np.testing.assert_allclose(prediction.keypoints, middle + np.zeros((1, 3, 2)), atol=0.2)


# --- accuracy ---------------------------------------------------------------------------------


@pytest.mark.parametrize('codec', ['centered', 'host'])
def test_accuracy_is_that_of_mmpose(codec):
    head = without_layers(build(codec=CODECS[codec]))
    points = draw(8, 4)
    near = points + np.random.default_rng(1).normal(0, 2, points.shape)
    visible = np.random.default_rng(2).integers(0, 2, (8, 1, 4))
    visible[:, :, 2] = 0
    convention = 'centered' if codec == 'centered' else 'mmpose'
    losses = head.loss(
        (gaussian_logits(cells_of(near, convention)),), pack(points, visible, CODECS[codec])
    )
    size = np.array(INPUT)
    mask = visible[:, 0] > 0
    _, expected, _ = keypoint_pck_accuracy(
        near[:, 0] / size, points[:, 0] / size, mask, 0.05, np.ones((8, 2))
    )
    assert 0 < expected < 1
    assert losses['acc_pose'].item() == pytest.approx(expected)
    assert losses['acc_pose'].dtype == torch.float32


def test_accuracy_can_be_switched_off():
    losses = build().loss(features(), pack(draw()), dict(compute_acc=False))
    assert set(losses) == {'loss_coord', 'loss_js'}


def test_no_sync_in_a_training_step():
    """MMPose's head moves predictions and labels to the host for its accuracy, every step."""
    for codec in CODECS.values():
        head, samples = build(codec=codec, debias=True), pack(draw(), codec=codec)
        with value_checks(enabled=False), NoSync():
            losses = head.loss(features(), samples)
            total(losses).backward()
        assert losses['acc_pose'].dim() == 0
