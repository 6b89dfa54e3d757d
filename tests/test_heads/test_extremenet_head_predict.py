"""ExtremeNetHead.predict: maps written from labels, soft-NMS, ghosts, sizes and masks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from benchmarks.rows.extremenet import draw_objects, loop_ghosts, product_of_four
from mmloss_plugins.losses.centernet import EXTREMES
from tests.test_functional.extreme_oracles import assert_same_detections
from tests.test_heads.extreme_cases import (
    BOXES,
    CLASSES,
    HEIGHT,
    LABELS,
    PLAIN,
    POINTS,
    RINGS,
    SCORE,
    WIDTH,
    H,
    W,
    assert_found,
    build,
    detector,
    metas,
    pack,
    predict,
    sorted_rows,
    truth_of,
    written_maps,
)

pytestmark = pytest.mark.usefixtures('mmdet_scope')


# --- maps written from labels -----------------------------------------------------------------


@pytest.mark.parametrize('agnostic', [False, True])
def test_nothing_else_is_found(agnostic):
    samples = [pack(), pack(RINGS[1:], [1, 0]), pack([], [])]
    head = build(class_agnostic=agnostic)
    for sample, result in zip(samples, predict(head, samples)):
        assert_found(result, *truth_of(sample))
        assert_close(result.scores, torch.full((len(result),), SCORE), atol=1e-4, rtol=0)
        assert result.extreme_points.shape == (len(result), 4, 2)
    assert_found(predict(head, samples)[0], BOXES, LABELS)


def test_points_are_thinned_and_groups_are_cut_by_the_options():
    def number(maps=None, **options):
        return len(predict(build(test_cfg={**PLAIN, **options}), [pack()], maps=maps)[0])

    assert number() == 3
    assert number(max_per_img=2) == number(num_dets=2) == 2
    assert number(topk=1) < 3
    assert number(score_thr=0.89) == 3
    assert number(score_thr=0.91) == number(point_thr=0.95) == number(center_thr=0.95) == 0
    # A group counts by its own scores: points below the limit of groups are allowed.
    maps = written_maps([pack()])
    maps['center']['heatmap'] -= 3.0
    # Centres of 1 / (1 + e^3 / 9) = 0.31: (4 * 0.9 + 2 * 0.31) / 6 = 0.70.
    assert number(maps) == number(maps, point_thr=0.85, score_thr=0.69) == 3
    assert number(maps, score_thr=0.71) == 0


def test_low_scores_are_detections_if_their_points_may_be_low():
    head = build(test_cfg={**PLAIN, 'point_thr': 0.01, 'center_thr': 0.01})
    maps = written_maps([pack()])
    for point in POINTS:
        maps[point]['heatmap'] -= 5.0
    # Points of 1 / (1 + e^5 / 9) = 0.057.
    (result,) = predict(head, [pack()], maps=maps)
    assert_found(result, BOXES, LABELS)
    assert_close(result.scores, torch.full((3,), 1 / (1 + math.exp(5) / 9)), atol=1e-4, rtol=0)


def test_the_last_of_two_stacks_is_read():
    maps = written_maps([pack()])
    empty = written_maps([pack([], [])])
    head = build(num_stacks=2)
    (result,) = head.predict_by_feat([empty, maps], metas([pack()]))
    assert_found(result, BOXES, LABELS)
    assert len(head.predict_by_feat([maps, empty], metas([pack()]))[0]) == 0


@pytest.mark.parametrize('seed', range(3))
def test_detections_on_peaky_maps_are_those_of_all_groups(seed):
    """Gaussians on a low background, as a trained head has them, in float32 logits."""
    shape = 2, CLASSES, H, W
    generator = torch.Generator().manual_seed(seed)
    maps = draw_objects(generator, shape, 5)
    offsets = torch.rand(4, 2, 2, H, W, generator=generator)
    stack = {
        point: dict(heatmap=logits) for point, logits in zip(POINTS, maps.double().logit().float())
    }
    for side, offset in zip(EXTREMES, offsets):
        stack[side]['offset'] = offset
    # Groups of all peaks: 12^4 products per image.
    head = build(test_cfg=dict(topk=12, num_dets=200))
    found = head.detect([stack], (2.0, 4.0))
    scale = torch.tensor([2.0, 4.0]).repeat(6)
    rows = torch.cat(
        (
            found['bboxes'] / scale[:4],
            found['scores'].unsqueeze(-1),
            found['extreme_points'] / scale[:8],
            found['labels'].unsqueeze(-1),
        ),
        -1,
    )
    expected = product_of_four(maps[:4], maps[4], offsets, aggr_weight=0.1, top_k=12, num_dets=200)
    assert (expected[..., 4] > 0).sum() >= 6
    assert_same_detections(rows, expected, 200)


def test_maps_of_half_precision_and_maps_with_gradient():
    samples = [pack()]
    head = build()
    maps = written_maps(samples)
    for part in maps.values():
        part['heatmap'] = part['heatmap'].bfloat16().requires_grad_()
    (result,) = predict(head, samples, maps=maps)
    assert_found(result, BOXES, LABELS)
    assert result.scores.dtype == torch.float32
    assert not result.scores.requires_grad


# --- soft-NMS and ghosts ----------------------------------------------------------------------


def three_in_a_row():
    """Squares of 12 x 12 px with gaps of 4 px, and maps in which the outer points are weak."""
    rings = [[(x, 20), (x + 6, 14), (x + 12, 20), (x + 6, 26)] for x in (16.0, 32.0, 48.0)]
    sample = pack(rings, [1, 1, 1])
    maps = written_maps([sample])
    for side, x in (('left', 16), ('right', 60)):
        row, column = 20 // 4, x // 4
        maps[side]['heatmap'][0, 1, row, column] = math.log(0.6 / 0.4)
    return sample, maps


def test_ghosts_are_weakened_after_soft_nms():
    sample, maps = three_in_a_row()
    plain, head = build(test_cfg=dict(ghosts=None)), build()
    (before,), (after,) = (predict(each, [sample], maps=maps) for each in (plain, head))
    # Middle 0.9; outer (3 * 0.9 + 0.6 + 1.8) / 6 = 0.85.
    assert_close(after.scores[:3], torch.tensor([0.9, 0.85, 0.85]), atol=1e-3, rtol=0)
    assert_close(after.bboxes[0], torch.tensor([32.0, 14, 44, 26]))
    ghost = torch.tensor([16.0, 14, 60, 26])
    # Across the row (0.9 + 0.6 + 0.9 + 0.6 + 1.8) / 6 = 0.8, IoU 12 / 44 with each square:
    # 0.8 * exp(-3 * (12 / 44)^2 / 0.5) = 0.512 after soft-NMS, three squares weigh 2.6 > 3 * 0.512.
    assert_close(before.bboxes[3], ghost)
    assert_close(before.scores[3].item(), 0.5120, atol=1e-3, rtol=0)
    assert_close(after.bboxes[3], ghost)
    assert_close(after.scores[3].item(), 0.2560, atol=1e-3, rtol=0)
    assert (after.scores[:-1] >= after.scores[1:]).all()


def test_the_authors_rule_for_ghosts():
    sample, maps = three_in_a_row()
    ghosts = dict(ratio=3.0, include_self=True, order='sequential')
    (before,) = predict(build(test_cfg=dict(ghosts=None)), [sample], maps=maps)
    (after,) = predict(build(test_cfg=dict(ghosts=ghosts)), [sample], maps=maps)
    expected = loop_ghosts(before.bboxes, before.scores, before.labels)
    assert_close(after.scores, expected.sort(descending=True).values)
    assert (expected < before.scores).sum() == 1


def test_ghosts_are_looked_for_among_the_best():
    """As in the authors' test code: what max_per_img leaves out weighs nothing."""
    sample, maps = three_in_a_row()
    ghosts = dict(ratio=1.0)
    (result,) = predict(build(test_cfg=dict(ghosts=ghosts, max_per_img=3)), [sample], maps=maps)
    assert_close(result.scores, torch.tensor([0.9, 0.85, 0.85]), atol=1e-3, rtol=0)


