"""IoU losses: MMDetection's and MMPose's classes, their weights, their heads."""

from __future__ import annotations

import math

import pytest
import torch
from mmdet.models.losses import CIoULoss as HostCIoU
from mmdet.models.losses import DIoULoss as HostDIoU
from mmdet.models.losses import GIoULoss as HostGIoU
from mmdet.models.losses import IoULoss as HostIoU
from mmdet.models.roi_heads.bbox_heads import BBoxHead
from mmpose.models.losses.bbox_loss import IoULoss as PoseIoU
from torch.testing import assert_close

from mmloss_plugins.functional import value_checks
from mmloss_plugins.losses import CIoULoss, DIoULoss, GIoULoss, IoULoss

HOSTS = [(IoULoss, HostIoU), (GIoULoss, HostGIoU), (DIoULoss, HostDIoU), (CIoULoss, HostCIoU)]
LOSSES = [ours for ours, _ in HOSTS]


def boxes(N=20, seed=0):
    """Return (pred, target) of IoU above 0.5, where CIoU is MMDetection's too."""
    generator = torch.Generator().manual_seed(seed)
    low, extent = torch.rand(2, N, 2, generator=generator)
    target = torch.cat([10 * low, 10 * low + 5 + 5 * extent], dim=1)
    return target + 0.8 * torch.rand(N, 4, generator=generator), target


def value_and_gradient(loss, pred, target, *args, **kwargs):
    pred = pred.detach().clone().requires_grad_()
    value = loss(pred, target, *args, **kwargs)
    (3 * value).backward()
    return value.detach(), pred.grad


@pytest.mark.parametrize(('ours', 'host'), HOSTS)
@pytest.mark.parametrize('per_coordinate', [False, True])
@pytest.mark.parametrize('options', [{}, {'avg_factor': 6}, {'reduction_override': 'sum'}], ids=str)
def test_mmdetection(ours, host, per_coordinate, options):
    pred, target = boxes()
    weight = torch.linspace(0, 2, 20)
    weight = weight[:, None].repeat(1, 4) if per_coordinate else weight
    found = value_and_gradient(ours(loss_weight=2.0), pred, target, weight=weight, **options)
    expected = value_and_gradient(host(loss_weight=2.0), pred, target, weight=weight, **options)
    assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_uneven_weights_of_the_coordinates_count_with_their_mean():
    pred, target = boxes(2)
    weight = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    assert_close(
        GIoULoss()(pred, target, weight), GIoULoss()(pred, target, torch.tensor([0.5, 0.0]))
    )


@pytest.mark.parametrize('mode', ['linear', 'square', 'log'])
def test_modes(mode):
    pred, target = boxes()
    found = value_and_gradient(IoULoss(mode=mode), pred, target)
    assert_close(found, value_and_gradient(HostIoU(mode=mode), pred, target), rtol=1e-4, atol=1e-6)
    expected = PoseIoU(mode=mode, reduction='none')(pred, target)
    assert_close(IoULoss(mode=mode, reduction='none')(pred, target), expected)


def test_disjoint_boxes_of_both_hosts():
    pred, target = torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([[2.0, 2.0, 3.0, 3.0]])
    assert_close(IoULoss()(pred, target), HostIoU()(pred, target))
    assert_close(IoULoss(eps=1e-16)(pred, target), PoseIoU(reduction='mean')(pred, target))


@pytest.mark.parametrize('loss', LOSSES)
@pytest.mark.parametrize('per_coordinate', [False, True])
def test_nan_boxes_without_weight(loss, per_coordinate):
    pred, target = boxes(4)
    weight = torch.tensor([1.0, 0.0, 2.0, 0.0])
    expected = loss()(pred[[0, 2]], target[[0, 2]], weight[[0, 2]], avg_factor=4)
    pred[1], target[3] = math.nan, math.inf
    weight = weight[:, None].repeat(1, 4) if per_coordinate else weight
    with value_checks(False):
        value, gradient = value_and_gradient(loss(), pred, target, weight)
    assert_close(value, expected)
    assert (gradient[[1, 3]] == 0).all()
    assert (gradient[[0, 2]] != 0).all()


@pytest.mark.usefixtures('mmdet_scope')
@pytest.mark.parametrize('loss', LOSSES)
def test_box_head_of_mmdetection(loss):
    """The head decodes and passes weights (N, 4) and avg_factor."""
    head = BBoxHead(
        num_classes=2,
        reg_class_agnostic=True,
        reg_decoded_bbox=True,
        bbox_coder=dict(type='mmdet.DeltaXYWHBBoxCoder'),
        loss_bbox=dict(type=f'mmloss_plugins.{loss.__name__}'),
        loss_cls=dict(type='mmdet.CrossEntropyLoss'),
    )
    _, target = boxes(3)
    rois = torch.cat([torch.zeros(3, 1), target + 0.3], dim=1)
    deltas = torch.zeros(3, 4, requires_grad=True)
    losses = head.loss(
        torch.randn(3, 3),
        deltas,
        rois,
        torch.tensor([0, 1, 2]),
        torch.ones(3),
        target,
        torch.ones(3, 4),
    )
    expected = loss(reduction='sum')(target[:2] + 0.3, target[:2]) / 3
    assert_close(losses['loss_bbox'], expected)
    losses['loss_bbox'].backward()
    assert (deltas.grad[:2] != 0).any(dim=1).all()
    assert (deltas.grad[2] == 0).all()


@pytest.mark.parametrize('loss', LOSSES)
def test_wrong_shapes(loss):
    name = loss.__name__
    with pytest.raises(ValueError, match=rf'{name}: pred and target must be boxes \(N, 4\)'):
        loss()(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4))
    with pytest.raises(ValueError, match=f'{name}: weight must have the shape'):
        loss()(*boxes(5), torch.ones(5, 3))


@pytest.mark.parametrize('loss', LOSSES)
def test_bad_eps(loss):
    with pytest.raises(ValueError, match=f'{loss.__name__}: eps must be positive, got 0'):
        loss(eps=0)
