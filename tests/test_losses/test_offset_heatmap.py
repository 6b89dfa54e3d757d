"""OffsetHeatmapLoss: the two terms, their weights, other losses for the disk, the host's class."""

from __future__ import annotations

import pytest
import torch
from mmpose.models.losses.heatmap_loss import CombinedTargetMSELoss
from torch.testing import assert_close

from mmloss_plugins import functional as F
from mmloss_plugins.losses import DiceLoss, OffsetHeatmapLoss

B, K, H, W = 3, 2, 6, 5


@pytest.fixture
def maps():
    """Prediction and target in the grouped order, (B, 3K, H, W)."""
    generator = torch.Generator().manual_seed(0)
    pred = torch.randn(B, 3 * K, H, W, generator=generator)
    target = torch.randn(B, 3 * K, H, W, generator=generator)
    target[:, :K] = (target[:, :K] > 0.5).float()
    return pred, target


@pytest.fixture
def weight():
    return torch.tensor([[1.0, 0.0], [0.5, 1.0], [0.0, 2.0]])


def interleave(maps):
    return maps.unflatten(1, (3, K)).transpose(1, 2).flatten(1, 2)


def test_value_by_hand():
    # One cell in the disk of two. Logits 0: 4 log 2 = 2.772589. Offset (3, 4) off: 5 - .5 = 4.5.
    pred = torch.tensor([[0.0, 0.0], [3.0, 9.0], [4.0, 9.0]]).reshape(1, 3, 1, 2)
    target = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]).reshape(1, 3, 1, 2)
    assert_close(OffsetHeatmapLoss()(pred, target), torch.tensor(7.2725887))


@pytest.mark.parametrize('reduction', ['none', 'sum', 'mean'])
@pytest.mark.parametrize('mean_over', ['all', 'valid'])
@pytest.mark.parametrize('use_target_weight', [True, False])
def test_the_terms_sum_to_the_loss(maps, weight, reduction, mean_over, use_target_weight):
    loss = OffsetHeatmapLoss(
        reduction=reduction,
        mean_over=mean_over,
        use_target_weight=use_target_weight,
        loss_weight=0.7,
    )
    mask = weight != 2
    for arguments in ((), (weight,), (weight, mask)):
        terms = loss.terms(*maps, *arguments)
        assert list(terms) == ['loss_heatmap', 'loss_offset']
        assert_close(sum(terms.values()), loss(*maps, *arguments))
        assert all((term > 0).any() for term in terms.values())


def test_terms_take_avg_factor(maps, weight):
    loss = OffsetHeatmapLoss()
    terms = loss.terms(*maps, weight, avg_factor=3.0)
    assert_close(sum(terms.values()), loss(*maps, weight, avg_factor=3.0))


def test_gradients_of_the_terms_are_those_of_the_loss(maps, weight):
    pred, target = maps
    found = []
    for call in (
        lambda loss, x: loss(x, target, weight),
        lambda loss, x: sum(loss.terms(x, target, weight).values()),
    ):
        leaf = pred.clone().requires_grad_()
        call(OffsetHeatmapLoss(), leaf).backward()
        found.append(leaf.grad)
    assert_close(found[0], found[1])
    assert (found[0][0, 1::K] == 0).all()  # all three maps of the keypoint with weight 0


def test_lambdas_scale_their_own_term(maps):
    plain = OffsetHeatmapLoss(lambda_heatmap=1, lambda_offset=1).terms(*maps)
    scaled = OffsetHeatmapLoss(lambda_heatmap=3, lambda_offset=5).terms(*maps)
    assert_close(scaled['loss_heatmap'], 3 * plain['loss_heatmap'])
    assert_close(scaled['loss_offset'], 5 * plain['loss_offset'])


def test_the_orders_give_the_same(maps, weight):
    expected = OffsetHeatmapLoss()(*maps, weight)
    mixed = [interleave(each) for each in maps]
    assert_close(OffsetHeatmapLoss(order='interleaved')(*mixed, weight), expected)


def test_mmpose_s_class_dilutes_the_offsets_and_ours_does_not():
    """The factor between an error of 1 px in the disk and the loss, with a disk of n of N cells."""
    target = torch.zeros(1, 3, 8, 8)
    target[0, 0, 2, 3:5] = 1
    pred = target.clone()
    pred[0, 1, 2, 3:5] = 1.0
    ones = torch.ones(1, 1)
    # With one keypoint the two orders are the same.
    host = CombinedTargetMSELoss(use_target_weight=True)(pred, target, ones)
    assert_close(host.item(), 0.5 * 2 / 64)
    ours = OffsetHeatmapLoss(lambda_heatmap=0)(pred, target, ones)
    assert_close(ours.item(), 0.5)


DISK_LOSSES = {
    'SigmoidFocalLoss': {},
    'GaussianFocalLoss': {},
    'DiceLoss': {'ratio_over': 'sample'},
    'BalancedBCELoss': {'mine_over': 'sample'},
}


