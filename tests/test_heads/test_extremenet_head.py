"""ExtremeNetHead: layers, loss on real packed samples, ignore regions, bad input, options."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from mmdet.datasets.transforms import PackDetInputs
from mmdet.engine.hooks import NumClassCheckHook
from mmdet.models.utils import gaussian_radius, gen_gaussian_target
from torch.testing import assert_close

from mmloss_plugins.functional import value_checks
from mmloss_plugins.heads import ExtremeNetHead
from mmloss_plugins.losses.centernet import EXTREMES
from mmloss_plugins.registry import MODELS
from tests.test_heads.extreme_cases import (
    CLASSES,
    HEIGHT,
    LABELS,
    POINTS,
    RINGS,
    STRIDE,
    WIDTH,
    H,
    W,
    build,
    detector,
    features,
    pack,
)

pytestmark = pytest.mark.usefixtures('mmdet_scope')

TERMS = [f'loss_{kind}_{side}' for side in EXTREMES for kind in ('heatmap', 'offset')]
TERMS.append('loss_heatmap_center')
# Of a cell whose probability is 0.5, on a peak or far from it: 0.5^2 ln 2.
CELL = 0.25 * math.log(2)
# All its points are in the cell (3, 5): x from 12 to 16, y from 20 to 24 px.
SMALL = [(13, 21), (15, 21.5), (14, 23)]


def zero_maps(batch=1, classes=CLASSES, agnostic=False):
    return {
        point: dict(
            heatmap=torch.zeros(batch, 1 if agnostic and point != 'center' else classes, H, W),
            offset=torch.zeros(batch, 2, H, W),
        )
        for point in POINTS
    }


def loss_of(head, maps, samples):
    return head.loss_by_feat(
        [maps],
        [sample.gt_instances for sample in samples],
        [sample.metainfo for sample in samples],
        [sample.ignored_instances for sample in samples],
    )


# --- layers -----------------------------------------------------------------------------------


@pytest.mark.parametrize('agnostic', [False, True])
def test_branches_and_prior(agnostic):
    head = build(class_agnostic=agnostic, num_stacks=2, prior_prob=0.2)
    (stacks,) = head(features(stacks=2))
    assert len(stacks) == 2
    for maps in stacks:
        assert set(maps) == set(POINTS)
        assert maps['center']['heatmap'].shape == (2, CLASSES, H, W)
        assert 'offset' not in maps['center']
        for side in EXTREMES:
            assert maps[side]['heatmap'].shape == (2, 1 if agnostic else CLASSES, H, W)
            assert maps[side]['offset'].shape == (2, 2, H, W)
            assert maps[side]['offset'].abs().max() < 0.01
    for stack in head.stacks:
        for point in POINTS:
            bias = stack[f'{point}_heatmap'][-1].bias
            assert_close(bias.sigmoid(), torch.full_like(bias, 0.2))


def test_another_number_of_feature_maps_than_stacks():
    with pytest.raises(ValueError, match='x must be num_stacks=2 feature maps, got 1'):
        build(num_stacks=2)(features())


# --- loss -------------------------------------------------------------------------------------


def test_one_small_object_by_hand():
    losses = loss_of(build(), zero_maps(), [pack([SMALL], [1])])
    assert sorted(losses) == sorted(TERMS)
    for point in POINTS:
        # One positive cell and the background of 3 * 16 * 20 - 1 cells, all at 0.5.
        assert_close(losses[f'loss_heatmap_{point}'], torch.tensor(CLASSES * H * W * CELL))
    # Top (13, 21): 0.25 and 0.25 cells from the corner of its cell. Right (15, 21.5): 0.75, 0.375.
    assert_close(losses['loss_offset_top'], torch.tensor(0.25))
    assert_close(losses['loss_offset_right'], torch.tensor(0.5625))


def test_class_agnostic_by_hand():
    head = build(class_agnostic=True)
    losses = loss_of(head, zero_maps(agnostic=True), [pack([SMALL], [1])])
    assert_close(losses['loss_heatmap_left'], torch.tensor(H * W * CELL))
    assert_close(losses['loss_heatmap_center'], torch.tensor(CLASSES * H * W * CELL))


def loss_by_loops(maps, samples):
    """Each term in float64, object by object, with the Gaussians of MMDetection."""
    targets = {point: torch.zeros(len(samples), CLASSES, H, W) for point in POINTS}
    errors = {side: [] for side in EXTREMES}
    for i, sample in enumerate(samples):
        instances = sample.gt_instances
        for four, label in zip(instances.extreme_points.tolist(), instances.labels.tolist()):
            four = [(x / STRIDE, y / STRIDE) for x, y in four]
            (_, y1), (x1, _), (_, y2), (x2, _) = four
            radius = max(0, int(gaussian_radius(torch.tensor((y2 - y1, x2 - x1)), 0.3)))
            for point, (x, y) in zip(POINTS, [*four, ((x1 + x2) / 2, (y1 + y2) / 2)]):
                cell = min(int(x), W - 1), min(int(y), H - 1)
                gen_gaussian_target(targets[point][i, label], cell, radius)
                if point != 'center':
                    found = maps[point]['offset'][i, :, cell[1], cell[0]].tolist()
                    errors[point] += [abs(found[k] + cell[k] - at) for k, at in ((0, x), (1, y))]
    losses = {f'loss_offset_{side}': np.mean(errors[side]) for side in EXTREMES}
    for point, target in targets.items():
        p, target = maps[point]['heatmap'].detach().double().sigmoid(), target.double()
        positive = target == 1
        terms = torch.where(
            positive, (1 - p) ** 2 * p.log(), (1 - target) ** 4 * p**2 * (1 - p).log()
        )
        losses[f'loss_heatmap_{point}'] = -terms.sum().item() / positive.sum().item()
    return losses


def test_loss_on_packed_samples_is_that_of_loops():
    head = build(radius_impl='mmdet')
    samples = [pack(), pack(RINGS[1:], [1, 0])]
    feats = features()
    losses = head.loss(feats, samples)
    expected = loss_by_loops(head(feats)[0][0], samples)
    assert set(losses) == set(expected)
    for name, value in losses.items():
        assert_close(value.item(), expected[name], rtol=1e-5, atol=1e-6)
    sum(losses.values()).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in head.parameters())


def test_two_stacks_are_averaged():
    head = build(num_stacks=2)
    samples = [pack(), pack(RINGS[1:], [1, 0])]
    (stacks,) = head(features(stacks=2))
    losses = head.loss(features(stacks=2), samples)
    each = [loss_of(head, maps, samples) for maps in stacks]
    for name, value in losses.items():
        assert_close(value, (each[0][name] + each[1][name]) / 2)
    assert each[0]['loss_heatmap_top'] != each[1]['loss_heatmap_top']


def test_the_authors_recipe_through_a_config():
    regression = dict(type='mmloss_plugins.RegL1Loss', penalty='smooth_l1', mean_over='objects')
    head = build(
        loss=dict(type='mmloss_plugins.ExdetLoss', offset_loss=regression),
        test_cfg=dict(ghosts=dict(ratio=3.0, include_self=True, order='sequential')),
    )
    maps = zero_maps()
    maps['top']['offset'][:, 0] = 3.25
    losses = loss_of(head, maps, [pack([SMALL, RINGS[1]], [1, 0])])
    # Smooth-L1 of one object over the number of objects, 2. Top (13, 21): 3.25 - 0.25 = 3 gives
    # 2.5, 0.25 gives 0.03125. Top (45, 8.25): 3.25 - 0.25 gives 2.5, 0.0625^2 / 2 = 0.00195.
    assert_close(losses['loss_offset_top'], torch.tensor((5 + 0.03125 + 0.001953125) / 2))


def test_of_a_mask_that_disagrees_with_its_box_the_mask_counts():
    head = build()
    apart = pack(boxes=[[0, 0, 70, 60], [1, 1, 2, 2], [0, 30, 9, 40]])
    losses, expected = (head.loss(features(1), [sample]) for sample in (apart, pack()))
    for name in TERMS:
        assert_close(losses[name], expected[name])


def test_objects_without_a_mask_have_the_points_of_their_box():
    empty = pack([[(20, 30)] * 3], [1], boxes=[[8, 12, 28, 40]])
    assert empty.gt_instances.extreme_points[0].tolist() == [[18, 12], [8, 26], [18, 40], [28, 26]]
    maps = zero_maps()
    maps['left']['offset'][0, 1, 6, 2] = 0.5
    # Left (8, 26) lies at (2, 6.5) cells.
    assert loss_of(build(), maps, [empty])['loss_offset_left'] == 0


def test_the_training_step_reads_the_offsets_of_the_points_alone():
    """It gives the loss and the gradients of whole maps."""
    head, samples = build(), [pack(), pack(RINGS[1:], [1, 0])]
    for stack in head.stacks:
        for side in EXTREMES:
            torch.nn.init.normal_(stack[f'{side}_offset'][-1].weight)
    gradients = []
    for losses in (head.loss(features(), samples), loss_of(head, head(features())[0][0], samples)):
        head.zero_grad()
        sum(losses.values()).backward()
        gradients.append([parameter.grad.clone() for parameter in head.parameters()])
    assert_close(*gradients)


@pytest.mark.parametrize('batch', [1, 2])
def test_images_without_objects(batch):
    head = build()
    samples = [pack([], []) for _ in range(batch)]
    losses = head.loss(features(batch), samples)
    for name, value in losses.items():
        assert value > 0 if 'heatmap' in name else value == 0
    sum(losses.values()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in head.parameters())
    # At zero logits: all of the background, over 1.
    losses = loss_of(head, zero_maps(batch), samples)
    assert_close(losses['loss_heatmap_top'], torch.tensor(batch * CLASSES * H * W * CELL))


def test_one_image_without_objects_beside_another():
    losses = loss_of(build(), zero_maps(2), [pack([], []), pack([SMALL], [1])])
    assert_close(losses['loss_heatmap_top'], torch.tensor(2 * CLASSES * H * W * CELL))
    assert_close(losses['loss_offset_top'], torch.tensor(0.25))


def test_more_objects_than_max_objects():
    head = build(max_objects=2)
    losses = head.loss(features(), [pack(), pack([], [])])
    for number in (2, 9, None):
        head.max_objects = number
        expected = head.loss(features(), [pack(RINGS[:2], LABELS[:2]), pack([], [])])
        for name in TERMS:
            assert_close(losses[name], expected[name])
    assert head.loss(features(), [pack(), pack([], [])])['loss_heatmap_top'] != losses[TERMS[0]]


# --- ignore regions ---------------------------------------------------------------------------


def test_a_crowd_is_no_background():
    # From (8, 40) to (24, 52) px: cells 2 to 5 in the rows 10 to 12, that is 12 cells.
    crowd = [(8, 40), (24, 40), (24, 52)]
    sample = pack([SMALL, crowd], [1, 2], ignore=[False, True])
    assert len(sample.gt_instances) == len(sample.ignored_instances) == 1
    losses = loss_of(build(), zero_maps(), [sample])
    for point in POINTS:
        cells = CLASSES * (H * W - 12)
        assert_close(losses[f'loss_heatmap_{point}'], torch.tensor(cells * CELL))
    assert_close(losses['loss_offset_top'], torch.tensor(0.25))


def test_peaks_in_a_crowd_count_each_in_its_own_map():
    crowd = [(0, 0), (80, 0), (80, 64), (0, 64)]
    sample = pack([*RINGS[:2], crowd], [0, 1, 2], ignore=[False, False, True])
    losses = loss_of(build(), zero_maps(), [sample])
    # Two objects; of all classes, two cells of the map. They are background in four of six:
    # 6 cells over 2 objects, at 0.5; no cell lies in the Gaussian of the other object.
    for point in POINTS:
        assert_close(losses[f'loss_heatmap_{point}'], torch.tensor(6 * CELL / 2))


def test_crowds_of_one_image_leave_the_others_alone():
    crowd = [(0, 0), (80, 0), (80, 64), (0, 64)]
    samples = [pack([crowd], [2], ignore=[True]), pack([SMALL], [1])]
    losses = loss_of(build(), zero_maps(2), samples)
    assert_close(losses['loss_heatmap_left'], torch.tensor(CLASSES * H * W * CELL))


# --- half precision ---------------------------------------------------------------------------


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast(dtype):
    head, samples = build(), [pack(), pack(RINGS[1:], [1, 0])]
    expected = head.loss(features(), samples)
    with torch.autocast('cpu', dtype=dtype):
        losses = head.loss(features(), samples)
        results = head.predict(features(), samples)
    for name in TERMS:
        assert losses[name].dtype == torch.float32
        assert_close(losses[name], expected[name], rtol=0.02, atol=0.02)
    sum(losses.values()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in head.parameters())
    assert all(result.scores.dtype == torch.float32 for result in results)


# --- mistakes ---------------------------------------------------------------------------------


def test_samples_without_extreme_points_name_the_transforms():
    sample = pack()
    del sample.gt_instances.extreme_points
    text = (
        r"gt_instances must have 'extreme_points', got \['bboxes', 'labels', 'masks'\]. "
        'End the pipeline with AddExtremePoints and PackExtremePoints'
    )
    with pytest.raises(ValueError, match=text):
        build().loss(features(1), [sample])


def test_the_host_s_packing_leaves_the_points_out():
    results = dict(
        img=np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8),
        gt_bboxes=np.ones((1, 4), dtype=np.float32),
        gt_bboxes_labels=np.array([1]),
        gt_extreme_points=np.ones((1, 4, 2), dtype=np.float32),
    )
    sample = PackDetInputs(meta_keys=())(results)['data_samples']
    sample.set_metainfo(dict(batch_input_shape=(HEIGHT, WIDTH)))
    with pytest.raises(ValueError, match='PackExtremePoints'):
        build().loss(features(1), [sample])


def test_a_point_that_is_nan_shows():
    sample = pack()
    sample.gt_instances.extreme_points[1, 2] = float('nan')
    with pytest.raises(ValueError, match=r'points must be finite, got .*Look at the masks'):
        build().loss(features(1), [sample])
    with value_checks(False):
        losses = build().loss(features(1), [sample])
    assert losses['loss_offset_bottom'].isnan()
    assert losses['loss_offset_top'].isfinite()


def test_classes_that_do_not_match():
    sample = pack(labels=[0, 2, 5])
    with pytest.raises(ValueError, match=r'labels must be within \[0, 3\), got 5 .*num_classes'):
        build().loss(features(1), [sample])

    class Runner:
        model = detector()

    class Loader:
        class dataset:  # noqa: N801
            metainfo = dict(classes=('a', 'b'))

    Runner.train_dataloader = Loader
    # Before training starts.
    with pytest.raises(AssertionError, match='num_classes'):
        NumClassCheckHook()._check_head(Runner, 'train')


@pytest.mark.parametrize(
    ('options', 'error', 'text'),
    [
        (dict(num_class=3), TypeError, 'argument must be one of'),
        (dict(class_agnostics=True), TypeError, "Did you mean 'class_agnostic'"),
        (dict(num_classes=0), ValueError, 'num_classes must be an integer >= 1'),
        (dict(max_objects=0), ValueError, 'max_objects must be an integer >= 1, got 0'),
        (dict(radius_impl='cornernet'), ValueError, "radius_impl must be one of 'centernet'"),
        (dict(min_overlap=1.0), ValueError, r'min_overlap must be within \(0, 1\)'),
        (dict(prior_prob=0.0), ValueError, r'prior_prob must be in \(0, 1\)'),
        (dict(test_cfg=dict(top_k=40)), TypeError, "Did you mean 'topk'"),
        (dict(test_cfg=dict(topk=0)), ValueError, 'topk must be an integer >= 1, got 0'),
        (dict(test_cfg=dict(center_thr=2)), ValueError, r'center_thr must be within \[0, 1\]'),
        (dict(test_cfg=dict(ghosts=dict(ration=3))), TypeError, "Did you mean 'ratio'"),
        (dict(test_cfg=dict(ghosts=dict(ratio=0))), ValueError, 'ratio must be > 0, got 0'),
        (
            dict(test_cfg=dict(ghosts=dict(order='best'))),
            ValueError,
            "order must be one of 'joint'",
        ),
    ],
)
def test_bad_options(options, error, text):
    with pytest.raises(error, match=text):
        build(**options)


def test_resolves_from_the_registry():
    assert MODELS.get('mmloss_plugins.ExtremeNetHead') is ExtremeNetHead
