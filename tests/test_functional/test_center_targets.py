"""Targets of CenterNet against values by hand, the authors' loop and MMDetection's head."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from mmdet.models.dense_heads import CenterNetHead
from torch.testing import assert_close

from mmloss_plugins.functional import (
    center_targets,
    gather_cells,
    gaussian_radius,
    pad_objects,
    pad_rows,
    value_checks,
)
from tests.contract.test_device import NoSync, Operators

B, C, H, W = 3, 4, 24, 33
COUNTS = (5, 0, 9)


def random_boxes(seed=0, stride=(4.0, 4.0), counts=COUNTS, size=(H, W)):
    """Return lists of boxes within the image and of labels, one entry per image."""
    rng = np.random.default_rng(seed)
    image = np.array([size[1] * stride[0], size[0] * stride[1]])
    boxes = []
    for count in counts:
        corners = np.sort(rng.uniform(0, 1, (count, 2, 2)), 1) * image
        boxes.append(torch.tensor(corners.reshape(count, 4), dtype=torch.float32))
    return boxes, [torch.from_numpy(rng.integers(0, C, count)) for count in counts]


def targets_of(boxes, labels, stride=4.0, **options):
    return center_targets(*pad_objects(boxes, labels), C, (H, W), stride, **options)


def one_box(box, size=(6, 8), stride=4.0, **options):
    boxes = torch.tensor(box, dtype=torch.float32).reshape(1, 1, 4)
    one = torch.ones(1, 1, dtype=torch.long)
    return center_targets(boxes, 0 * one, one.bool(), 1, size, stride, **options)


def authors_loop(boxes, labels, size, stride):
    """The authors' data set class from boxes on the map, one by one in float64."""
    heatmap = np.zeros((C, *size))
    rows = []
    for (x1, y1, x2, y2), label in zip((boxes.double() / stride).tolist(), labels.tolist()):
        width, height = x2 - x1, y2 - y1
        rounded = torch.tensor([math.ceil(width), math.ceil(height)]).double()
        radius = int(gaussian_radius(rounded, 'centernet'))
        x, y = (x1 + x2) / 2, (y1 + y2) / 2
        column, row = int(x), int(y)
        sigma = (2 * radius + 1) / 6
        for j in range(max(0, row - radius), min(size[0], row + radius + 1)):
            for i in range(max(0, column - radius), min(size[1], column + radius + 1)):
                value = math.exp(-((i - column) ** 2 + (j - row) ** 2) / (2 * sigma**2))
                heatmap[label, j, i] = max(heatmap[label, j, i], value)
        rows.append((row * size[1] + column, x - column, y - row, width, height))
    return torch.from_numpy(heatmap).float(), torch.tensor(rows).reshape(-1, 5)


@pytest.fixture
def mmdet_head(mmdet_scope):
    return CenterNetHead(4, 4, num_classes=C)


def test_by_hand():
    # 12 x 8 px at stride 4: 3 x 2 cells, centre (22, 14) px = (5.5, 3.5) cells.
    # Radius for 3 x 2: b = 2 * 0.7 * 5 = 7, c = -1.8, sqrt(49 + 4 * 2.8 * 1.8) = 8.32,
    # (8.32 - 7) / 2 = 0.66, of which the whole part is 0: one cell.
    targets = one_box([16, 10, 28, 18])
    expected = torch.zeros(1, 1, 6, 8)
    expected[0, 0, 3, 5] = 1
    assert_close(targets.heatmap, expected)
    assert targets.cell_index.tolist() == [[3 * 8 + 5]]
    assert_close(targets.offset, torch.tensor([[[0.5, 0.5]]]))
    assert_close(targets.size_wh, torch.tensor([[[3.0, 2.0]]]))
    assert targets.mask.tolist() == [[True]]
    assert targets.labels.tolist() == [[0]]
    assert targets.weight is None


def test_sizes_are_rounded_up_for_the_radius_of_the_authors():
    # 3.6 cells: radius 0.98, but 1.09 for the 4 that it is rounded up to, and 0.76 at an overlap
    # of 0.8: -0.8 * 8 + sqrt(0.64 * 64 + 0.64 * 16).
    sizes = torch.tensor([[3.6, 3.6], [4.0, 4.0]])
    assert gaussian_radius(sizes).floor().tolist() == [0, 1]
    assert (one_box([4, 4, 18.4, 18.4]).heatmap > 0).sum() == 9
    assert (one_box([4, 4, 18.4, 18.4], min_overlap=0.8).heatmap > 0).sum() == 1


