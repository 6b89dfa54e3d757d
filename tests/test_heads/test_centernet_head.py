"""CenterNetHead: MMDetection's checkpoints and losses, cells of objects, stacks, ignore regions."""

from __future__ import annotations

import pytest
import torch
from mmengine.runner import load_checkpoint
from torch.testing import assert_close

from mmloss_plugins.functional import value_checks
from mmloss_plugins.losses import CtdetLoss, GaussianFocalLoss, RegL1Loss
from tests.contract.test_device import NoSync
from tests.test_heads.centernet_cases import (
    BOXES,
    CLASSES,
    LABELS,
    MAP,
    build,
    build_mmdet,
    dense_loss,
    features,
    gradients,
    pair,
    sample,
    samples,
    stirred,
)

pytestmark = pytest.mark.usefixtures('mmdet_scope')
TERMS = ['loss_heatmap', 'loss_offset', 'loss_size']
THEIRS = {
    'loss_heatmap': 'loss_center_heatmap',
    'loss_offset': 'loss_offset',
    'loss_size': 'loss_wh',
}


# --- weights ----------------------------------------------------------------------------------


def test_a_checkpoint_of_mmdet_gives_its_maps():
    ours, theirs = pair()
    ((maps,),) = ours(features())
    (heatmap,), (wh,), (offset,) = theirs(features())
    assert_close(maps['heatmap'].sigmoid(), heatmap)
    assert_close(maps['size_wh'], wh)
    assert_close(maps['offset'], offset)


def test_a_checkpoint_file_of_mmdet_in_a_detector(tmp_path):
    theirs, model = build_mmdet(), torch.nn.Module()
    state = {f'bbox_head.{name}': value for name, value in theirs.state_dict().items()}
    torch.save({'state_dict': state}, tmp_path / 'centernet.pth')
    model.bbox_head = build()
    load_checkpoint(model, str(tmp_path / 'centernet.pth'), strict=True)
    assert_close(model.bbox_head.stacks[0]['heatmap'][0].weight, theirs.heatmap_head[0].weight)
    assert_close(model.bbox_head.stacks[0]['size_wh'][2].bias, theirs.wh_head[2].bias)


def test_our_own_checkpoint_and_no_constants_in_it():
    trained, head = stirred(build(num_stacks=2)), build(num_stacks=2)
    head.load_state_dict(trained.state_dict())
    assert_close(dict(head.named_parameters()), dict(trained.named_parameters()))
    assert list(trained.state_dict()) == [name for name, _ in trained.named_parameters()]


def test_weights_start_as_in_mmdet():
    head = build(num_stacks=2, prior_prob=0.2)
    for stack in head.stacks:
        assert_close(stack['heatmap'][-1].bias.sigmoid(), torch.full((CLASSES,), 0.2))
        assert stack['heatmap'][0].weight.std() > 0.03
        for name in ('offset', 'size_wh'):
            assert 0 < stack[name][0].weight.std() < 0.0015
            assert (stack[name][-1].bias == 0).all()
    # The authors' bias.
    assert_close(build().stacks[0]['heatmap'][-1].bias[0].item(), -2.19, rtol=0, atol=0.01)


def test_weights_that_were_loaded_are_kept(tmp_path):
    trained = stirred(build())
    torch.save({'state_dict': trained.state_dict()}, tmp_path / 'head.pth')
    head = build(init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'head.pth')))
    assert_close(dict(head.named_parameters()), dict(trained.named_parameters()))
    # A second call, as a detector in a detector makes it.
    trained.init_weights()
    assert_close(dict(head.named_parameters()), dict(trained.named_parameters()))


# --- loss against MMDetection -----------------------------------------------------------------


def test_losses_and_gradients_of_mmdet():
    ours, theirs = pair()
    x, y = features()[0].requires_grad_(), features()[0].requires_grad_()
    found, expected = ours.loss((x,), samples()), theirs.loss((y,), samples())
    assert list(found) == TERMS
    for name, other in THEIRS.items():
        assert_close(found[name], expected[other], rtol=1e-5, atol=0)
    assert_close(gradients(found, x), gradients(expected, y), rtol=1e-3, atol=1e-6)


