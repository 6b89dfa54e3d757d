"""AddExtremePoints and PackExtremePoints in real pipelines of MMDetection."""

from __future__ import annotations

import copy
import pickle

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmdet.registry import TRANSFORMS as MMDET_TRANSFORMS
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from mmengine.registry import TRANSFORMS as ROOT
from mmengine.registry import init_default_scope

from mmloss_plugins.datasets import AddExtremePoints, PackExtremePoints

HEIGHT, WIDTH = 40, 60
ADD = dict(type='mmloss_plugins.AddExtremePoints')
PACK = dict(type='mmloss_plugins.PackExtremePoints')


@pytest.fixture(autouse=True)
def mmdet_scope():
    init_default_scope('mmdet')


def bitmap(*lines):
    """A mask drawn with characters, '#' where the object is."""
    return np.array([[character == '#' for character in line] for line in lines], dtype=np.uint8)


def points_of(mask, **options):
    """The points that the transform finds on one bitmap, whose box is the whole image."""
    height, width = mask.shape
    box = np.array([[0, 0, width, height]], dtype=np.float32)
    results = dict(gt_masks=BitmapMasks(mask[None], height, width), gt_bboxes=box)
    return AddExtremePoints(**options)(results)['gt_extreme_points'][0].tolist()


def points_of_polygons(*rings, **options):
    flat = [np.array(ring, dtype=np.float32).flatten() for ring in rings]
    results = dict(
        gt_masks=PolygonMasks([flat], HEIGHT, WIDTH),
        gt_bboxes=np.array([[1, 2, 3, 4]], dtype=np.float32),
    )
    return AddExtremePoints(**options)(results)['gt_extreme_points'][0].tolist()


# --- by hand ----------------------------------------------------------------------------------


def test_bitmap_by_hand():
    mask = bitmap(
        '......',
        '...#..',
        '.###..',
        '.####.',
        '..#...',
    )
    # Top: column 3, whose middle is 3.5, at the upper side of row 1. Left: rows 2 and 3, middle
    # 3, at x 1. Bottom: column 2, at the lower side of row 4. Right: row 3, right side of column 4.
    expected = [[3.5, 1], [1, 3], [2.5, 5], [5, 3.5]]
    assert points_of(mask) == expected
    assert points_of(mask * 255) == expected


def test_one_pixel():
    assert points_of(bitmap('..', '.#')) == [[1.5, 1], [1, 1.5], [1.5, 2], [2, 1.5]]


def test_of_several_parts_of_an_edge_the_longest_counts():
    mask = bitmap(
        '#..###',
        '######',
    )
    assert points_of(mask)[0] == [4.5, 0]


def test_the_tolerance_takes_in_what_is_connected_and_nearly_extreme():
    mask = np.zeros((100, 50), dtype=np.uint8)
    mask[10:90, 20:30] = 1  # 80 rows high with what follows
    mask[11, 30:40] = 1  # one row lower, touching: 1.25 % of the height
    mask[11, 42:48] = 1  # one row lower and apart
    assert points_of(mask, tolerance=0.0)[0] == [25, 10]
    assert points_of(mask)[0] == [30, 10]
    assert points_of(mask, tolerance=0.01)[0] == [25, 10]


def test_polygon_by_hand():
    # A kite with a flat top from (10, 2) to (20, 2): its middle is 15.
    ring = [(10, 2), (20, 2), (32.5, 14), (18, 30), (4, 12)]
    assert points_of_polygons(ring) == [[15, 2], [4, 12], [18, 30], [32.5, 14]]


@pytest.mark.parametrize('first', range(5))
@pytest.mark.parametrize('backwards', [False, True])
def test_a_polygon_starts_anywhere_and_runs_either_way(first, backwards):
    # (10, 2.4) is 0.4 below the top, within 2 % of a height of 28; (30, 2.4) is not connected.
    ring = [(10, 2.4), (20, 2), (25, 14), (30, 30), (4, 12)]
    ring = ring[first:] + ring[:first]
    ring = ring[::-1] if backwards else ring
    assert points_of_polygons(ring) == [[15, 2], [4, 12], [30, 30], [30, 30]]
    assert points_of_polygons(ring, tolerance=0.0)[0] == [20, 2]


def test_the_parts_of_an_object_count_together_but_are_not_joined():
    left = [(0, 10), (10, 10), (10, 20)]
    right = [(30, 10.1), (50, 10.1), (40, 38)]
    # The top is that of the left part alone: 10 to 20 would be joined over a gap.
    assert points_of_polygons(left, right) == [
        [5, 10],
        [0, 10],
        [40, 38],
        [50, pytest.approx(10.1)],
    ]


