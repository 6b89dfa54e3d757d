"""Registered focal losses: normalisers, ignored labels, diagnostics, and the hosts' own heads."""

from __future__ import annotations

import copy
import pickle

import mmdet.models  # noqa: F401 (registers the heads)
import mmpose.models  # noqa: F401
import numpy as np
import pytest
import torch
from mmdet.models.losses import FocalLoss
from mmdet.models.losses import GaussianFocalLoss as HostGaussian
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from mmpose.registry import MODELS as MMPOSE_MODELS
from mmpose.structures import PoseDataSample
from torch.testing import assert_close

from mmloss_plugins import functional as F
from mmloss_plugins.losses import GaussianFocalLoss, SigmoidFocalLoss

B, K, H, W = 3, 4, 5, 7


def maps():
    generator = torch.Generator().manual_seed(0)
    pred = torch.randn(B, K, H, W, generator=generator, requires_grad=True)
    target = torch.rand(B, K, H, W, generator=generator) * 0.9
    target[0, 0, 1, 2] = target[0, 1, 2, 3] = target[1, 2, 4, 6] = 1
    return pred, target


def test_the_authors_divide_by_the_number_of_positives():
    pred, target = maps()
    total = F.gaussian_focal(pred, target, summed=True)
    assert_close(GaussianFocalLoss()(pred, target), total / 3)
    assert_close(GaussianFocalLoss(mean_over='all')(pred, target), total / target.numel())
    assert_close(GaussianFocalLoss()(pred, target, avg_factor=5.0), total / 5)
    assert_close(GaussianFocalLoss(reduction='sum')(pred, target), total)


def test_no_positive_divides_by_one():
    pred, target = maps()
    loss = GaussianFocalLoss()(pred, target * 0.5)
    assert_close(loss, F.gaussian_focal(pred, target * 0.5, summed=True))


def test_keypoints_of_weight_zero_have_no_positives():
    pred, target = maps()
    weight = torch.ones(B, K)
    weight[0, 1] = 0
    elements = F.gaussian_focal(pred, target)
    expected = (elements * weight[..., None, None]).sum() / 2
    assert_close(GaussianFocalLoss()(pred, target, weight), expected)
    assert_close(GaussianFocalLoss()(pred, target, None, weight.bool()), expected)
    ignoring = GaussianFocalLoss(use_target_weight=False)
    assert_close(ignoring(pred, target, weight), elements.sum() / 3)


@pytest.mark.parametrize('cls', [GaussianFocalLoss, SigmoidFocalLoss])
def test_positives_per_image(cls):
    pred, target = maps()
    target = target.floor()
    weight = torch.rand(B, K) + 0.5
    weight[0, 1] = 0
    loss = cls(mean_over='positives_per_image')
    elements = cls(reduction='none')(pred, target, weight)
    # Positives left: one in the first image, one in the second, none in the third.
    expected = (elements[0].sum() + elements[1].sum() + elements[2].sum()) / 3
    assert_close(loss(pred, target, weight), expected)
    unweighted = cls(mean_over='positives_per_image', use_target_weight=False)
    elements = cls(reduction='none')(pred, target)
    two = (elements[0].sum() / 2 + elements[1].sum() + elements[2].sum()) / 3
    assert_close(unweighted(pred, target, weight), two)
    assert_close(loss(pred, target, avg_factor=2.0), elements.sum() / 2)
    assert_close(loss(pred, target, reduction_override='none'), elements)
    assert loss(pred[:0], target[:0]) == 0


def test_sigmoid_focal_over_positives():
    pred, target = maps()
    total = F.sigmoid_focal(pred, target, summed=True)
    positives = (target > 0.5).sum()
    assert_close(SigmoidFocalLoss(mean_over='positives')(pred, target), total / positives)
    logits = pred.permute(0, 2, 3, 1).reshape(-1, K)
    labels = torch.full((len(logits),), K)
    labels[3], labels[5] = 0, 2
    loss = SigmoidFocalLoss(mean_over='positives')
    assert_close(loss(logits, labels), F.sigmoid_focal(logits, labels, summed=True) / 2)


def test_ignored_labels_drop_out_of_the_mean_over_valid():
    pred, _ = maps()
    logits = pred.permute(0, 2, 3, 1).reshape(-1, K)
    labels = torch.arange(len(logits)) % (K + 1)
    labels[::7] = -1
    kept = labels != -1
    total = F.sigmoid_focal(logits[kept], labels[kept], summed=True)
    options = dict(ignore_index=-1)
    valid = SigmoidFocalLoss(mean_over='valid', **options)
    assert_close(valid(logits, labels), total / (kept.sum() * K))
    assert_close(SigmoidFocalLoss(**options)(logits, labels), total / logits.numel())
    positives = (kept & (labels < K)).sum()
    over_positives = SigmoidFocalLoss(mean_over='positives', **options)
    assert_close(over_positives(logits, labels), total / positives)
    mask = torch.arange(len(labels)) % 2 == 0
    both = kept & mask
    expected = F.sigmoid_focal(logits[both], labels[both], summed=True) / (both.sum() * K)
    assert_close(valid(logits, labels, None, mask), expected)