def test_targets_differ_from_mmdet_by_the_radius_alone():
    ours, theirs = pair()
    authors = build(radius_impl='centernet')
    authors.load_state_dict(theirs.state_dict())
    found, expected = authors.loss(features(), samples()), ours.loss(features(), samples())
    assert_close(found['loss_offset'], expected['loss_offset'])
    assert_close(found['loss_size'], expected['loss_size'])
    assert abs(found['loss_heatmap'] - expected['loss_heatmap']) > 0.01


def test_two_objects_in_a_cell_both_count():
    # Both centres (22, 18) px are in cell (4, 4): 22 / 5 = 4.4 and 18 / 4 = 4.5.
    batch = [sample([[2.0, 8, 42, 28], [12, 14, 32, 22]], [0, 1])]
    head = build()
    for branch in (head.stacks[0]['offset'], head.stacks[0]['size_wh']):
        for parameter in branch.parameters():
            torch.nn.init.zeros_(parameter)
    losses = head.loss(features(1), batch)
    # Sizes (8, 5) and (4, 2) cells: (8 + 5 + 4 + 2) / 4 coordinates, times 0.1.
    assert_close(losses['loss_size'].item(), 0.475)
    assert_close(losses['loss_offset'].item(), 0.45)


@pytest.mark.parametrize('empty', ['one', 'all'])
def test_images_without_objects(empty):
    ours, theirs = pair()
    batch = samples()
    batch[1] = sample(ignored=[])
    if empty == 'all':
        batch[0] = sample(ignored=[])
    found, expected = ours.loss(features(), batch), theirs.loss(features(), batch)
    for name, other in THEIRS.items():
        assert_close(found[name], expected[other], rtol=1e-5, atol=0)
    sum(found.values()).backward()
    # DistributedDataParallel waits for the gradient of every parameter.
    assert all(each.grad.isfinite().all() for each in ours.parameters())
    assert (found['loss_size'] == 0) == (empty == 'all')


def test_objects_without_area_on_the_map_do_not_count():
    outside = [[-30.0, -30, -1, -1], [130, 10, 150, 30], [20, 20, 20, 40]]
    batch = [sample([*BOXES[0], *outside], [*LABELS[0], 0, 1, 2])]
    head = stirred(build())
    found, expected = (head.loss(features(1), each) for each in (batch, samples()[:1]))
    assert_close(found, expected)


def test_a_box_across_the_border_is_that_of_its_visible_part():
    head = stirred(build())
    found = head.loss(features(1), [sample([[-50.0, 40, 30, 90]], [1])])
    expected = head.loss(features(1), [sample([[0.0, 40, 30, 64]], [1])])
    assert_close(found, expected)


def test_an_object_smaller_than_a_cell_is_a_peak_of_one_cell():
    head = build()
    target = head.targets([sample([[31.0, 21, 32, 22]], [2]).gt_instances], MAP, (5, 4))
    # Centre (31.5, 21.5) px: cell (6, 5).
    assert target.heatmap.nonzero().tolist() == [[0, 2, 5, 6]]
    losses = head.loss(features(1), [sample([[31.0, 21, 32, 22]], [2])])
    assert all(value.isfinite() and value > 0 for value in losses.values())


def test_objects_beyond_max_objects_are_left_out():
    batch = samples()
    for each in batch:
        each.gt_instances = each.gt_instances[:1]
    head, few, many = stirred(build()), build(max_objects=1), build(max_objects=128)
    few.load_state_dict(head.state_dict())
    many.load_state_dict(head.state_dict())
    assert_close(few.loss(features(), samples()), head.loss(features(), batch))
    assert_close(many.loss(features(), samples()), head.loss(features(), samples()))


# --- branches in the cells of objects ---------------------------------------------------------


@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('options', [{}, {'class_specific_size': True}, {'num_stacks': 2}])
def test_a_training_step_is_that_of_the_whole_maps(options, layout):
    head = stirred(build(**options))
    # Two objects share the cell of a corner.
    batch = samples()
    batch[0] = sample([[0.0, 0, 2, 2], [0, 0, 4, 3], [116, 60, 120, 64]], [0, 1, 2])
    x = [each.to(memory_format=layout) for each in features(stacks=head.num_stacks)]
    x = tuple(each.requires_grad_() for each in x)
    found, expected = head.loss(x, batch), dense_loss(head, x, batch)
    assert_close(found, expected)
    parameters = tuple(head.parameters())
    assert_close(gradients(found, *x, *parameters), gradients(expected, *x, *parameters))


