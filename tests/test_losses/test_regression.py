"""L1Loss, MSELoss and SmoothL1Loss: the hosts' classes, the hosts' heads, the unit option."""

from __future__ import annotations

import re

import pytest
import torch
from mmdet.models.losses import L1Loss as DetL1
from mmdet.models.losses import MSELoss as DetMSE
from mmdet.models.losses import SmoothL1Loss as DetSmoothL1
from mmdet.models.roi_heads.bbox_heads import BBoxHead
from mmengine.structures import InstanceData
from mmpose.models.heads import RegressionHead
from mmpose.models.losses import L1Loss as PoseL1
from mmpose.models.losses import MSELoss as PoseMSE
from mmpose.models.losses import SmoothL1Loss as PoseSmoothL1
from mmpose.structures import PoseDataSample
from torch.testing import assert_close

from mmloss_plugins.losses import L1Loss, MSELoss, SmoothL1Loss

LOSSES = [L1Loss, MSELoss, SmoothL1Loss]


def coordinates(N=3, K=5, D=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pred, target = torch.randn(2, N, K, D, generator=generator)
    weight = torch.ones(N, K)
    weight[0, 1 % K] = weight[N - 1, K // 2] = 0
    return 2 * pred, target, weight


def value_and_gradient(loss, pred, target, *args, **kwargs):
    pred = pred.detach().clone().requires_grad_()
    value = loss(pred, target, *args, **kwargs)
    (3 * value).backward()
    return value.detach(), pred.grad


def test_value_by_hand():
    pred, target = torch.tensor([[[1.5, -1.0]]]), torch.tensor([[[1.0, 2.0]]])
    # d = 0.5 and -3
    assert L1Loss()(pred, target) == 3.5 / 2
    assert MSELoss()(pred, target) == 9.25 / 2
    assert SmoothL1Loss()(pred, target) == (0.125 + 2.5) / 2
    assert L1Loss(scale=(10, 2))(pred, target) == (5 + 6) / 2
    assert MSELoss(scale=(10, 2), mean_over='samples')(pred, target) == 25 + 36
    assert SmoothL1Loss(scale=2, beta=2.0)(pred, target) == (0.25 + 5) / 2


@pytest.mark.parametrize(('ours', 'host'), [(L1Loss, PoseL1), (MSELoss, PoseMSE)])
@pytest.mark.parametrize('K', [5, 1])
def test_mmpose(ours, host, K):
    """Equal at weights 0 and 1, with the weight (N, K, 1) of MMPose's heads."""
    pred, target, weight = coordinates(K=K)
    found = value_and_gradient(ours(), pred, target, weight[..., None])
    expected = value_and_gradient(
        host(use_target_weight=True), pred, target, weight[..., None].expand_as(pred)
    )
    assert_close(found, expected)
    assert_close(
        value_and_gradient(ours(use_target_weight=False), pred, target, weight),
        value_and_gradient(host(), pred, target),
    )


def test_smooth_l1_of_mmpose():
    pred, target, weight = coordinates()
    host = PoseSmoothL1(use_target_weight=True)
    found = value_and_gradient(SmoothL1Loss(), pred, target, weight[..., None])
    assert_close(found, value_and_gradient(host, pred, target, weight[..., None]))


def test_half_a_weight_is_half_the_loss_and_a_quarter_in_mmpose():
    pred, target, _ = coordinates()
    half = torch.full((3, 5, 1), 0.5)
    assert_close(MSELoss()(pred, target, half), MSELoss()(pred, target) / 2)
    host = PoseMSE(use_target_weight=True)
    assert_close(host(pred, target, half), MSELoss()(pred, target) / 4)


@pytest.mark.parametrize(
    ('ours', 'host'),
    [
        (L1Loss(loss_weight=2.0), DetL1(loss_weight=2.0)),
        (MSELoss(), DetMSE()),
        (SmoothL1Loss(beta=0.3), DetSmoothL1(beta=0.3)),
    ],
    ids=['l1', 'mse', 'smooth l1'],
)
@pytest.mark.parametrize('options', [{}, {'avg_factor': 6}, {'reduction_override': 'sum'}], ids=str)
def test_mmdetection(ours, host, options):
    generator = torch.Generator().manual_seed(0)
    pred, target, weight = torch.randn(3, 7, 4, generator=generator)
    weight = weight.abs()
    weight[2] = 0
    found = value_and_gradient(ours, pred, target, weight=weight, **options)
    assert_close(found, value_and_gradient(host, pred, target, weight=weight, **options))


@pytest.mark.parametrize('loss', LOSSES)
def test_type_alone_in_the_regression_head_of_mmpose(loss):
    head = RegressionHead(4, 3, loss=dict(type=f'mmloss_plugins.{loss.__name__}'))
    samples = []
    for _ in range(2):
        sample = PoseDataSample()
        sample.gt_instance_labels = InstanceData(
            keypoint_labels=torch.rand(1, 3, 2), keypoint_weights=torch.tensor([[1.0, 0.0, 1.0]])
        )
        samples.append(sample)
    samples[0].gt_instance_labels.keypoint_labels[0, 1] = torch.nan
    feats = (torch.randn(2, 4),)
    value = head.loss(feats, samples)['loss_kpt']
    visible = head(feats)[:, [0, 2]]
    labels = torch.cat([sample.gt_instance_labels.keypoint_labels for sample in samples])
    # 12 elements, 4 of which are switched off.
    assert_close(value, loss()(visible, labels[:, [0, 2]]) * 8 / 12)
    value.backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in head.parameters())


@pytest.mark.usefixtures('mmdet_scope')
@pytest.mark.parametrize('loss', LOSSES)
def test_type_alone_in_a_box_head_of_mmdetection(loss):
    head = BBoxHead(
        num_classes=2,
        reg_class_agnostic=True,
        loss_bbox=dict(type=f'mmloss_plugins.{loss.__name__}'),
        loss_cls=dict(type='mmdet.CrossEntropyLoss'),
    )
    labels, pred, target = torch.tensor([0, 1, 2]), torch.randn(3, 4), torch.randn(3, 4)
    losses = head.loss(
        torch.randn(3, 3), pred, torch.rand(3, 5), labels, torch.ones(3), target, torch.ones(3, 4)
    )
    assert_close(losses['loss_bbox'], loss(reduction='sum')(pred[:2], target[:2]) / 3)


@pytest.mark.parametrize('loss', LOSSES)
def test_mean_over_samples_is_the_sum_per_sample(loss):
    pred, target, weight = coordinates()
    elements = loss(reduction='none')(pred, target, weight)
    per_sample = loss(mean_over='samples')
    assert_close(per_sample(pred, target, weight), elements.sum() / 3)
    assert_close(per_sample(pred, target), loss(reduction='sum')(pred, target) / 3)
    assert per_sample(pred[:0], target[:0]) == 0
    # An explicit avg_factor wins.
    assert_close(per_sample(pred, target, weight, avg_factor=2), elements.sum() / 2)


def test_scale_is_the_input_size_of_a_codec():
    pred, target, _ = coordinates()
    size = torch.tensor([192.0, 256.0])
    assert_close(L1Loss(scale=(192, 256))(pred, target), L1Loss()(pred * size, target * size))
    assert_close(L1Loss(scale=[192, 256])(pred, target), L1Loss()(pred * size, target * size))


def test_scale_moves_with_the_module():
    loss = L1Loss(scale=(192, 256)).to('meta')
    pred = torch.zeros(2, 3, 2, device='meta', requires_grad=True)
    assert loss(pred, torch.zeros(2, 3, 2, device='meta')).device.type == 'meta'
    assert not loss.state_dict()


def test_scale_of_another_number_of_coordinates():
    text = (
        'L1Loss: pred must have 2 coordinates in its last dimension, as scale has numbers, '
        'got (3, 4). Give scale one number, or one per coordinate in their order (w, h).'
    )
    with pytest.raises(ValueError, match=re.escape(text)):
        L1Loss(scale=(192, 256))(torch.zeros(3, 4), torch.zeros(3, 4))


@pytest.mark.parametrize('scale', [0, -1.0, None, 'mmpose', (), (1, 0), True, float('nan')])
def test_bad_scale(scale):
    with pytest.raises(ValueError, match='SmoothL1Loss: scale must be the pixels that one unit'):
        SmoothL1Loss(scale=scale)


@pytest.mark.parametrize('loss', LOSSES)
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_large_errors_of_half_boxes(loss, dtype):
    """The square of 300 pixels has no float16."""
    pred, target = torch.full((2, 4), 300.0, dtype=dtype), torch.zeros(2, 4)
    value, gradient = value_and_gradient(loss(), pred, target)
    assert value == {L1Loss: 300, MSELoss: 90000, SmoothL1Loss: 299.5}[loss]
    assert gradient.isfinite().all()