def test_alpha_of_each_class_follows_the_device_and_stays_out_of_the_checkpoint():
    pred, target = maps()
    loss = SigmoidFocalLoss(alpha=[0.1, 0.2, 0.3, 0.4])
    assert not loss.state_dict()
    assert_close(loss.class_alpha, torch.tensor([0.1, 0.2, 0.3, 0.4]))
    expected = F.sigmoid_focal(pred, target, alpha=loss.class_alpha).mean()
    for copied in (loss, copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert_close(copied(pred, target), expected)
    compiled = SigmoidFocalLoss(alpha=[0.1, 0.2, 0.3, 0.4], compile=True)
    assert_close(compiled(pred, target), expected)
    with pytest.raises(ValueError, match='alpha must have one value for each class'):
        loss(pred[:, :2], target[:, :2])


@pytest.mark.parametrize('alpha', [None, -1])
def test_no_balancing(alpha):
    pred, target = maps()
    expected = F.sigmoid_focal(pred, target, alpha=None).mean()
    assert_close(SigmoidFocalLoss(alpha=alpha)(pred, target), expected)


def test_gamma_is_the_name_of_mmdetection_for_beta():
    pred, target = maps()
    beta, gamma = GaussianFocalLoss(beta=2.5), GaussianFocalLoss(gamma=2.5)
    assert_close(beta(pred, target), gamma(pred, target), rtol=0, atol=0)
    assert GaussianFocalLoss().beta == 4
    with pytest.raises(ValueError, match='gamma must be left out where beta is given'):
        GaussianFocalLoss(beta=4.0, gamma=4.0)


def test_softmax_is_refused_with_the_loss_to_take():
    with pytest.raises(
        ValueError, match=r'use_sigmoid must be True, got False.*PixelSoftmaxCELoss'
    ):
        SigmoidFocalLoss(use_sigmoid=False)


def test_target_with_positives():
    pred, target = maps()
    index = torch.tensor([[1 * W + 2, H * W + 2 * W + 3], [2 * H * W + 4 * W + 6, -1], [-1, -1]])
    heatmap = target * 0.9
    for positives in (target == 1, index):
        for loss in (GaussianFocalLoss(), GaussianFocalLoss(compile=True)):
            found = loss(pred, (heatmap, positives))
            assert_close(found, F.gaussian_focal(pred, heatmap, target == 1, summed=True) / 3)
    with pytest.raises(ValueError, match='target must be a heatmap or'):
        GaussianFocalLoss()(pred, (heatmap, index, index))
    with pytest.raises(ValueError, match='GaussianFocalLoss: positives must be a boolean mask'):
        GaussianFocalLoss()(pred, (heatmap, index[:2]))


def test_diagnostics():
    pred, target = maps()
    weight = torch.ones(B, K)
    weight[0, 1] = 0
    pred.data[0, 1] = float('nan')
    found = GaussianFocalLoss().diagnostics(pred, target, weight)
    valid = (weight[..., None, None] > 0).expand_as(target)
    positive, scores = target == 1, pred.detach().sigmoid()
    assert found['num_positives'] == 2
    assert_close(found['positive_score'], scores[positive & valid].mean())
    assert_close(found['background_score'], scores[~positive & valid].mean())
    empty = GaussianFocalLoss().diagnostics(pred, target * 0.5, weight)
    assert empty['num_positives'] == 0
    assert empty['positive_score'] == 0
    probabilities = GaussianFocalLoss(from_logits=False)
    again = probabilities.diagnostics(pred.sigmoid(), target, weight)
    assert_close(again, found)


def instances(size, number_of_classes):
    """Return ground truth of two images: two boxes, and none."""
    boxes = torch.tensor([[4.0, 4.0, 40.0, 36.0], [20.0, 8.0, 60.0, 60.0]])
    labels = torch.tensor([0, number_of_classes - 1])
    meta = dict(img_shape=size, batch_input_shape=size, pad_shape=size, scale_factor=1.0)
    truth = [
        InstanceData(bboxes=boxes, labels=labels),
        InstanceData(bboxes=boxes[:0], labels=labels[:0]),
    ]
    return truth, [meta, meta]


DENSE = {
    'FCOSHead': dict(strides=[8, 16, 32, 64, 128], norm_cfg=None),
    'RetinaHead': dict(
        anchor_generator=dict(
            type='AnchorGenerator',
            octave_base_scale=4,
            scales_per_octave=1,
            ratios=[1.0],
            strides=[8, 16, 32, 64, 128],
        ),
        bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
        train_cfg=ConfigDict(
            assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0),
            sampler=dict(type='PseudoSampler'),
            allowed_border=-1,
            pos_weight=-1,
            debug=False,
        ),
    ),
}


