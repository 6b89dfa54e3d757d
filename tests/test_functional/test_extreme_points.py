"""Targets of ExtremeNet against loops and MMDetection's Gaussians; octagons against OpenCV."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from mmdet.models.utils import gaussian_radius, gen_gaussian_target
from torch.testing import assert_close

from mmloss_plugins import functional as F
from mmloss_plugins.functional import value_checks

H, W, C, STRIDE = 12, 17, 3, 4


def some_points(batch=2, number=5, seed=0):
    """Points of random objects, some partly outside of the image of 48 x 68 px."""
    gen = torch.Generator().manual_seed(seed)
    size = torch.tensor((W * STRIDE, H * STRIDE))
    low = (torch.rand(batch, number, 2, generator=gen) - 0.15) * size
    high = low + (0.1 + 0.5 * torch.rand(batch, number, 2, generator=gen)) * size
    at = low[:, :, None] + torch.rand(batch, number, 4, 2, generator=gen) * (high - low)[:, :, None]
    at[:, :, 0, 1], at[:, :, 1, 0] = low[..., 1], low[..., 0]
    at[:, :, 2, 1], at[:, :, 3, 0] = high[..., 1], high[..., 0]
    labels = torch.randint(C, (batch, number), generator=gen)
    return at, labels, torch.rand(batch, number, generator=gen) < 0.8


def targets(points, labels, valid, **options):
    return F.extreme_targets(points, labels, valid, C, (H, W), STRIDE, **options)


def by_loops(points, labels, valid, stride=(STRIDE, STRIDE), agnostic=False):
    """Return five heatmaps (B, C, H, W) and {(image, object): [(index, offset)]}."""
    batch = len(points)
    shapes = [(batch, 1 if agnostic and side < 4 else C, H, W) for side in range(5)]
    heatmaps, found = [torch.zeros(shape) for shape in shapes], {}
    for image in range(batch):
        for number, corners in enumerate(points[image]):
            corners = [
                (min(max(x / stride[0], 0), W), min(max(y / stride[1], 0), H))
                for x, y in corners.tolist()
            ]
            (_, y1), (x1, _), (_, y2), (x2, _) = corners
            if not valid[image, number] or x1 >= x2 or y1 >= y2:
                continue
            radius = max(0, int(gaussian_radius(torch.tensor((y2 - y1, x2 - x1)), 0.3)))
            corners.append(((x1 + x2) / 2, (y1 + y2) / 2))
            cells = [(min(int(x), W - 1), min(int(y), H - 1)) for x, y in corners]
            for side, (column, row) in enumerate(cells):
                plane = heatmaps[side][image, 0 if shapes[side][1] == 1 else labels[image, number]]
                gen_gaussian_target(plane, (column, row), radius)
            found[image, number] = [
                (row * W + column, (x - column, y - row))
                for (column, row), (x, y) in zip(cells[:4], corners)
            ]
    return heatmaps, found


@pytest.mark.parametrize('agnostic', [False, True])
@pytest.mark.parametrize('seed', range(4))
def test_targets_are_those_of_loops(seed, agnostic):
    case = some_points(seed=seed)
    found = targets(*case, radius_impl='mmdet', agnostic=agnostic)
    heatmaps, objects = by_loops(*case, agnostic=agnostic)
    for ours, theirs in zip((*found.extreme_heatmaps, found.center_heatmap), heatmaps):
        assert_close(ours, theirs)
        assert ours.max() == 1
    assert set(objects) == {tuple(index) for index in found.mask.nonzero().tolist()}
    assert len(objects) >= 5
    for (image, number), sides in objects.items():
        for side, (index, offset) in enumerate(sides):
            assert found.cell_index[side][image, number] == index
            assert_close(found.offset[side][image, number], torch.tensor(offset))
    assert_close(found.labels, torch.where(found.mask, case[1], 0))


def test_padding_may_hold_anything():
    points, labels, valid = some_points(seed=5)
    expected = targets(points, labels, valid)
    points[~valid] = float('nan')
    labels[~valid] = -7
    for ours, theirs in zip(targets(points, labels, valid), expected):
        assert_close(ours, theirs)
    assert not valid.all()


def test_peaks_and_offsets_give_the_points_back_through_the_decode():
    """Encode and decode: the boxes of well separated objects to 1e-3 cells."""
    points, labels, valid = some_points(number=1, seed=7)
    valid[:] = True
    found = targets(points, labels, valid)
    offsets = torch.zeros(4, 2, 2, H * W)
    for side in range(4):
        where = found.cell_index[side].unsqueeze(1).expand(-1, 2, -1)
        offsets[side].scatter_(2, where, found.offset[side].transpose(1, 2))
    offsets = offsets.view(4, 2, 2, H, W)
    decoded = F.extreme_decode(found.extreme_heatmaps, found.center_heatmap, offsets, num_dets=3)
    size = torch.tensor((W, H), dtype=torch.float32)
    expected = torch.minimum((points[:, 0] / STRIDE).clamp(min=0), size)
    assert_close(decoded[:, 0, 5:13].view(2, 4, 2), expected, atol=1e-3, rtol=0)
    box = torch.stack((expected[:, 1, 0], expected[:, 0, 1], expected[:, 3, 0], expected[:, 2, 1]))
    assert_close(decoded[:, 0, :4], box.T, atol=1e-3, rtol=0)
    assert_close(decoded[:, 0, 13], labels[:, 0].float())


def one(points):
    return torch.tensor(points)[None, None], torch.tensor([[1]]), torch.tensor([[True]])


def test_points_on_the_far_border_belong_to_the_last_cell():
    whole = [[30.0, 0.0], [0.0, 20.0], [40.0, H * STRIDE], [W * STRIDE, 10.0]]
    found = targets(*one(whole))
    # Bottom: x 40 / 4 = 10, y 12 in cell 11; right: x 17 in cell 16, y 2.5.
    assert found.cell_index[2].item() == 11 * W + 10
    assert_close(found.offset[2], torch.tensor([[[0.0, 1.0]]]))
    assert found.cell_index[3].item() == 2 * W + 16
    assert_close(found.offset[3], torch.tensor([[[1.0, 0.5]]]))


def test_an_object_smaller_than_a_cell_has_all_peaks_in_it():
    found = targets(*one([[9.5, 5.0], [9.0, 6.0], [10.0, 7.0], [11.0, 6.5]]))
    assert [index.item() for index in found.cell_index] == [W + 2] * 4
    for heatmap in (*found.extreme_heatmaps, found.center_heatmap):
        assert heatmap.sum() == heatmap[0, 1, 1, 2] == 1


@pytest.mark.parametrize('move', [(100.0, 0.0), (-100.0, 0.0), (0.0, 60.0), (0.0, -60.0)])
def test_what_lies_outside_is_left_out(move):
    points, labels, valid = one([[20.0, 10.0], [10.0, 20.0], [20.0, 30.0], [30.0, 20.0]])
    assert targets(points, labels, valid).mask.item()
    found = targets(points + torch.tensor(move), labels, valid)
    assert not found.mask.item()
    assert found.center_heatmap.sum() == found.extreme_heatmaps[0].sum() == 0


# --- ignore regions ---------------------------------------------------------------------------


def test_ignore_regions_silence_every_cell_that_they_touch():
    # 9 to 15 px in x and 0 to 13 in y at 4 px per cell: columns 2 and 3, rows 0 to 3. The region
    # of the other image has no area.
    regions = torch.tensor([[[9.0, 0.0, 15.0, 13.0]], [[8.0, 8.0, 8.0, 20.0]]])
    points, labels, valid = some_points(seed=1)
    found = targets(points, labels, torch.zeros_like(valid), ignore_boxes=regions)
    expected = torch.ones(2, 1, H, W)
    expected[0, 0, 0:4, 2:4] = 0
    for weight in (*found.extreme_weights, found.center_weight):
        assert_close(weight, expected)


def test_the_peaks_in_an_ignore_region_count_each_in_its_own_map():
    points, labels, valid = one([[9.5, 5.0], [6.0, 13.0], [12.0, 19.0], [17.0, 11.0]])
    whole = torch.tensor([[[0.0, 0.0, W * STRIDE, H * STRIDE], [0.0, 0.0, 0.0, 0.0]]])
    found = targets(points, labels, valid, ignore_boxes=whole)
    # (x, y) in cells: top (2.4, 1.25), left (1.5, 3.25), bottom (3, 4.75), right (4.25, 2.75),
    # and the middle (11.5, 12) / 4 = (2.875, 3).
    cells = [(2, 1), (1, 3), (3, 4), (4, 2), (2, 3)]
    for weight, (x, y) in zip((*found.extreme_weights, found.center_weight), cells):
        assert weight.sum() == weight[0, 0, y, x] == 1


def test_without_ignore_regions_there_are_no_weights():
    found = targets(*some_points())
    assert found.extreme_weights is None
    assert found.center_weight is None


def test_ignore_regions_change_nothing_else():
    case = some_points(seed=2)
    regions = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(0)).cumsum(-1) * 20
    for ours, theirs in zip(targets(*case, ignore_boxes=regions)[:6], targets(*case)[:6]):
        assert_close(ours, theirs)


@pytest.mark.parametrize('batch', [0, 2])
def test_images_without_objects(batch):
    empty = torch.zeros(batch, 0, 4, 2), torch.zeros(batch, 0).long(), torch.zeros(batch, 0).bool()
    found = targets(*empty)
    assert found.center_heatmap.shape == (batch, C, H, W)
    assert found.offset[3].shape == (batch, 0, 2)
    assert not any(heatmap.any() for heatmap in found.extreme_heatmaps)


def test_a_stride_per_axis():
    case = some_points(seed=3)
    found = F.extreme_targets(*case, C, (H, W), (4.0, 5.0), radius_impl='mmdet')
    heatmaps, objects = by_loops(*case, stride=(4.0, 5.0))
    assert_close(found.extreme_heatmaps[1], heatmaps[1])
    assert found.mask.sum() == len(objects)


@pytest.mark.parametrize(
    ('change', 'text'),
    [
        (dict(points=torch.zeros(2, 5, 8)), r'points must have the shape \(B, N, 4, 2\)'),
        (dict(labels=torch.zeros(2, 4)), r'labels must have the shape \(2, 5\) of points'),
        (dict(valid=torch.zeros(5)), r'valid must have the shape \(2, 5\) of points'),
        (dict(ignore_boxes=torch.zeros(3, 1, 4)), r'ignore_boxes must have the shape \(2, M, 4\)'),
        (dict(stride=0), 'stride must be positive'),
        (dict(num_classes=0), 'num_classes must be at least 1'),
        (dict(radius_impl='cornernet'), "radius_impl must be one of .*Did you mean 'centernet'"),
        (dict(num_classes=1), r'labels must be within \[0, 1\), got'),
        (dict(points=torch.full((2, 5, 4, 2), float('nan'))), 'points must be finite, got'),
    ],
)
def test_targets_refuse_what_does_not_fit(change, text):
    points, labels, _ = some_points()
    arguments = dict(points=points, labels=labels, valid=torch.ones(2, 5, dtype=torch.bool))
    arguments |= dict(num_classes=C, map_size_hw=(H, W), stride=STRIDE)
    with pytest.raises(ValueError, match=text):
        F.extreme_targets(**(arguments | change))


def test_without_value_checks_a_nan_shows_in_the_offsets():
    points, labels, valid = some_points()
    valid[:] = True
    points[1, 2, 3, 1] = float('nan')
    with value_checks(False):
        found = targets(points, labels, valid)
    assert found.offset[3][1, 2, 1].isnan()
    assert not found.offset[3][0].isnan().any()


# --- octagons ---------------------------------------------------------------------------------


def test_octagon_by_hand():
    # Box (0, 0) to (16, 8): 16 / 8 = 2 px to both sides along x, 8 / 8 = 1 px along y.
    points = torch.tensor([[8.0, 0.0], [0.0, 5.0], [1.0, 8.0], [16.0, 4.0]])
    # The bottom point reaches the corner after 1 px and stops there.
    expected = [[6, 0], [10, 0], [16, 3], [16, 5], [3, 8], [0, 8], [0, 6], [0, 4]]
    assert_close(F.octagons(points), torch.tensor(expected, dtype=torch.float32))
    assert F.octagons(points.expand(2, 3, 4, 2)).shape == (2, 3, 8, 2)


def test_the_octagon_is_within_the_box_and_contains_the_points():
    points, _, _ = some_points(batch=1, number=50, seed=1)
    vertices = F.octagons(points[0])
    low, high = points[0].amin(1, keepdim=True), points[0].amax(1, keepdim=True)
    assert (vertices >= low).all()
    assert (vertices <= high).all()
    # Convex and clockwise: no turn to the left.
    edges = vertices.roll(-1, 1) - vertices
    following = edges.roll(-1, 1)
    turn = edges[..., 0] * following[..., 1] - edges[..., 1] * following[..., 0]
    assert (turn >= -1e-3).all()


def test_masks_are_those_of_opencv():
    points, _, _ = some_points(batch=1, number=12, seed=2)
    vertices = F.octagons(points[0])
    masks = F.octagon_masks(vertices, (60, 80))
    x, y = np.meshgrid(np.arange(80) + 0.5, np.arange(60) + 0.5)
    for mask, corners in zip(masks.numpy(), vertices.numpy()):
        inside = [
            cv2.pointPolygonTest(corners, (float(a), float(b)), False) >= 0
            for a, b in zip(x.flat, y.flat)
        ]
        assert (mask.flatten() != np.array(inside)).sum() <= 1  # a pixel on an edge
        assert mask.sum() > 20


def test_masks_of_no_and_of_empty_octagons():
    assert F.octagon_masks(torch.zeros(0, 8, 2), (3, 4)).shape == (0, 3, 4)
    point = torch.full((1, 4, 2), 1.0)
    assert F.octagon_masks(F.octagons(point), (3, 4)).sum() == 0


@pytest.mark.parametrize(
    ('call', 'text'),
    [
        (lambda: F.octagons(torch.zeros(4, 3)), r'points must have the shape \(\.\.\., 4, 2\)'),
        (lambda: F.octagon_masks(torch.zeros(8, 2), (3, 4)), 'vertices must have the shape'),
        (lambda: F.octagon_masks(torch.zeros(1, 8, 2), (0, 4)), r'size_hw must be \(H, W\)'),
    ],
)
def test_octagons_refuse_what_does_not_fit(call, text):
    with pytest.raises(ValueError, match=text):
        call()
