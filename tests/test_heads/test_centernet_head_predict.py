"""CenterNetHead.predict: MMDetection's boxes, sizes per class, thresholds, NMS, half precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from tests.test_heads.centernet_cases import (
    CLASSES,
    INPUT,
    LABELS,
    MAP,
    TEST_CFG,
    build,
    features,
    pair,
    samples,
    stirred,
)

pytestmark = pytest.mark.usefixtures('mmdet_scope')


def perfect_maps(head, batch, confidence=4.0):
    """Logits, offsets and sizes of a head that has learnt ``batch``."""
    target = head.targets([each.gt_instances for each in batch], MAP, (5.0, 4.0))
    maps = dict(
        heatmap=torch.full((len(batch), CLASSES, *MAP), -9.0),
        offset=torch.zeros(len(batch), 2, *MAP),
        size_wh=torch.ones(len(batch), head.stacks[0]['size_wh'][-1].out_channels, *MAP),
    )
    for image, each in enumerate(batch):
        for number, label in enumerate(each.gt_instances.labels):
            row, column = divmod(int(target.cell_index[image, number]), MAP[1])
            maps['heatmap'][image, label, row, column] = confidence - number
            maps['offset'][image, :, row, column] = target.offset[image, number]
            channels = slice(0, 2)
            if maps['size_wh'].shape[1] > 2:
                channels = slice(2 * int(label), 2 * int(label) + 2)
            maps['size_wh'][image, channels, row, column] = target.size_wh[image, number]
    return maps


@pytest.mark.parametrize('rescale', [False, True])
@pytest.mark.parametrize(
    'meta',
    [
        dict(border=[0.0] * 4),
        dict(border=[6.0, 58.0, 11.0, 99.0]),
        dict(border=[6.0, 58.0, 11.0, 99.0], scale_factor=(0.5, 2.0)),
    ],
    ids=['plain', 'border', 'border and scale'],
)
def test_boxes_of_mmdet(meta, rescale):
    ours, theirs = pair()
    batch = samples(**meta)
    found = ours.predict(features(), batch, rescale=rescale)
    expected = theirs.predict(features(), batch, rescale=rescale)
    assert len(found) == 2
    for one, other in zip(found, expected):
        assert len(one) == len(other) == TEST_CFG['topk']
        assert_close(one.scores, other.scores, rtol=1e-6, atol=0)
        assert_close(one.bboxes, other.bboxes, rtol=1e-6, atol=1e-5)
        assert (one.labels == other.labels).all()


def test_without_a_border_in_the_meta():
    head = stirred(build())
    found, expected = (
        head.predict(features(), samples(**meta)) for meta in ({}, dict(border=[0.0] * 4))
    )
    assert_close(found[1].bboxes, expected[1].bboxes)


def test_cells_that_are_no_peak_are_no_result():
    ours, theirs = pair()
    few = dict(TEST_CFG, topk=1000, max_per_img=1000)
    ours.test_cfg.update(few)
    theirs.test_cfg.update(few)
    batch = samples(border=[0.0] * 4)
    found, expected = (head.predict(features(), batch) for head in (ours, theirs))
    for one, other in zip(found, expected):
        assert len(other) == 1000
        assert len(one) == (other.scores > 0).sum() < 1000
        assert_close(one.bboxes, other.bboxes[: len(one)], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize('options', [{}, {'class_specific_size': True}])
def test_what_was_learnt_is_found(options):
    head, batch = build(**options), samples(scale_factor=(0.5, 2.0))
    maps = perfect_maps(head, batch)
    metas = [each.metainfo for each in batch]
    results = head.predict_by_feat([maps], metas, rescale=True)
    for each, found, labels in zip(batch, results, LABELS):
        best = found[: len(labels)]
        assert best.labels.tolist() == labels
        boxes = each.gt_instances.bboxes / torch.tensor([0.5, 2.0, 0.5, 2.0])
        assert_close(best.bboxes, boxes, rtol=0, atol=1e-3)
        assert_close(best.scores, torch.tensor([4.0, 3.0, 2.0][: len(labels)]).sigmoid())
        assert (found.scores[len(labels) :] < 1e-3).all()


def test_thresholds():
    head, batch = build(test_cfg=dict(score_thr=0.9, max_per_img=2)), samples()
    maps, metas = perfect_maps(head, batch), [each.metainfo for each in batch]
    # sigmoid(4) = 0.982, sigmoid(3) = 0.953, sigmoid(2) = 0.881
    assert [len(each) for each in head.predict_by_feat([maps], metas)] == [2, 2]
    head.test_cfg['max_per_img'] = 1
    (first, _) = head.predict_by_feat([maps], metas)
    assert first.labels.tolist() == LABELS[0][:1]
    head.test_cfg['score_thr'] = 0.99
    empty = head.predict_by_feat([maps], metas)[0]
    assert len(empty) == 0
    assert empty.bboxes.shape == (0, 4)


def test_soft_nms_within_a_class():
    nms = dict(type='soft_nms', iou_threshold=0.5, sigma=0.5, method='gaussian')
    head = build(test_cfg=dict(nms=nms, score_thr=0.1))
    found = dict(
        bboxes=torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 12], [0, 0, 10, 10], [50, 0, 60, 9]]]),
        scores=torch.tensor([[0.9, 0.8, 0.7, 0.6]]),
        labels=torch.tensor([[0, 0, 1, 0]]),
    )
    (result,) = head.results(found, [samples()[0].metainfo], rescale=False)
    # The second overlaps the first by 100 / 120; its score falls by exp(-(100 / 120)^2 / 0.5).
    weakened = 0.8 * np.exp(-((100 / 120) ** 2) / 0.5)
    assert_close(result.scores, torch.tensor([0.9, 0.7, 0.6, weakened], dtype=torch.float32))
    assert result.labels.tolist() == [0, 1, 0, 0]
    assert result.bboxes[3].tolist() == [0, 0, 10, 12]


def test_nms_keeps_an_image_without_detections():
    nms = dict(type='nms', iou_threshold=0.5)
    head = build(test_cfg=dict(nms=nms, score_thr=0.99))
    results = head.predict(features(), samples())
    assert [len(each) for each in results] == [0, 0]


def test_more_peaks_asked_for_than_cells():
    head = build(test_cfg=dict(topk=10_000, max_per_img=10_000))
    (found, _) = head.predict(features(size=(2, 3)), samples())
    assert 0 < len(found) <= 2 * 3 * CLASSES


def test_nan_shows_in_the_results():
    head, batch = build(), samples()
    maps = perfect_maps(head, batch)
    maps['heatmap'][0, 1, 3, 3] = torch.nan
    (found, other) = head.predict_by_feat([maps], [each.metainfo for each in batch])
    assert found.scores.isnan().sum() == 1
    assert other.scores.isfinite().all()


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_moves_no_box_by_a_cell(dtype):
    head, batch = build(), samples()
    maps = {name: value.to(dtype) for name, value in perfect_maps(head, batch).items()}
    results = head.predict_by_feat([maps], [each.metainfo for each in batch])
    for each, found in zip(batch, results):
        assert found.bboxes.dtype == found.scores.dtype == torch.float32
        best = found.bboxes[: len(each.gt_instances)]
        # bfloat16 keeps 8 bits of a size of 13 cells: 1/32 of a cell, of 5 px.
        assert_close(best, each.gt_instances.bboxes, rtol=0, atol=0.2)


def test_autocast():
    head = stirred(build())
    expected = head.predict(features(), samples())
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = head.predict(features(), samples())
    for one, other in zip(found, expected):
        assert one.bboxes.isfinite().all()
        assert_close(one.scores[:3], other.scores[:3], rtol=0.03, atol=0.01)


def test_results_of_a_stack_are_those_of_the_last():
    both, last = stirred(build(num_stacks=2)), build()
    last.stacks[0].load_state_dict(both.stacks[1].state_dict())
    x = features(stacks=2)
    found, expected = both.predict(x, samples()), last.predict(x[1:], samples())
    assert_close(found[0].bboxes, expected[0].bboxes)
    assert INPUT[0] / MAP[0] != INPUT[1] / MAP[1]