@pytest.mark.parametrize('name', DENSE)
def test_dense_heads_of_mmdetection_by_the_type_alone(name):
    with DefaultScope.overwrite_default_scope('mmdet'):
        loss = dict(
            type='mmloss_plugins.SigmoidFocalLoss',
            use_sigmoid=True,
            gamma=2.0,
            alpha=0.25,
            loss_weight=1.0,
        )
        config = dict(type=name, num_classes=3, in_channels=8, feat_channels=8, stacked_convs=1)
        head = MMDET_MODELS.build({**config, **DENSE[name], 'loss_cls': loss})
        assert type(head.loss_cls) is SigmoidFocalLoss
        assert head.cls_out_channels == 3
        features = [torch.randn(2, 8, 64 // s, 64 // s) for s in (8, 16, 32, 64, 64)]
        outs = head(features)

        def total():
            value = head.loss_by_feat(*outs, *instances((64, 64), 3))['loss_cls']
            return sum(value) if isinstance(value, list) else value

        ours = total()
        slopes = torch.autograd.grad(ours, list(outs[0]), retain_graph=True)
        head.loss_cls = FocalLoss()
        theirs = total()
        assert_close(ours, theirs)
        assert_close(slopes, torch.autograd.grad(theirs, list(outs[0])))


def test_centernet_head_of_mmdetection():
    with DefaultScope.overwrite_default_scope('mmdet'):
        head = MMDET_MODELS.build(
            dict(
                type='CenterNetHead',
                in_channels=8,
                feat_channels=8,
                num_classes=3,
                loss_center_heatmap=dict(
                    type='mmloss_plugins.GaussianFocalLoss', from_logits=False, loss_weight=1.0
                ),
            )
        )
        outs = head([torch.randn(2, 8, 16, 16)])
        truth = instances((64, 64), 3)
        ours = head.loss_by_feat(*outs, *truth)['loss_center_heatmap']
        slopes = torch.autograd.grad(ours, outs[0], retain_graph=True)
        head.loss_center_heatmap = HostGaussian()
        theirs = head.loss_by_feat(*outs, *truth)['loss_center_heatmap']
        assert_close(ours, theirs)
        assert_close(slopes, torch.autograd.grad(theirs, outs[0]), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize('name', ['GaussianFocalLoss', 'SigmoidFocalLoss'])
def test_heatmap_head_of_mmpose(name):
    with DefaultScope.overwrite_default_scope('mmpose'):
        loss = dict(type=f'mmloss_plugins.{name}', use_target_weight=True, mean_over='positives')
        codec = dict(type='MSRAHeatmap', input_size=(48, 64), heatmap_size=(12, 16), sigma=1)
        config = dict(type='HeatmapHead', in_channels=8, out_channels=5, deconv_out_channels=None)
        head = MMPOSE_MODELS.build(dict(**config, loss=loss, decoder=codec))
        samples = []
        for index in range(2):
            points = np.random.default_rng(index).uniform(8, 40, (1, 5, 2)).astype(np.float32)
            visible = (np.arange(5)[None] != index).astype(np.float32)
            encoded = head.decoder.encode(points, visible)
            sample = PoseDataSample()
            sample.gt_fields = InstanceData()
            sample.gt_fields.set_field(torch.from_numpy(encoded['heatmaps']), 'heatmaps')
            weights = torch.from_numpy(encoded['keypoint_weights'])
            sample.gt_instance_labels = InstanceData(keypoint_weights=weights)
            samples.append(sample)
        features = (torch.randn(2, 8, 16, 12),)
        losses = head.loss(features, samples, train_cfg=dict(compute_acc=False))
        assert set(losses) >= {'loss_kpt'}
        losses['loss_kpt'].backward()
        slope = head.final_layer.weight.grad
        assert torch.isfinite(slope).all()
        assert (slope != 0).any(dim=(1, 2, 3)).all()
        target = torch.stack([sample.gt_fields.heatmaps for sample in samples])
        weights = torch.cat([sample.gt_instance_labels.keypoint_weights for sample in samples])
        function = F.gaussian_focal if name == 'GaussianFocalLoss' else F.sigmoid_focal
        elements = function(head(features), target) * weights[..., None, None]
        positive = (target == 1) if name == 'GaussianFocalLoss' else (target > 0.5)
        count = (positive & (weights[..., None, None] > 0)).sum()
        assert_close(losses['loss_kpt'], elements.sum() / count)
