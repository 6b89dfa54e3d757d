"""ExtremeNetHead on the generated digits: from files to boxes, octagons and the host's metric."""

from __future__ import annotations

import copy
import itertools

import cv2
import numpy as np
import pytest
import torch
from mmdet.datasets import CocoDataset
from mmdet.evaluation import CocoMetric
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch.testing import assert_close

from mmloss_plugins.datasets import generate_digits
from tests.test_heads.extreme_cases import (
    ADD,
    PACK,
    PLAIN,
    SCORE,
    build,
    predict,
    truth_of,
    written_maps,
)

pytestmark = pytest.mark.usefixtures('mmdet_scope')

META_KEYS = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')


@pytest.fixture(scope='module')
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp('set') / 'digits'
    return generate_digits(folder, num_train=1, num_val=6, progress=False)


@pytest.fixture
def digit_samples(digits):
    """The validation split through a pipeline of MMDetection."""
    data = CocoDataset(
        ann_file=str(digits / 'annotations' / 'digits_val.json'),
        data_prefix=dict(img=str(digits / 'images' / 'val') + '/'),
        metainfo=dict(classes=tuple('0123456789')),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
            ADD,
            dict(PACK, meta_keys=META_KEYS),
        ],
    )
    samples = [data[i]['data_samples'] for i in range(len(data))]
    for sample in samples:
        sample.set_metainfo(dict(batch_input_shape=(128, 128)))
    return samples


def digit_results(head, samples):
    maps = written_maps(samples, (32, 32), 10, head.class_agnostic, image=(128, 128))
    return predict(head, samples, maps=maps)


@pytest.mark.parametrize('agnostic', [False, True])
def test_boxes_classes_and_points_of_real_samples(digit_samples, agnostic):
    head = build(num_classes=10, class_agnostic=agnostic, test_cfg=PLAIN)
    found = 0
    for sample, result in zip(digit_samples, digit_results(head, digit_samples)):
        truth = sample.gt_instances
        points = truth.extreme_points.flatten(1)
        distance = (result.extreme_points.flatten(1)[None] - points[:, None]).abs().amax(-1)
        nearest = distance.argmin(1)
        assert distance.amin(1).max() < 1e-3
        boxes, labels = truth_of(sample)
        assert torch.equal(result.labels[nearest], labels)
        assert_close(result.bboxes[nearest], boxes, atol=1e-3, rtol=0)
        assert_close(result.scores[nearest], torch.full((len(truth),), SCORE), atol=1e-4, rtol=0)
        found += len(truth)
    assert found >= 20


def metric_input(samples, results):
    """What a test loop hands to a metric."""
    rows = []
    for sample, result in zip(samples, results):
        sample = copy.copy(sample)
        sample.pred_instances = result
        rows.append(sample.to_dict())
    return rows


def octagons_of_opencv(result, size):
    """Masks of the octagons from the points: OpenCV says which centres of pixels are inside."""
    masks = []
    for (x1, y1, x2, y2), four in zip(result.bboxes.tolist(), result.extreme_points.tolist()):
        (tx, _), (_, ly), (bx, _), (_, ry) = four
        dx, dy = (x2 - x1) / 8, (y2 - y1) / 8
        ring = [
            (max(tx - dx, x1), y1),
            (min(tx + dx, x2), y1),
            (x2, max(ry - dy, y1)),
            (x2, min(ry + dy, y2)),
            (min(bx + dx, x2), y2),
            (max(bx - dx, x1), y2),
            (x1, min(ly + dy, y2)),
            (x1, max(ly - dy, y1)),
        ]
        ring = np.array(ring, dtype=np.float32)
        mask = np.zeros(size, dtype=np.uint8)
        for y, x in itertools.product(*map(range, size)):
            mask[y, x] = cv2.pointPolygonTest(ring, (x + 0.5, y + 0.5), False) >= 0
        masks.append(mask)
    return masks


def test_octagons_through_coco_metric(digits, digit_samples):
    head = build(num_classes=10, test_cfg=dict(octagon_masks=True))
    results = digit_results(head, digit_samples)
    ann_file = str(digits / 'annotations' / 'digits_val.json')
    metric = CocoMetric(ann_file=ann_file, metric=['bbox', 'segm'])
    metric.dataset_meta = dict(classes=tuple('0123456789'))
    metric.process({}, metric_input(digit_samples, results))
    found = metric.evaluate(size=len(digit_samples))
    assert found['coco/bbox_mAP'] > 0.99

    rows = []
    for sample, result in zip(digit_samples, results):
        masks = octagons_of_opencv(result, (128, 128))
        for ours, mask, score, label in zip(result.masks, masks, result.scores, result.labels):
            # A pixel on an edge may be on either side.
            assert (ours.numpy() != mask).sum() <= 2
            code = rle.encode(np.asfortranarray(mask))
            rows.append(
                dict(
                    image_id=sample.img_id,
                    category_id=int(label) + 1,
                    segmentation=code,
                    score=float(score),
                )
            )
    truth = COCO(ann_file)
    evaluation = COCOeval(truth, truth.loadRes(rows), 'segm')
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert_close(found['coco/segm_mAP'], float(evaluation.stats[0]), atol=0.02, rtol=0)
    assert 0.1 < found['coco/segm_mAP'] < 0.9
    assert found['coco/segm_mAP_50'] > 0.5