@pytest.mark.parametrize('seed', range(3))
def test_the_authors_targets(seed):
    boxes, labels = random_boxes(seed)
    targets = targets_of(boxes, labels)
    for image, count in enumerate(COUNTS):
        heatmap, rows = authors_loop(boxes[image], labels[image], (H, W), 4)
        assert_close(targets.heatmap[image], heatmap, rtol=1e-6, atol=0)
        assert targets.cell_index[image, :count].tolist() == rows[:, 0].tolist()
        assert_close(targets.offset[image, :count], rows[:, 1:3], rtol=0, atol=1e-5)
        assert_close(targets.size_wh[image, :count], rows[:, 3:], rtol=1e-6, atol=1e-6)
        assert targets.mask[image].sum() == count


@pytest.mark.parametrize('stride', [(4.0, 4.0), (3.3, 5.7)])
@pytest.mark.parametrize('seed', [0, 1, 3])  # no two objects in one cell
def test_targets_of_mmdet(mmdet_head, seed, stride):
    boxes, labels = random_boxes(seed, stride)
    image = (H * stride[1], W * stride[0])
    expected, count = mmdet_head.get_targets(boxes, labels, (B, C, H, W), image)
    targets = targets_of(boxes, labels, stride, radius_impl='mmdet')
    assert_close(targets.heatmap, expected['center_heatmap_target'], rtol=1e-6, atol=0)
    assert torch.equal(targets.heatmap == 1, expected['center_heatmap_target'] == 1)
    assert (targets.heatmap == 1).sum() == count
    found = targets.size_wh, targets.offset
    for name, values in zip(('wh_target', 'offset_target'), found):
        dense = gather_cells(expected[name], targets.cell_index, 2)
        assert_close(values[targets.mask], dense[targets.mask])
    assert targets.mask.sum() == expected['wh_offset_target_weight'].sum() / 2 == sum(COUNTS)


def test_objects_that_share_a_cell_are_all_kept():
    boxes = [torch.tensor([[0.0, 0.0, 40.0, 40.0], [10.0, 8.0, 31.0, 33.0]])]
    targets = targets_of(boxes, [torch.tensor([1, 1])])
    assert targets.cell_index.tolist() == [[5 * W + 5, 5 * W + 5]]
    assert targets.mask.all()
    assert_close(targets.size_wh, torch.tensor([[[10.0, 10.0], [5.25, 6.25]]]))
    assert (targets.heatmap == 1).sum() == 1
    larger = targets_of([boxes[0][:1]], [torch.tensor([1])])
    assert torch.equal(targets.heatmap, larger.heatmap)


def test_an_object_smaller_than_a_cell_is_one_cell():
    targets = one_box([9.0, 9.5, 10.0, 10.0])
    assert targets.heatmap.sum() == targets.heatmap[0, 0, 2, 2] == 1
    assert_close(targets.size_wh, torch.tensor([[[0.25, 0.125]]]))


def test_boxes_are_clipped_to_the_map():
    beyond, inside = one_box([-8, 4, 12, 99]), one_box([0, 4, 12, 24])
    for found, expected in zip(beyond[:-1], inside[:-1]):
        assert torch.equal(found, expected)


@pytest.mark.parametrize(
    'box',
    [[40, 0, 50, 9], [0, -9, 9, 0], [5, 5, 5, 9], [9, 5, 5, 9], [32, 24, 32, 24]],
    ids=['right of it', 'above it', 'no width', 'negative width', 'last corner'],
)
def test_without_area_on_the_map_there_is_no_object(box):
    targets = one_box(box)
    assert not targets.mask.any()
    assert all((part == 0).all() for part in targets[:-1])


def test_the_last_cell_holds_the_border():
    targets = one_box([31.999998, 23, 32, 24])
    assert targets.mask.all()
    assert targets.cell_index.tolist() == [[5 * 8 + 7]]
    assert targets.heatmap[0, 0, 5, 7] == 1


