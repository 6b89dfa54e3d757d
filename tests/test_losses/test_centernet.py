"""RegL1Loss, CtdetLoss and ExdetLoss against the authors' formulas and MMDetection's head."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from mmdet.models.dense_heads import CenterNetHead
from mmdet.models.losses import L1Loss as MMDetL1Loss
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch.testing import assert_close

from mmloss_plugins import functional as F
from mmloss_plugins.losses import CtdetLoss, ExdetLoss, GaussianFocalLoss, MultiLoss, RegL1Loss
from mmloss_plugins.losses.centernet import EXTREMES
from mmloss_plugins.registry import MODELS
from tests.contract.test_device import NoSync

B, N, C, H, W = 3, 5, 4, 6, 7
STRIDE = 4.0


@pytest.fixture
def objects():
    """A map (B, 2C, H, W) and a target with padding; objects 0 and 1 share a cell."""
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(0, H * W, (B, N), generator=generator)
    index[:, 1] = index[:, 0]
    target = {
        'cell_index': index,
        'values': 3 * torch.rand(B, N, 2, generator=generator),
        'mask': torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0]]).bool(),
        'labels': torch.randint(0, C, (B, N), generator=generator),
    }
    return 4 * torch.randn(B, 2 * C, H, W, generator=generator), target


def gathered(pred, target, by_class=False):
    """Return predicted and labelled coordinates of the objects that count, in float64."""
    pairs = []
    for b in range(B):
        for n in range(N):
            if not target['mask'][b, n]:
                continue
            row, column = divmod(target['cell_index'][b, n].item(), W)
            first = 2 * target['labels'][b, n].item() if by_class else 0
            pairs.append((pred[b, first : first + 2, row, column], target['values'][b, n]))
    return (torch.stack(part).double() for part in zip(*pairs))


def test_by_hand():
    # Errors 1, 2 and 3, 4 of two objects and one of padding: 10 over 4 coordinates. Smooth:
    # 0.5 + 1.5 + 2.5 + 3.5 = 8 over 2 objects.
    pred = torch.zeros(1, 2, 1, 2)
    target = {
        'cell_index': torch.tensor([[0, 1, 0]]),
        'values': torch.tensor([[[1.0, -2.0], [3.0, 4.0], [99.0, 99.0]]]),
        'mask': torch.tensor([[True, True, False]]),
    }
    assert_close(RegL1Loss()(pred, target), torch.tensor(2.5))
    printed = RegL1Loss(penalty='smooth_l1', mean_over='objects')
    assert_close(printed(pred, target), torch.tensor(4.0))
    assert_close(RegL1Loss(mean_over='all')(pred, target), torch.tensor(10 / 6))


def test_the_forms_of_the_authors(objects):
    """Their sums end in a division by the count plus 1e-4."""
    pred, target = objects
    agnostic = pred[:, :2]
    x, t = gathered(pred, target)
    by_class, _ = gathered(pred, target, by_class=True)
    smooth = torch.nn.functional.smooth_l1_loss(x, t, reduction='sum')
    relative = x / (t + 1e-4) - 1
    for options, maps, total, count in (
        ({}, agnostic, (x - t).abs().sum(), t.numel()),
        ({'penalty': 'smooth_l1', 'mean_over': 'objects'}, agnostic, smooth, len(t)),
        ({'penalty': 'normalized'}, agnostic, relative.abs().sum(), t.numel()),
        ({'class_specific': True}, pred, (by_class - t).abs().sum(), t.numel()),
    ):
        expected = (total / (count + 1e-4)).float()
        assert_close(RegL1Loss(**options)(maps, target), expected, rtol=1e-4, atol=0)
        exact = RegL1Loss(**options, reduction='sum')(maps, target)
        assert_close(exact, total.float(), rtol=1e-6, atol=0)


def test_mmdets_dense_loss_with_twice_the_objects(objects):
    pred, target = objects
    pred, index = pred[:, :2], target['cell_index'].clone()
    index[:, 1] = (index[:, 0] + 1) % (H * W)
    target['cell_index'] = index
    values, weight = torch.zeros(B, 2, H, W), torch.zeros(B, 2, H, W)
    for b, n in target['mask'].nonzero().tolist():
        row, column = divmod(index[b, n].item(), W)
        values[b, :, row, column] = target['values'][b, n]
        weight[b, :, row, column] = 1
    count = target['mask'].sum()
    assert weight.sum() == 2 * count
    expected = MMDetL1Loss()(pred, values, weight, avg_factor=2 * count)
    assert_close(RegL1Loss()(pred, target), expected)


def test_dict_and_tuple_are_the_same(objects):
    pred, target = objects
    loss = RegL1Loss(class_specific=True)
    expected = loss(pred, target)
    assert_close(loss(pred, tuple(target.values())), expected)
    assert_close(loss(pred, list(target.values())), expected)
    every = {**target, 'mask': None}
    assert_close(RegL1Loss()(pred[:, :2], every), RegL1Loss()(pred[:, :2], (*every.values(),)[:2]))


@pytest.mark.parametrize('options', [{}, {'penalty': 'normalized'}, {'mean_over': 'objects'}])
def test_padding_may_hold_anything(objects, options):
    pred, target = objects
    pred = pred[:, :2].requires_grad_()
    loss = RegL1Loss(**options)
    clean = loss(pred, target)
    (slope,) = torch.autograd.grad(clean, pred)
    target['values'][~target['mask']] = torch.nan
    with F.value_checks(False):
        found = loss(pred, target)
    assert_close(found, clean, rtol=0, atol=0)
    assert_close(torch.autograd.grad(found, pred)[0], slope, rtol=0, atol=0)
    assert slope.isfinite().all()


def test_mask_and_weight_leave_objects_out_of_the_count(objects):
    pred, target = objects
    weight = torch.ones(B, N)
    weight[0, 0], weight[1, 2] = 0, 0.5
    mask = torch.ones(B, N).bool()
    mask[0, 3] = False
    total = RegL1Loss(reduction='sum')(pred[:, :2], target, weight, mask)
    for mean_over, count in (('valid', 12), ('objects', 6), ('all', B * N * 2)):
        loss = RegL1Loss(mean_over=mean_over)(pred[:, :2], target, weight, mask)
        assert_close(loss, total / count)


@pytest.mark.parametrize('mean_over', ['valid', 'objects'])
def test_no_object_in_the_batch(objects, mean_over):
    pred, target = objects
    pred = pred[:, :2].requires_grad_()
    target['mask'][:] = False
    value = RegL1Loss(mean_over=mean_over)(pred, target)
    value.backward()
    assert value == 0
    assert (pred.grad == 0).all()


def test_bad_targets(objects):
    pred, target = objects
    loss = RegL1Loss(class_specific=True)
    with pytest.raises(ValueError, match='target must hold cell_index, values, labels, got none o'):
        loss(pred, {**target, 'labels': None})
    with pytest.raises(ValueError, match=r'target mask must have the shape \(B, N\) = \(3, 5\)'):
        loss(pred, {**target, 'mask': target['mask'][:, :2]})
    with pytest.raises(ValueError, match='pred must have 2 channels for target'):
        RegL1Loss()(pred, target)
    with pytest.raises(TypeError, match='target must be a dict or a tuple of cell_index, values'):
        loss(pred, target['values'])


@pytest.fixture
def scene():
    """Maps of a head and boxes within the image, a list per image."""
    generator = torch.Generator().manual_seed(0)
    image = torch.tensor([W, H]) * STRIDE
    boxes = [
        torch.sort(torch.rand(count, 2, 2, generator=generator), 1)[0].mul(image).flatten(1)
        for count in (3, 0, 2)
    ]
    labels = [torch.randint(0, C, (len(box),), generator=generator) for box in boxes]
    maps = {
        'heatmap': torch.randn(B, C, H, W, generator=generator) - 2,
        'offset': torch.randn(B, 2, H, W, generator=generator),
        'size_wh': 3 * torch.randn(B, 2, H, W, generator=generator),
    }
    return maps, boxes, labels


def targets_of(boxes, labels, **options):
    return F.center_targets(*F.pad_objects(boxes, labels), C, (H, W), STRIDE, **options)


def test_ctdet_terms_are_those_of_mmdets_head(mmdet_scope, scene):
    maps, boxes, labels = scene
    targets = targets_of(boxes, labels, radius_impl='mmdet')
    assert len(set(targets.cell_index[targets.mask].tolist())) == 5
    head = CenterNetHead(4, 4, num_classes=C)
    size = (int(H * STRIDE), int(W * STRIDE))
    expected = head.loss_by_feat(
        [maps['heatmap'].sigmoid()],
        [maps['size_wh']],
        [maps['offset']],
        [InstanceData(bboxes=box, labels=label) for box, label in zip(boxes, labels)],
        [DetDataSample(metainfo={'batch_input_shape': size}).metainfo] * B,
    )
    found = CtdetLoss().terms(maps, targets)
    assert list(found) == ['loss_heatmap', 'loss_offset', 'loss_size']
    names = ('loss_center_heatmap', 'loss_offset', 'loss_wh')
    assert_close(list(found.values()), [expected[name] for name in names])


def test_ctdet_is_the_sum_of_its_terms(scene):
    maps, boxes, labels = scene
    targets = targets_of(boxes, labels)
    focal = GaussianFocalLoss()(maps['heatmap'], targets.heatmap)
    parts = targets.cell_index, targets.offset, targets.mask
    offset = RegL1Loss()(maps['offset'], parts)
    size = RegL1Loss()(maps['size_wh'], (targets.cell_index, targets.size_wh, targets.mask))
    expected = {'loss_heatmap': focal, 'loss_offset': offset, 'loss_size': 0.1 * size}
    assert_close(CtdetLoss().terms(maps, targets), expected)
    assert_close(CtdetLoss()(maps, targets), focal + offset + 0.1 * size)
    assert_close(CtdetLoss()(maps, targets._asdict()), focal + offset + 0.1 * size)
    weighted = CtdetLoss(heatmap_weight=2, offset_weight=3, size_weight=4, loss_weight=0.5)
    assert_close(weighted(maps, targets), 0.5 * (2 * focal + 3 * offset + 4 * size))


def test_stacks_are_averaged(scene):
    maps, boxes, labels = scene
    targets = targets_of(boxes, labels)
    other = {name: part.flip(0) for name, part in maps.items()}
    loss = CtdetLoss()
    terms = [loss.terms(stack, targets) for stack in (maps, other)]
    expected = {name: (terms[0][name] + terms[1][name]) / 2 for name in terms[0]}
    assert_close(loss.terms([maps, other], targets), expected)
    assert terms[0]['loss_heatmap'] != terms[1]['loss_heatmap']


def test_ignore_regions_silence_the_background(scene):
    maps, boxes, labels = scene
    everything = torch.tensor([[[0.0, 0, 999, 999]]]).expand(B, 1, 4)
    targets = targets_of(boxes, labels, ignore_boxes=everything)
    assert (targets.weight.flatten(1).sum(1) == torch.tensor([3, 0, 2])).all()
    heatmap = maps['heatmap'].requires_grad_()
    CtdetLoss()(maps, targets).backward()
    assert torch.equal(heatmap.grad.abs().sum(1, keepdim=True) > 0, targets.weight > 0)


def test_without_offsets(scene):
    maps, boxes, labels = scene
    loss = CtdetLoss(offset_weight=0)
    terms = loss.terms(
        {name: maps[name] for name in ('heatmap', 'size_wh')}, targets_of(boxes, labels)
    )
    assert list(terms) == ['loss_heatmap', 'loss_size']


def test_sizes_per_class_and_other_losses(scene):
    maps, boxes, labels = scene
    targets = targets_of(boxes, labels)
    maps['size_wh'] = torch.randn(B, 2 * C, H, W)
    config = dict(
        type='mmloss_plugins.CtdetLoss',
        size_loss=dict(type='mmloss_plugins.RegL1Loss', class_specific=True),
        heatmap_loss=dict(type='mmloss_plugins.GaussianFocalLoss', beta=2.0),
    )
    terms = MODELS.build(config).terms(maps, targets)
    target = targets.cell_index, targets.size_wh, targets.mask, targets.labels
    expected = RegL1Loss(class_specific=True)(maps['size_wh'], target)
    assert_close(terms['loss_size'], 0.1 * expected)
    assert_close(terms['loss_heatmap'], GaussianFocalLoss(beta=2)(maps['heatmap'], targets.heatmap))


def test_no_objects_still_trains_the_background(scene):
    maps, boxes, labels = scene
    none = targets_of([box[:0] for box in boxes], [label[:0] for label in labels])
    leaves = [part.requires_grad_() for part in maps.values()]
    CtdetLoss()(maps, none).backward()
    assert (leaves[0].grad > 0).all()
    assert all((leaf.grad == 0).all() for leaf in leaves[1:])


@pytest.fixture
def points():
    """Maps and targets of the five points, the extreme maps for all classes together."""
    generator = torch.Generator().manual_seed(0)
    maps, targets = {}, {}
    mask = torch.tensor([[1, 1], [1, 0], [0, 0]]).bool()
    for point in (*EXTREMES, 'center'):
        channels = C if point == 'center' else 1
        target = torch.rand(B, channels, H, W, generator=generator)
        target[:, 0, 2, 3] = 1
        targets[point] = {
            'heatmap': target,
            'cell_index': torch.randint(0, H * W, (B, 2), generator=generator),
            'offset': torch.rand(B, 2, 2, generator=generator),
            'mask': mask,
        }
        maps[point] = {'heatmap': torch.randn(B, channels, H, W, generator=generator)}
        if point != 'center':
            maps[point]['offset'] = torch.randn(B, 2, H, W, generator=generator)
    return maps, targets


def test_exdet_is_five_heatmaps_and_four_offsets(points):
    maps, targets = points
    expected = {}
    for point in (*EXTREMES, 'center'):
        of_map, target = maps[point], targets[point]
        expected[f'loss_heatmap_{point}'] = GaussianFocalLoss()(
            of_map['heatmap'], target['heatmap']
        )
        if point == 'center':
            continue
        values = target['cell_index'], target['offset'], target['mask']
        expected[f'loss_offset_{point}'] = RegL1Loss()(of_map['offset'], values)
    found = ExdetLoss().terms(maps, targets)
    assert len(found) == 9
    assert_close(found, {name: expected[name] for name in found})
    assert_close(ExdetLoss()(maps, targets), sum(expected.values()))
    assert_close(ExdetLoss(loss_weight=3)([maps, maps], targets), 3 * sum(expected.values()))
    halves = ExdetLoss(heatmap_weight=0.5, offset_weight=0.25).terms(maps, targets)
    assert_close(halves['loss_heatmap_left'], 0.5 * expected['loss_heatmap_left'])
    assert_close(halves['loss_offset_right'], 0.25 * expected['loss_offset_right'])


def test_extremenets_own_loss_is_an_option(points):
    maps, targets = points
    form = dict(type='mmloss_plugins.RegL1Loss', penalty='smooth_l1', mean_over='objects')
    found = ExdetLoss(offset_loss=form).terms(maps, targets)['loss_offset_bottom']
    target = targets['bottom']
    total = 0.0
    for b, n in target['mask'].nonzero().tolist():
        row, column = divmod(target['cell_index'][b, n].item(), W)
        x = maps['bottom']['offset'][b, :, row, column]
        total += torch.nn.functional.smooth_l1_loss(x, target['offset'][b, n], reduction='sum')
    assert_close(found, total / 3)


def test_a_term_of_multi_loss(scene):
    maps, boxes, labels = scene
    targets = targets_of(boxes, labels)
    loss = MultiLoss(terms=dict(detection=dict(type='mmloss_plugins.CtdetLoss')))
    assert_close(loss(maps, targets._asdict()), CtdetLoss()(maps, targets))


def test_no_sync_copies_and_one_graph(scene):
    maps, boxes, labels = scene
    targets = targets_of(boxes, labels)
    loss = pickle.loads(pickle.dumps(copy.deepcopy(CtdetLoss())))
    assert not loss.state_dict()
    with F.value_checks(False), NoSync():
        expected = loss(maps, targets)
    compiled = torch.compile(loss, fullgraph=True, backend='aot_eager')
    assert_close(compiled(maps, targets), expected)


@pytest.mark.parametrize('cls', [CtdetLoss, ExdetLoss])
def test_bad_options(cls):
    with pytest.raises(
        TypeError, match=f"{cls.__name__}: argument .* Did you mean 'offset_weight'"
    ):
        cls(ofset_weight=1.0)
    with pytest.raises(ValueError, match='offset_weight must be >= 0, got -1'):
        cls(offset_weight=-1)
    with pytest.raises(ValueError, match='heatmap_weight must be >= 0, got nan'):
        cls(heatmap_weight=float('nan'))
    weights = dict.fromkeys(('heatmap_weight', 'offset_weight', 'size_weight'), 0)
    weights = weights if cls is CtdetLoss else dict(list(weights.items())[:2])
    with pytest.raises(ValueError, match='factors must be above 0 for one term'):
        cls(**weights)


def test_missing_maps_are_named(scene, points):
    maps, boxes, labels = scene
    targets = targets_of(boxes, labels)
    with pytest.raises(ValueError, match=r"CtdetLoss: pred must hold 'size_wh', got 'heatmap', 'o"):
        CtdetLoss()({name: maps[name] for name in ('heatmap', 'offset')}, targets)
    with pytest.raises(ValueError, match="CtdetLoss: target must hold 'heatmap', got 'offset'"):
        CtdetLoss()(maps, {'offset': targets.offset})
    with pytest.raises(ValueError, match='pred must hold the maps of at least one stack'):
        CtdetLoss()([], targets)
    with pytest.raises(ValueError, match="ExdetLoss: pred must hold 'top', got 'heatmap'"):
        ExdetLoss()(maps, points[1])
    del points[1]['left']['cell_index']
    with pytest.raises(ValueError, match="ExdetLoss: target must hold 'cell_index', got"):
        ExdetLoss()(*points)
    with pytest.raises(ValueError, match="pred must hold 'heatmap', got Tensor"):
        CtdetLoss()([maps['heatmap']], targets)
