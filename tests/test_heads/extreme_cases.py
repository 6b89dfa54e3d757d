"""Heads, packed samples and maps written from labels that the tests of ExtremeNetHead share."""

from __future__ import annotations

import numpy as np
import torch
from mmcv.transforms import Compose
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import PolygonMasks
from torch.testing import assert_close

from mmloss_plugins.losses.centernet import EXTREMES
from mmloss_plugins.registry import MODELS

HEIGHT, WIDTH = 64, 80  # of the input in px
H, W, STRIDE, CLASSES = 16, 20, 4.0, 3
POINTS = (*EXTREMES, 'center')
ADD = dict(type='mmloss_plugins.AddExtremePoints')
PACK = dict(type='mmloss_plugins.PackExtremePoints')
# Corners of three objects in px, of the classes 0, 2 and 2; the last one reaches the far corner.
RINGS = [
    [(9, 3), (31, 15), (14, 27), (5.5, 13)],
    [(45, 8.25), (58, 20), (50, 33), (40, 21)],
    [(40, 50), (80, 42), (70, 64), (37.5, 60)],
]
LABELS = [0, 2, 2]
# Of a group of points and a centre of 0.9: (4 * 0.9 + 2 * 0.9) / 6.
SCORE = 0.9
# Options of the test without what follows the decode.
PLAIN = dict(nms=None, ghosts=None)
BOXES = [[5.5, 3, 31, 27], [40, 8.25, 58, 33], [37.5, 42, 80, 64]]


def build(**options):
    config = dict(in_channels=8, feat_channels=6, num_classes=CLASSES)
    head = MODELS.build(dict(type='mmloss_plugins.ExtremeNetHead', **{**config, **options}))
    head.init_weights()
    return head


def detector(**options):
    """A HeatmapDetector on MMDetection's hourglass of two stacks; map of a quarter of the image."""
    head = dict(
        type='mmloss_plugins.ExtremeNetHead',
        in_channels=6,
        feat_channels=6,
        num_classes=CLASSES,
        num_stacks=2,
    )
    model = MODELS.build(
        dict(
            type='mmloss_plugins.HeatmapDetector',
            data_preprocessor=dict(type='mmdet.DetDataPreprocessor', pad_size_divisor=16),
            backbone=dict(
                type='mmdet.HourglassNet',
                downsample_times=2,
                num_stacks=2,
                stage_channels=(8, 8, 8),
                stage_blocks=(1, 1, 1),
                feat_channel=6,
            ),
            bbox_head={**head, **options.pop('bbox_head', {})},
            **options,
        )
    )
    model.init_weights()
    return model


def pack(rings=RINGS, labels=LABELS, ignore=None, boxes=None, transforms=(), **meta):
    """One sample as the pipeline makes it from polygons in px."""
    corners = [np.array(ring, dtype=np.float32) for ring in rings]
    if boxes is None:
        boxes = [[*ring.min(0), *ring.max(0)] for ring in corners]
    results = dict(
        img=np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8),
        img_shape=(HEIGHT, WIDTH),
        ori_shape=(HEIGHT, WIDTH),
        scale_factor=(1.0, 1.0),
        gt_bboxes=HorizontalBoxes(torch.tensor(np.array(boxes).reshape(-1, 4)).float()),
        gt_bboxes_labels=np.array(labels, dtype=np.int64),
        gt_ignore_flags=np.array(ignore or [False] * len(rings)),
        gt_masks=PolygonMasks([[ring.flatten()] for ring in corners], HEIGHT, WIDTH),
    )
    sample = Compose([*transforms, ADD, PACK])(results)['data_samples']
    sample.set_metainfo(dict(batch_input_shape=(HEIGHT, WIDTH), **meta))
    return sample


def features(batch=2, stacks=1):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(batch, 8, H, W, generator=generator) for _ in range(stacks)]


def written_maps(samples, size=(H, W), classes=CLASSES, agnostic=False, image=(HEIGHT, WIDTH)):
    """Maps of a head that has learnt the samples by heart: probability 0.9 in the right cells."""
    height, width = size
    maps = {
        point: dict(
            heatmap=torch.full(
                (len(samples), 1 if agnostic and point != 'center' else classes, *size), -12.0
            ),
            offset=torch.zeros(len(samples), 2, *size),
        )
        for point in POINTS
    }
    for i, sample in enumerate(samples):
        instances = sample.gt_instances
        for four, label in zip(instances.extreme_points.tolist(), instances.labels.tolist()):
            (_, y1), (x1, _), (_, y2), (x2, _) = four
            for point, (x, y) in zip(POINTS, [*four, ((x1 + x2) / 2, (y1 + y2) / 2)]):
                x, y = x * width / image[1], y * height / image[0]
                column, row = min(int(x), width - 1), min(int(y), height - 1)
                plane = 0 if agnostic and point != 'center' else label
                # The middle of the cells of the points may be one cell before that of the object.
                before = int(point == 'center')
                rows, columns = (slice(max(0, at - before), at + 1) for at in (row, column))
                maps[point]['heatmap'][i, plane, rows, columns] = np.log(9)
                maps[point]['offset'][i, :, row, column] = torch.tensor((x - column, y - row))
    return maps


def truth_of(sample):
    """Boxes and labels of the objects."""
    boxes = sample.gt_instances.bboxes
    return getattr(boxes, 'tensor', boxes), sample.gt_instances.labels


def metas(samples):
    return [sample.metainfo for sample in samples]


def predict(head, samples, rescale=False, maps=None):
    maps = written_maps(samples, agnostic=head.class_agnostic) if maps is None else maps
    return head.predict_by_feat([maps], metas(samples), rescale=rescale)


def sorted_rows(boxes, labels):
    """Rows of boxes and labels in an order of their own."""
    rows = torch.cat((boxes.flatten(1), labels.unsqueeze(-1)), 1)
    return rows[np.lexsort(rows.round(decimals=2).numpy().T[::-1])]


def assert_found(result, boxes, labels, atol=1e-3):
    """The boxes are those given, in any order."""
    expected = sorted_rows(torch.as_tensor(boxes, dtype=torch.float32), torch.as_tensor(labels))
    assert_close(sorted_rows(result.bboxes, result.labels), expected, atol=atol, rtol=0)