def test_no_map_of_offsets_and_sizes_is_made(monkeypatch):
    head = build()
    seen = []
    for name in ('heatmap', 'offset', 'size_wh'):
        head.stacks[0][name][-1].register_forward_hook(
            lambda module, given, found, name=name: seen.append((name, tuple(found.shape[-2:])))
        )
    head.loss(features(), samples())
    # Of the three objects that an image has at most.
    assert seen == [('heatmap', MAP), ('offset', (1, 3)), ('size_wh', (1, 3))]


def test_a_step_waits_for_no_device():
    head = stirred(build())
    batch = samples()
    batch[1] = sample(BOXES[1], LABELS[1], [[0.0, 0, 30, 30]])
    with NoSync(), value_checks(False):
        losses = head.loss(features(), batch)
        sum(losses.values()).backward()
    assert all(each.grad.isfinite().all() for each in head.parameters())


# --- options ----------------------------------------------------------------------------------


def test_loss_is_the_mean_over_stacks():
    x = features(stacks=2)
    both = stirred(build(num_stacks=2))
    expected = []
    for number in range(2):
        head = build()
        state = both.stacks[number].state_dict()
        head.stacks[0].load_state_dict(state)
        expected.append(head.loss(x[number : number + 1], samples()))
    found = both.loss(x, samples())
    for name in TERMS:
        assert_close(found[name], (expected[0][name] + expected[1][name]) / 2)
    assert abs(expected[0]['loss_heatmap'] - expected[1]['loss_heatmap']) > 0.01


def test_a_size_per_class():
    head = stirred(build(class_specific_size=True))
    losses = head.loss(features(), samples())
    ((maps,),) = head(features())
    assert maps['size_wh'].shape == (2, 2 * CLASSES, *MAP)
    batch = [each.gt_instances for each in samples()]
    target = head.targets(batch, MAP, (5, 4))
    distances = []
    for image in range(2):
        for number, label in enumerate(LABELS[image]):
            row, column = divmod(int(target.cell_index[image, number]), MAP[1])
            found = maps['size_wh'][image, 2 * label : 2 * label + 2, row, column]
            x1, y1, x2, y2 = BOXES[image][number]
            distances.append(found - torch.tensor([(x2 - x1) / 5, (y2 - y1) / 4]))
    assert_close(losses['loss_size'], 0.1 * torch.stack(distances).abs().mean())


def test_options_of_the_loss_without_its_type():
    head, plain = build(loss=dict(size_weight=0.2)), stirred(build())
    head.load_state_dict(plain.state_dict())
    found, expected = (each.loss(features(), samples()) for each in (head, plain))
    assert_close(found['loss_size'], 2 * expected['loss_size'])
    assert_close(found['loss_offset'], expected['loss_offset'])
    head = build(class_specific_size=True, loss=dict(type='mmloss_plugins.CtdetLoss'))
    assert isinstance(head.loss_module, CtdetLoss)
    assert isinstance(head.loss_module.heatmap_loss, GaussianFocalLoss)
    assert isinstance(head.loss_module.size_loss, RegL1Loss)
    assert head.loss_module.size_loss.class_specific


def test_the_background_of_an_ignored_region_does_not_count():
    x1, y1, x2, y2 = 0.0, 0.0, 60.0, 32.0  # columns 0 to 11, rows 0 to 7
    batch = [sample(BOXES[0], LABELS[0], [[x1, y1, x2, y2]])]
    head = stirred(build())
    ((maps,),) = head(features(1))
    maps = {name: value.detach().requires_grad_() for name, value in maps.items()}
    instances, ignored = batch[0].gt_instances, batch[0].ignored_instances
    metas = [batch[0].metainfo]
    silenced = head.loss_by_feat([maps], [instances], metas, [ignored])
    (slope,) = gradients(silenced, maps['heatmap'])
    inside = torch.zeros(MAP, dtype=torch.bool)
    inside[:8, :12] = True
    # The centre (22, 19) px of the first object is in cell (4, 4).
    assert slope[0, :, inside].ne(0).any(0).nonzero().tolist() == [[4 * 12 + 4]]
    (whole,) = gradients(head.loss_by_feat([maps], [instances], metas, None), maps['heatmap'])
    assert (whole != 0).all()
    assert_close(slope[0, :, ~inside], whole[0, :, ~inside])