def test_soft_nms_of_other_classes_leaves_a_box_alone():
    rings = [RINGS[0], RINGS[0]]
    sample = pack(rings, [0, 1])
    (result,) = predict(build(), [sample])
    assert_close(result.scores, torch.full((2,), SCORE), atol=1e-4, rtol=0)
    assert sorted(result.labels.tolist()) == [0, 1]


# --- sizes and masks --------------------------------------------------------------------------


@pytest.mark.parametrize('rescale', [False, True])
def test_border_and_scale_factor(rescale):
    # (w, h); the border is (top, bottom, left, right).
    border = np.array([8, HEIGHT, 4, WIDTH], dtype=np.float32)
    sample = pack(border=border, scale_factor=(2.0, 4.0), ori_shape=(14, 38))
    head = build(test_cfg=dict(octagon_masks=True))
    (result,) = predict(head, [sample], rescale)
    scale = torch.tensor([2.0, 4.0] if rescale else [1.0, 1.0])
    boxes = (torch.tensor(BOXES) - torch.tensor([4.0, 8, 4, 8])) / scale.repeat(2)
    assert_found(result, boxes, LABELS)
    points = (sample.gt_instances.extreme_points - torch.tensor([4.0, 8])) / scale
    assert_close(
        sorted_rows(result.extreme_points, result.labels),
        sorted_rows(points, torch.tensor(LABELS)),
        atol=1e-3,
        rtol=0,
    )
    assert result.masks.shape == (3, *((14, 38) if rescale else (HEIGHT, WIDTH)))
    # Each mask fills the part of its box that is inside.
    for mask, box in zip(result.masks, result.bboxes):
        rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
        low = torch.stack((columns.min(), rows.min()))
        high = torch.stack((columns.max(), rows.max())) + 1
        size = torch.tensor(mask.shape[::-1])
        assert (low - box[:2].clamp(min=0)).abs().max() <= 1
        assert (high - box[2:].minimum(size)).abs().max() <= 1


def test_an_image_without_detections():
    (result,) = predict(build(test_cfg=dict(octagon_masks=True)), [pack([], [])], rescale=True)
    shapes = {name: tuple(value.shape) for name, value in result.items()}
    assert shapes == dict(
        bboxes=(0, 4), scores=(0,), labels=(0,), extreme_points=(0, 4, 2), masks=(0, HEIGHT, WIDTH)
    )


# --- in a detector ----------------------------------------------------------------------------


def test_two_stacks_of_an_hourglass_train_and_predict():
    model = detector()
    images = [torch.full((3, HEIGHT, WIDTH), 9.0), torch.ones(3, HEIGHT, WIDTH)]
    samples = [pack(), pack([], [])]
    data = model.data_preprocessor(dict(inputs=images, data_samples=samples), training=True)
    losses = model.loss(data['inputs'], data['data_samples'])
    sum(losses.values()).backward()
    for stack in model.bbox_head.stacks:
        assert all(parameter.grad.abs().sum() > 0 for parameter in stack.parameters())
    assert all(value.isfinite() and value > 0 for value in losses.values())
    model.eval()
    with torch.no_grad():
        for sample in model.predict(data['inputs'], data['data_samples']):
            assert sample.pred_instances.extreme_points.shape[1:] == (4, 2)
