"""ExtremeNetHead in a HeatmapDetector that tests on mirrored images and several scales."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from tests.test_heads.extreme_cases import (
    BOXES,
    HEIGHT,
    LABELS,
    PLAIN,
    POINTS,
    RINGS,
    SCORE,
    WIDTH,
    assert_found,
    detector,
    pack,
    sorted_rows,
    truth_of,
    written_maps,
)

pytestmark = pytest.mark.usefixtures('mmdet_scope')


def knows_by_heart(monkeypatch, model, samples, flipped=None):
    """Let the model find ``samples`` in the first half of a batch, and ``flipped`` in the other."""
    sizes = []

    def maps_of_inputs(inputs):
        sizes.append(tuple(inputs.shape[-2:]))
        size = inputs.shape[-2] // 4, inputs.shape[-1] // 4
        halves = [samples] if flipped is None else [samples, flipped]
        assert len(inputs) == sum(map(len, halves))
        if flipped is not None:
            plain, turned = inputs.chunk(2)
            assert torch.equal(turned, plain.flip(-1))
        parts = [written_maps(half, size) for half in halves]
        joined = {
            point: {
                name: torch.cat([part[point][name] for part in parts]) for name in parts[0][point]
            }
            for point in POINTS
        }
        return ([joined],)

    monkeypatch.setattr(model, 'extract_feat', lambda inputs: inputs)
    monkeypatch.setattr(model.bbox_head, 'forward', maps_of_inputs)
    return sizes


FLIP = dict(type='RandomFlip', prob=1.0, direction='horizontal')


def test_flip_test_adds_the_same_objects_again(monkeypatch):
    images = [(RINGS, LABELS), (RINGS[1:], [1, 0])]
    samples = [pack(*image) for image in images]
    flipped = [pack(*image, transforms=[FLIP]) for image in images]
    model = detector(test_cfg=dict(flip_test=True, **PLAIN))
    knows_by_heart(monkeypatch, model, samples, flipped)
    inputs = torch.rand(2, 3, HEIGHT, WIDTH)
    for sample in model.predict(inputs, samples):
        result, (boxes, labels) = sample.pred_instances, truth_of(sample)
        assert_found(result, boxes.repeat(2, 1), labels.repeat(2))
        # With its left point on the left.
        points = sample.gt_instances.extreme_points.flatten(1).repeat(2, 1)
        expected = sorted_rows(points, labels.repeat(2))
        assert_close(sorted_rows(result.extreme_points, result.labels), expected, atol=1e-3, rtol=0)


def test_a_mirrored_image_gives_the_mirrored_objects():
    """With the flip test it does so for any weights."""
    options = dict(topk=12, point_thr=0.0, center_thr=0.0, max_per_img=2000, flip_test=True)
    model = detector(test_cfg={**PLAIN, **options}).eval()
    for parameter in model.bbox_head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    image = 4 * torch.rand(1, 3, HEIGHT, WIDTH)
    with torch.no_grad():
        plain, turned = (
            model.predict(inputs, [pack()])[0].pred_instances for inputs in (image, image.flip(-1))
        )
    assert len(plain) == len(turned) >= 10
    mirrored = plain.extreme_points[:, [0, 3, 2, 1]].clone()
    mirrored[..., 0] = WIDTH - mirrored[..., 0]
    rows, found = (
        torch.cat(
            (points.flatten(1), 100 * result.scores[:, None], 100.0 * result.labels[:, None]), 1
        )
        for points, result in ((mirrored, plain), (turned.extreme_points, turned))
    )
    distance = (rows[:, None] - found[None]).abs().amax(-1)
    assert distance.amin(0).max() < 1e-2
    assert distance.amin(1).max() < 1e-2
    # The boxes are those of the points.
    points = turned.extreme_points
    spans = torch.stack((points[:, 1, 0], points[:, 0, 1], points[:, 3, 0], points[:, 2, 1]), -1)
    assert_close(turned.bboxes, spans)


def test_soft_nms_merges_what_the_flip_test_doubles(monkeypatch):
    model = detector(test_cfg=dict(flip_test=True))
    knows_by_heart(monkeypatch, model, [pack()], [pack(transforms=[FLIP])])
    (sample,) = model.predict(torch.zeros(1, 3, HEIGHT, WIDTH), [pack()])
    result = sample.pred_instances
    assert_found(result[:3], BOXES, LABELS)
    assert_close(result.scores[:3], torch.full((3,), SCORE), atol=1e-4, rtol=0)
    # The copy of each has an IoU of 1: exp(-1 / 0.5) = 0.135.
    copies = torch.full((3,), SCORE * math.exp(-2))
    assert_close(result.scores[3:], copies, atol=1e-3, rtol=0)


def test_scales_are_joined_in_px_of_the_input(monkeypatch):
    scales = (0.5, 1.0, 2.0)
    nms = dict(type='soft_nms', iou_threshold=0.5, sigma=0.5, min_score=0.5, method='gaussian')
    model = detector(test_cfg=dict(scales=scales, size_divisor=16, nms=nms))
    samples = [pack(), pack(RINGS[1:], [1, 0])]
    sizes = knows_by_heart(monkeypatch, model, samples)
    found = model.predict(torch.zeros(2, 3, HEIGHT, WIDTH), samples)
    # 80 / 2 = 40 px are rounded to 32, half of 80 / 16 = 2.5 to the even 2.
    assert sizes == [(32, 32), (64, 80), (128, 160)]
    for sample in found:
        assert_found(sample.pred_instances, *truth_of(sample))