def test_padding_may_hold_anything():
    boxes, labels, valid = pad_objects(*random_boxes())
    clean = center_targets(boxes, labels, valid, C, (H, W), 4.0)
    boxes[~valid], labels[~valid] = math.nan, 10**9
    for found, expected in zip(
        center_targets(boxes, labels, valid, C, (H, W), 4.0)[:-1], clean[:-1]
    ):
        assert torch.equal(found, expected)
    assert (clean.heatmap[1] == 0).all()


@pytest.mark.parametrize('counts', [(0, 0), (0,)])
def test_no_objects_at_all(counts):
    ignore = torch.zeros(len(counts), 2, 4)
    targets = targets_of(*random_boxes(counts=counts), ignore_boxes=ignore)
    assert targets.heatmap.shape == (len(counts), C, H, W)
    assert (targets.heatmap == 0).all()
    assert (targets.weight == 1).all()
    assert targets.size_wh.shape == (len(counts), 0, 2)


def test_a_stride_per_axis():
    targets = one_box([8, 6, 16, 12], stride=(2.0, 3.0))
    assert targets.cell_index.tolist() == [[3 * 8 + 6]]
    assert_close(targets.size_wh, torch.tensor([[[4.0, 2.0]]]))


def test_ignore_regions_by_hand():
    # 4 px per cell: 5 to 12 px touches the columns 1 and 2, 7 to 9 px the rows 1 and 2. A region
    # of no area and padding touch nothing.
    regions = torch.tensor([[[5.0, 7, 12, 9], [20, 20, 20, 24], [0, 0, 0, 0]]])
    expected = torch.ones(1, 1, 6, 8)
    expected[..., 1:3, 1:3] = 0
    targets = one_box([24, 16, 28, 20], ignore_boxes=regions)
    assert_close(targets.weight, expected)


def test_an_object_in_an_ignore_region_keeps_its_cell():
    targets = one_box([4, 4, 8, 8], ignore_boxes=torch.tensor([[[0.0, 0, 12, 12]]]))
    expected = torch.ones(6, 8)
    expected[:3, :3] = 0
    expected[1, 1] = 1
    assert_close(targets.weight[0, 0], expected)


def test_ignore_regions_of_one_image_leave_the_others_alone():
    boxes, labels = random_boxes()
    regions = pad_rows([torch.zeros(0, 4), torch.tensor([[0.0, 0.0, 999.0, 999.0]]), boxes[2]])
    weight = targets_of(boxes, labels, ignore_boxes=regions).weight
    assert weight.shape == (B, 1, H, W)
    assert (weight[0] == 1).all()
    assert (weight[1] == 0).all()
    assert 0 < weight[2].sum() < H * W


def test_float64_stays_float64_and_half_becomes_float32():
    boxes, labels = random_boxes()
    wide = targets_of([box.double() for box in boxes], labels)
    assert wide.heatmap.dtype == wide.offset.dtype == torch.float64
    assert_close(wide.size_wh.float(), targets_of(boxes, labels).size_wh)
    half = targets_of([box.half() for box in boxes], labels)
    assert half.heatmap.dtype == half.size_wh.dtype == torch.float32


def test_autocast_changes_nothing():
    boxes, labels = random_boxes()
    options = dict(ignore_boxes=pad_rows(boxes))
    expected = targets_of(boxes, labels, **options)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = targets_of(boxes, labels, **options)
    assert all(torch.equal(*pair) for pair in zip(found, expected))


def test_one_graph_that_computes_the_same():
    padded = pad_objects(*random_boxes(), max_objects=10)

    def targets(boxes, labels, valid):
        return center_targets(boxes, labels, valid, C, (H, W), 4.0, ignore_boxes=boxes[:, :2])

    compiled = torch.compile(targets, fullgraph=True, backend='aot_eager')
    assert all(torch.equal(*pair) for pair in zip(compiled(*padded), targets(*padded)))


def test_no_sync_and_no_loop():
    def operators(seed, counts):
        boxes, labels = random_boxes(seed, counts=counts)
        with value_checks(False), NoSync(), Operators() as found:
            padded = pad_objects(boxes, labels, 12)
            center_targets(*padded, C, (H, W), 4.0, ignore_boxes=padded[0])
        return found.counts

    few, many = operators(0, (3, 2)), operators(1, (9, 12))
    assert few == many
    # Padding copies the tensor of each image.
    extra = operators(1, (9, 12, 4, 4)) - few
    assert set(extra) == {'aten.select.int', 'aten.slice.Tensor', 'aten.copy_.default'}