@pytest.mark.parametrize('seed', range(5))
def test_polygon_and_bitmap_of_an_ellipse_agree(seed):
    rng = np.random.default_rng(seed)
    centre, axes = rng.integers(80, 120, 2), rng.integers(30, 60, 2)
    ring = cv2.ellipse2Poly(
        tuple(map(int, centre)), tuple(map(int, axes)), int(rng.integers(180)), 0, 360, 2
    )
    mask = np.zeros((200, 200), dtype=np.uint8)
    cv2.fillPoly(mask, [ring], 1)
    expected = np.array(points_of_polygons(ring)) + 0.5  # fillPoly includes both end pixels
    assert np.abs(points_of(mask) - expected).max() < 5
    # Along its own axis a point is exact, apart from the width of a pixel.
    for side, axis in enumerate((1, 0, 1, 0)):
        assert abs(points_of(mask)[side][axis] - expected[side, axis]) <= 0.5


# --- in pipelines -----------------------------------------------------------------------------


def record(kind='bitmap', ignore=(False, False, False)):
    """Results of an image with a triangle, a bar and an object whose mask is empty."""
    rings = [[(10, 5), (30, 20), (12, 35)], [(40, 8), (55, 8), (55, 12), (40, 12)]]
    polygons = [[np.array(ring, dtype=np.float32).flatten()] for ring in rings]
    boxes = [[10, 5, 30, 35], [40, 8, 55, 12], [2, 4, 6, 20]]
    polygons.append([np.array([2, 4, 2, 4], dtype=np.float32)])
    masks = PolygonMasks(polygons, HEIGHT, WIDTH)
    if kind == 'bitmap':
        drawn = np.zeros((3, HEIGHT, WIDTH), dtype=np.uint8)
        for plane, ring in zip(drawn, rings):
            cv2.fillPoly(plane, [np.array(ring) - [0, 0]], 1)
        masks = BitmapMasks(drawn, HEIGHT, WIDTH)
    return dict(
        img=np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8),
        img_shape=(HEIGHT, WIDTH),
        gt_bboxes=HorizontalBoxes(torch.tensor(boxes, dtype=torch.float32)),
        gt_bboxes_labels=np.array([0, 1, 2]),
        gt_ignore_flags=np.array(ignore),
        gt_masks=masks,
    )


def run(results, *before):
    return Compose([*before, ADD])(results)['gt_extreme_points']


@pytest.mark.parametrize('kind', ['bitmap', 'polygon'])
def test_an_empty_mask_gets_the_points_of_its_box(kind):
    points = run(record(kind))
    assert points.shape == (3, 4, 2)
    assert points.dtype == np.float32
    assert points[2].tolist() == [[4, 4], [2, 12], [4, 20], [6, 12]]
    assert points[0, 0, 1] == 5


def annotated(**second):
    """Points from the annotations of two objects of an image, as MMDetection loads them."""
    box = [10.0, 5, 30, 35]
    first = dict(mask=[[10.0, 5, 30, 20, 12, 35]])
    instances = [dict(bbox=box, bbox_label=0, ignore_flag=0, **more) for more in (first, second)]
    results = dict(instances=instances, ori_shape=(HEIGHT, WIDTH), img_shape=(HEIGHT, WIDTH))
    load = dict(type='LoadAnnotations', with_bbox=True, with_mask=True, poly2mask=False)
    return run(results, load)


def test_an_object_without_a_mask_is_annotated_with_the_corners_of_its_box():
    with pytest.raises(KeyError, match='mask'):
        annotated()
    first, second = annotated(mask=[[10.0, 5, 30, 5, 30, 35, 10, 35]])
    assert first.tolist() == [[10, 5], [10, 5], [12, 35], [30, 20]]
    assert second.tolist() == [[20, 5], [10, 20], [20, 35], [30, 20]]


def test_polygons_give_the_corners_of_the_triangle():
    assert run(record('polygon'))[0].tolist() == [[10, 5], [10, 5], [12, 35], [30, 20]]


@pytest.mark.parametrize('kind', ['bitmap', 'polygon'])
def test_a_flip_mirrors_the_points_and_swaps_left_and_right(kind):
    flip = dict(type='RandomFlip', prob=1.0, direction='horizontal')
    plain, flipped = run(record(kind)), run(record(kind), flip)
    mirrored = plain[:, [0, 3, 2, 1]]
    mirrored[..., 0] = WIDTH - mirrored[..., 0]
    np.testing.assert_allclose(flipped, mirrored, atol=1e-4)


def test_a_resize_scales_the_points_of_polygons():
    resize = dict(type='Resize', scale=(WIDTH * 2, HEIGHT * 2), keep_ratio=False)
    np.testing.assert_allclose(
        run(record('polygon'), resize), 2 * run(record('polygon')), atol=1e-4
    )


@pytest.mark.parametrize('kind', ['bitmap', 'polygon'])
def test_after_a_crop_the_points_are_those_of_what_is_left(kind):
    results = record(kind)
    crop = dict(
        type='RandomCrop', crop_size=(20, 25), crop_type='absolute', allow_negative_crop=False
    )
    np.random.seed(2)  # noqa: NPY002 (what the host draws from)
    results = Compose([crop, ADD])(results)
    points, boxes = results['gt_extreme_points'], results['gt_bboxes'].tensor.numpy()
    assert len(points) == len(boxes) > 0
    assert (points >= 0).all()
    height, width = results['img_shape'][:2]
    assert (height, width) != (HEIGHT, WIDTH)
    assert (points <= [width, height]).all()
    # Each point lies on its side of the box of the mask.
    spans = results['gt_masks'].get_bboxes(dst_type='hbox').tensor.numpy()
    for span, (top, left, bottom, right) in zip(spans, points):
        if (span[2:] > span[:2]).all():
            found = [left[0], top[1], right[0], bottom[1]]
            np.testing.assert_allclose(found, span, atol=1e-3)