def test_ignored_regions_of_some_images():
    head = stirred(build())
    batch = samples()
    del batch[0].ignored_instances
    expected = head.loss(features(), samples())
    assert_close(head.loss(features(), batch), expected)
    batch[1] = sample(BOXES[1], LABELS[1], [[0.0, 0, 120, 64]])
    found = head.loss(features(), batch)
    assert found['loss_heatmap'] < expected['loss_heatmap'] - 0.1
    assert_close(found['loss_size'], expected['loss_size'])


def test_targets_take_the_boxes_of_mmdet():
    from mmdet.structures.bbox import HorizontalBoxes

    head, batch = build(), [each.gt_instances for each in samples()]
    expected = head.targets(batch, MAP, (5, 4))
    wrapped = [each.clone() for each in batch]
    for each in wrapped:
        each.bboxes = HorizontalBoxes(each.bboxes)
    found = head.targets(wrapped, MAP, (5, 4))
    assert_close(found.heatmap, expected.heatmap)
    assert_close(found.size_wh, expected.size_wh)


# --- precision --------------------------------------------------------------------------------


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast(dtype):
    head = stirred(build())
    expected = head.loss(features(), samples())
    with torch.autocast('cpu', dtype=dtype):
        losses = head.loss(features(), samples())
    for name, value in losses.items():
        assert value.dtype == torch.float32
        assert_close(value, expected[name], rtol=0.03, atol=0.01)
    sum(losses.values()).backward()
    assert all(each.grad.isfinite().all() for each in head.parameters())


@pytest.mark.parametrize('logit', [-6e4, -20.0, 9.0, 6e4])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
def test_logits_of_any_size(logit, dtype):
    shape = (2, CLASSES, *MAP)
    maps = dict(heatmap=torch.full(shape, logit, dtype=dtype, requires_grad=True))
    for name in ('offset', 'size_wh'):
        maps[name] = torch.full((2, 2, *MAP), 6e4, dtype=dtype, requires_grad=True)
    batch = samples()
    metas = [each.metainfo for each in batch]
    losses = build().loss_by_feat([maps], [each.gt_instances for each in batch], metas)
    assert all(value.isfinite() for value in losses.values())
    slopes = gradients(losses, *maps.values())
    assert all(slope.isfinite().all() for slope in slopes)
    if logit > 0:
        # Wrong everywhere but at the centres: MMDetection has no gradient here at 9 or more.
        assert (slopes[0] > 0).sum() > 1000


# --- training ---------------------------------------------------------------------------------


def test_loss_and_predict_of_the_base_class():
    head = stirred(build())
    losses, predictions = head.loss_and_predict(features(), samples())
    assert_close(losses, head.loss(features(), samples()))
    assert_close(predictions[0].scores, head.predict(features(), samples())[0].scores)
    with pytest.raises(ValueError, match=r'cfg must be None, got .*nms_pre.* Set test_cfg'):
        head.loss_and_predict(features(), samples(), dict(nms_pre=10))


def test_learns_two_images_by_heart():
    # Every cell has a feature of its own, in reverse order in the second image.
    cells = MAP[0] * MAP[1]
    one = torch.eye(cells).view(cells, *MAP)
    x = (torch.stack((one, one.flip(0))),)
    head = build(in_channels=cells, feat_channels=32)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.02)
    for _ in range(60):
        losses = head.loss(x, samples())
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    for boxes, labels, found in zip(BOXES, LABELS, head.predict(x, samples())):
        best = found[: len(boxes)]
        assert best.scores.min() > 0.5
        order = torch.cdist(best.bboxes, torch.tensor(boxes)).argmin(0)
        assert best.labels[order].tolist() == labels
        assert_close(best.bboxes[order], torch.tensor(boxes), rtol=0, atol=5.0)