def test_nan_shows_in_the_targets():
    with value_checks(False):
        targets = one_box([math.nan, 4, 12, 12])
    assert targets.mask.all()
    assert targets.offset.isnan().any()
    assert targets.size_wh.isnan().any()
    assert targets.cell_index.tolist() == [[2 * 8]]


def test_values_are_checked_where_valid():
    with pytest.raises(ValueError, match=r'boxes must be finite, got \[nan, .* at index \(0, 0\)'):
        one_box([math.nan, 4, 12, 12])
    boxes, labels = random_boxes()
    labels[2][3] = C
    with pytest.raises(ValueError, match=r'labels must be within \[0, 4\), got 4 at index \(2, 3'):
        targets_of(boxes, labels)


@pytest.mark.parametrize(
    ('change', 'text'),
    [
        (dict(boxes=torch.zeros(2, 3)), r'boxes must have the shape \(B, N, 4\), got \(2, 3\)'),
        (dict(labels=torch.zeros(2, 4).long()), r'labels must have the shape \(2, 3\) of boxes'),
        (dict(valid=torch.ones(3).bool()), r'valid must have the shape \(2, 3\) of boxes, got'),
        (dict(num_classes=0), 'num_classes must be at least 1, got 0'),
        (dict(map_size_hw=(0, 4)), r'map_size_hw must be \(H, W\), both positive, got \(0, 4\)'),
        (dict(stride=0), r'stride must be positive, a number or \(x, y\), got 0'),
        (dict(stride=(1, 2, 3)), r'stride must be positive, .*got \(1, 2, 3\)'),
        (dict(ignore_boxes=torch.zeros(1, 2, 4)), r'ignore_boxes must have the shape \(2, M, 4\)'),
        (dict(radius_impl='official'), "radius_impl must be one of 'centernet', 'mmdet'"),
        (dict(min_overlap=1.5), r'min_overlap must be within \(0, 1\), got 1.5'),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else '',
)
def test_bad_arguments(change, text):
    arguments = dict(
        boxes=torch.zeros(2, 3, 4),
        labels=torch.zeros(2, 3).long(),
        valid=torch.ones(2, 3).bool(),
        num_classes=C,
        map_size_hw=(H, W),
        stride=4,
    )
    with pytest.raises(ValueError, match=text):
        center_targets(**{**arguments, **change})


def test_pad_objects():
    boxes, labels = random_boxes()
    padded, found, valid = pad_objects(boxes, labels)
    assert padded.shape == (B, 9, 4)
    assert valid.tolist() == [[n < count for n in range(9)] for count in COUNTS]
    for image, count in enumerate(COUNTS):
        assert torch.equal(padded[image, :count], boxes[image])
        assert torch.equal(found[image, :count], labels[image])
    assert (padded[~valid] == 0).all()
    assert (found[~valid] == 0).all()


@pytest.mark.parametrize('limit', [3, 9, 20])
def test_pad_objects_to_a_fixed_number(limit):
    boxes, labels = random_boxes()
    padded, found, valid = pad_objects(boxes, labels, max_objects=limit)
    assert padded.shape == (B, limit, 4)
    assert found.shape == valid.shape == (B, limit)
    assert valid.sum(1).tolist() == [min(count, limit) for count in COUNTS]
    assert torch.equal(padded[2, :limit][:9], boxes[2][:limit])


def test_a_label_of_minus_one_is_no_padding():
    valid = pad_objects([torch.zeros(2, 4)], [torch.tensor([-1, 3])])[2]
    assert valid.all()


def test_pad_objects_takes_labels_of_32_bits():
    found = pad_objects(
        [torch.ones(1, 4), torch.zeros(0, 4)], [torch.ones(1).int()] * 1 + [torch.zeros(0).int()]
    )
    assert found[1].tolist() == [[1], [0]]
    assert found[2].tolist() == [[True], [False]]


@pytest.mark.parametrize(
    ('boxes', 'labels'),
    [([], []), ([torch.zeros(2, 4)], [torch.zeros(3).long()]), ([torch.zeros(2, 4)], [])],
)
def test_pad_objects_refuses_what_does_not_match(boxes, labels):
    with pytest.raises(ValueError, match='pad_objects: labels must have the lengths'):
        pad_objects(boxes, labels)