@pytest.mark.parametrize('name', DISK_LOSSES)
def test_other_losses_of_the_disk(maps, weight, name):
    pred, target = maps
    config = dict(type=f'mmloss_plugins.{name}', **DISK_LOSSES[name])
    loss = OffsetHeatmapLoss(disk_loss=config)
    leaf = pred.clone().requires_grad_()
    terms = loss.terms(leaf, target, weight)
    plain = OffsetHeatmapLoss().terms(pred, target, weight)
    assert_close(terms['loss_offset'], plain['loss_offset'])
    assert not torch.isclose(terms['loss_heatmap'], plain['loss_heatmap'])
    terms['loss_heatmap'].backward()
    # The disk alone gets its gradient, and of it nothing that has no weight.
    assert (leaf.grad[:, K:] == 0).all()
    touched = (leaf.grad[:, :K] != 0).flatten(2).any(-1)
    assert_close(touched, weight != 0)


def test_a_ratio_is_that_of_one_keypoint(maps):
    pred, target = maps
    disk_loss = dict(type='mmloss_plugins.DiceLoss', ratio_over='sample')
    loss = OffsetHeatmapLoss(lambda_offset=0, lambda_heatmap=1, disk_loss=disk_loss)
    found = loss(pred, target, reduction_override='none')
    for b in range(B):
        for k in range(K):
            one = (each[b : b + 1, k : k + 1] for each in (pred, target))
            assert_close(found[b, k], DiceLoss()(*one))


@pytest.mark.parametrize(
    ('name', 'option'), [('DiceLoss', 'ratio_over'), ('BalancedBCELoss', 'mine_over')]
)
def test_a_ratio_over_the_batch_is_refused(name, option):
    with pytest.raises(ValueError, match=f"got {option}='batch'. Add {option}='sample'"):
        OffsetHeatmapLoss(disk_loss=dict(type=f'mmloss_plugins.{name}'))


def test_a_host_s_loss_for_the_disk_is_refused():
    with pytest.raises(TypeError, match='disk_loss must be the config of a loss of mmloss_plugins'):
        OffsetHeatmapLoss(disk_loss=dict(type='mmpose.KeypointMSELoss'))


def test_diagnostics_are_the_mean_error_inside_the_disks(maps, weight):
    pred, target = maps
    disk = target[:, :K]
    error = torch.hypot(pred[:, K:-K] - target[:, K:-K], pred[:, -K:] - target[:, -K:])
    mean = (error * disk).sum((2, 3)) / disk.sum((2, 3))
    found = OffsetHeatmapLoss().diagnostics(pred, target, weight)
    assert_close(found['offset_error_px'], (mean * weight).sum() / weight.sum())
    target = target.clone()
    target[0, 0] = 0  # an empty disk has no error and does not count
    weight = weight.clone()
    weight[0, 0] = 0
    without = OffsetHeatmapLoss().diagnostics(pred, target, torch.ones_like(weight))
    valid = torch.ones_like(mean)
    valid[0, 0] = 0
    assert_close(without['offset_error_px'], (mean * valid).sum() / valid.sum())


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_autocast(maps, weight, dtype):
    pred, target = maps
    half = pred.to(dtype).requires_grad_()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        loss = OffsetHeatmapLoss()(half, target, weight)
    assert_close(loss, OffsetHeatmapLoss()(half.float(), target, weight))
    loss.backward()
    assert half.grad.dtype == dtype
    assert half.grad.isfinite().all()


def test_one_keypoint_one_sample_one_cell():
    pred = torch.tensor([0.0, 1.0, 0.0]).reshape(1, 3, 1, 1).requires_grad_()
    target = torch.tensor([1.0, 0.0, 0.0]).reshape(1, 3, 1, 1)
    loss = OffsetHeatmapLoss()(pred, target)
    loss.backward()
    # 4 (sigmoid(0) - 1) = -2 for the logit, the error itself for x.
    assert_close(pred.grad.flatten(), torch.tensor([-2.0, 1.0, 0.0]))


def test_the_message_on_channels_names_the_head():
    bad = torch.zeros(2, 17, 4, 4)
    with pytest.raises(ValueError, match=r'must have the shape \(B, 3K, H, W\).*OffsetHeatmapHead'):
        OffsetHeatmapLoss()(bad, bad)


def test_functional_is_what_the_class_computes(maps):
    pred, target = maps
    logits, offsets = F.split_offset_maps(pred)
    disk, labels = F.split_offset_maps(target)
    expected = 2 * F.disk_logistic(logits, disk) + 3 * F.disk_offset_huber(
        offsets, labels, disk, delta_px=0.5
    )
    loss = OffsetHeatmapLoss(2.0, 3.0, 0.5, reduction='none')
    assert_close(loss(*maps), expected)