def test_where_mask_and_box_disagree_the_mask_counts():
    results = record('polygon')
    results['gt_bboxes'].tensor[0] = torch.tensor([0.0, 0, 60, 40])
    assert run(results)[0, 3].tolist() == [30, 20]


@pytest.mark.parametrize('wrapped', [True, False])
def test_from_boxes_the_points_are_the_middles_of_the_edges(wrapped):
    results = record()
    del results['gt_masks']
    if not wrapped:
        results['gt_bboxes'] = results['gt_bboxes'].tensor.numpy()
    points = AddExtremePoints(source='boxes')(results)['gt_extreme_points']
    assert points[0].tolist() == [[20, 5], [10, 20], [20, 35], [30, 20]]


@pytest.mark.parametrize('source', ['masks', 'boxes'])
def test_an_image_without_objects(source):
    results = dict(
        gt_bboxes=np.zeros((0, 4), dtype=np.float32),
        gt_masks=BitmapMasks(np.zeros((0, 4, 5), dtype=np.uint8), 4, 5),
    )
    assert AddExtremePoints(source=source)(results)['gt_extreme_points'].shape == (0, 4, 2)


def test_packed_with_the_ignored_boxes_apart():
    results = record('polygon', ignore=(False, True, False))
    expected = torch.from_numpy(run(record('polygon')))
    packed = Compose([ADD, PACK])(results)
    sample = packed['data_samples']
    assert packed['inputs'].shape == (3, HEIGHT, WIDTH)
    assert torch.equal(sample.gt_instances.extreme_points, expected[[0, 2]])
    assert torch.equal(sample.ignored_instances.extreme_points, expected[[1]])
    assert sample.gt_instances.labels.tolist() == [0, 2]
    assert sample.img_shape == (HEIGHT, WIDTH)


def test_packed_without_flags_and_with_other_meta_keys():
    results = record()
    del results['gt_ignore_flags']
    sample = Compose([ADD, dict(PACK, meta_keys=['flip'])])(results | dict(flip=True))[
        'data_samples'
    ]
    assert len(sample.gt_instances.extreme_points) == 3
    assert len(sample.ignored_instances.extreme_points) == 0
    assert sample.metainfo == dict(flip=True)


# --- mistakes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('transform', 'key', 'text'),
    [
        (ADD, 'gt_masks', "have 'gt_masks', got .*with_mask=True.*source='boxes'"),
        (ADD, 'gt_bboxes', "have 'gt_bboxes', got .*with_bbox=True"),
        (PACK, None, "have 'gt_extreme_points', got .*Put AddExtremePoints right before"),
    ],
)
def test_missing_keys(transform, key, text):
    results = record()
    results.pop(key, None)
    with pytest.raises(ValueError, match=text):
        Compose([transform])(results)


def test_another_number_of_masks_or_points_than_boxes():
    results = record()
    results['gt_masks'] = results['gt_masks'][:2]
    with pytest.raises(ValueError, match='gt_masks must be one per box, 3, got 2'):
        run(results)
    results = AddExtremePoints()(record())
    results['gt_bboxes'] = results['gt_bboxes'][:2]
    with pytest.raises(ValueError, match='gt_extreme_points must have one entry per box, 2, got 3'):
        PackExtremePoints()(results)


@pytest.mark.parametrize(
    ('cls', 'options', 'error', 'text'),
    [
        (AddExtremePoints, dict(source='polygons'), ValueError, "source must be one of 'masks', "),
        (AddExtremePoints, dict(tolerance=1.0), ValueError, r'tolerance must be within \[0, 1\)'),
        (AddExtremePoints, dict(tolerance=True), ValueError, 'tolerance must be within'),
        (AddExtremePoints, dict(tolerence=0.1), TypeError, "Did you mean 'tolerance'"),
        (PackExtremePoints, dict(meta_key=()), TypeError, "Did you mean 'meta_keys'"),
    ],
)
def test_bad_arguments(cls, options, error, text):
    with pytest.raises(error, match=text):
        cls(**options)


def test_resolve_from_every_registry_copy_and_pickle():
    for registry in (ROOT, MMDET_TRANSFORMS):
        assert type(registry.build(ADD)) is AddExtremePoints
        assert type(registry.build(PACK)) is PackExtremePoints
    add = AddExtremePoints(tolerance=0.05)
    for other in (add, copy.deepcopy(add), pickle.loads(pickle.dumps(add))):
        assert repr(other) == "AddExtremePoints(source='masks', tolerance=0.05)"
    pack = pickle.loads(pickle.dumps(PackExtremePoints(meta_keys=('flip',))))
    assert repr(pack) == "PackExtremePoints(meta_keys=('flip',))"
