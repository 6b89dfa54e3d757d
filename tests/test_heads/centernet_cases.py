"""Heads, packed samples and maps that the tests of CenterNetHead and HeatmapDetector share."""

from __future__ import annotations

import torch
from mmdet.models.dense_heads import CenterNetHead as MMDetHead
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

from mmloss_plugins.registry import MODELS

CLASSES, CHANNELS = 3, 8
INPUT, MAP = (64, 120), (16, 24)  # H, W: strides of 4 px along y and 5 along x
TEST_CFG = dict(topk=20, local_maximum_kernel=3, max_per_img=20)
# Two images, no two objects in a cell: (x1, y1, x2, y2) in px of the input.
BOXES = (
    [[4.0, 8.0, 40.0, 30.0], [50.0, 10.0, 111.0, 61.0], [70.0, 40.0, 76.0, 43.0]],
    [[0.0, 0.0, 9.0, 7.0], [103.0, 51.0, 120.0, 64.0]],
)
LABELS = ([0, 2, 1], [1, 1])


def build(**options):
    config = dict(
        type='mmloss_plugins.CenterNetHead',
        in_channels=CHANNELS,
        feat_channels=6,
        num_classes=CLASSES,
        test_cfg=TEST_CFG,
    )
    head = MODELS.build({**config, **options})
    head.init_weights()
    return head


def build_mmdet(**options):
    """MMDetection's head; needs the fixture mmdet_scope."""
    head = MMDetHead(CHANNELS, 6, CLASSES, test_cfg=ConfigDict(TEST_CFG), **options)
    head.init_weights()
    return stirred(head)


def stirred(head, seed=1):
    """The head with weights that give offsets and sizes other than 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return head


def pair(**options):
    """Our head and MMDetection's with one checkpoint."""
    theirs = build_mmdet()
    ours = build(radius_impl='mmdet', **options)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def sample(boxes=(), labels=(), ignored=None, size=INPUT, **meta):
    """A sample as PackDetInputs and the data preprocessor leave it."""
    result = DetDataSample(metainfo=dict(img_shape=size, batch_input_shape=size, **meta))
    result.gt_instances = InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor(labels, dtype=torch.int64),
    )
    if ignored is not None:
        boxes = torch.tensor(ignored, dtype=torch.float32).reshape(-1, 4)
        labels = torch.zeros(len(boxes), dtype=torch.int64)
        result.ignored_instances = InstanceData(bboxes=boxes, labels=labels)
    return result


def samples(**meta):
    return [sample(boxes, labels, [], **meta) for boxes, labels in zip(BOXES, LABELS)]


def features(batch=2, stacks=1, size=MAP, channels=CHANNELS):
    generator = torch.Generator().manual_seed(0)
    shape = (batch, channels, *size)
    return tuple(torch.randn(shape, generator=generator) for _ in range(stacks))


def dense_loss(head, x, batch):
    """The loss by way of forward and loss_by_feat, which computes every cell."""
    ignored = [each.get('ignored_instances') for each in batch]
    metas = [each.metainfo for each in batch]
    return head.loss_by_feat(*head(x), [each.gt_instances for each in batch], metas, ignored)


def gradients(losses, *tensors):
    """Gradients of the sum of the terms."""
    total = sum(value for name, value in losses.items() if 'loss' in name)
    return torch.autograd.grad(total, tensors)
