"""MultiLoss: sums, schedules, stock heads of both hosts, and the log of a real Runner."""

from __future__ import annotations

import itertools
import math
import re

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.dataset import pseudo_collate
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from mmpose.models.heads import HeatmapHead, SimCCHead
from mmpose.models.losses import KeypointMSELoss as HostMSE
from mmpose.structures import PoseDataSample
from mmpose.utils import register_all_modules
from torch import nn
from torch.testing import assert_close

from mmloss_plugins.losses import KLDiscretLoss, L1Loss, MSELoss, MultiLoss, SmoothL1Loss
from mmloss_plugins.registry import MODELS
from mmloss_plugins.visualization.curves import read_scalars

COUNTER = itertools.count()
PRED = torch.tensor([[3.0, -1.0], [0.5, 2.0]])
ZERO = torch.zeros(2, 2)


@pytest.fixture(autouse=True)
def hub():
    """A hub as a new runner makes it: runners of other tests have left their iteration behind."""
    return MessageHub.get_instance(f'multi_loss_{next(COUNTER)}')


def two_terms(**options):
    return MultiLoss(dict(l1=L1Loss(), mse=MSELoss(loss_weight=0.5)), **options)


def test_sum_by_hand():
    # |d|: (3 + 1 + .5 + 2) / 4; d^2: (9 + 1 + .25 + 4) / 4.
    l1, mse = 6.5 / 4, 14.25 / 4
    assert_close(two_terms()(PRED, ZERO), torch.tensor(l1 + 0.5 * mse))
    weighted = two_terms(weights=dict(mse=2.0, l1=3), loss_weight=0.1)
    assert_close(weighted(PRED, ZERO), torch.tensor(0.1 * (3 * l1 + mse)))


def test_gradient_is_the_sum_of_gradients():
    pred = PRED.clone().requires_grad_()
    two_terms(weights=dict(l1=3.0))(pred, ZERO).backward()
    assert_close(pred.grad, (3 * PRED.sign() + PRED) / 4)


def test_config_of_the_registry():
    loss = MODELS.build(
        dict(
            type='mmloss_plugins.MultiLoss',
            terms=dict(
                l1=dict(type='mmloss_plugins.L1Loss'),
                mse=dict(type='mmloss_plugins.MSELoss', loss_weight=0.5),
            ),
        )
    )
    assert_close(loss(PRED, ZERO), two_terms()(PRED, ZERO))
    nested = ConfigDict(type='mmloss_plugins.MultiLoss', terms=dict(a=dict(type=L1Loss)))
    assert_close(MODELS.build(nested)(PRED, ZERO), L1Loss()(PRED, ZERO))


LINEAR = dict(type='linear', start=1.0, stop=0.2, begin=2, end=6)
STEP = dict(type='step', values=[0.5, 1.0, 0.25], milestones=[2, 5])


@pytest.mark.parametrize(
    ('schedule', 'expected'),
    [
        (LINEAR, [1.0, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2, 0.2]),
        (STEP, [0.5, 0.5, 1.0, 1.0, 1.0, 0.25, 0.25, 0.25]),
        (0.75, [0.75] * 8),
    ],
    ids=['linear', 'step', 'number'],
)
@pytest.mark.parametrize('by_epoch', [True, False])
def test_schedules(schedule, expected, by_epoch, hub):
    if isinstance(schedule, dict) and not by_epoch:
        schedule = dict(schedule, by_epoch=False)
    loss = MultiLoss(dict(l1=L1Loss()), weights=dict(l1=schedule))
    assert loss.current_weights() == {'l1': expected[0]}, 'without a runner'
    for step, factor in enumerate(expected):
        hub.update_info_dict({'epoch': step if by_epoch else 99, 'iter': 99 if by_epoch else step})
        assert loss.current_weights()['l1'] == pytest.approx(factor)
        assert_close(loss(PRED, ZERO), factor * L1Loss()(PRED, ZERO))


class Fails(nn.Module):
    def forward(self, pred, target):
        raise AssertionError('evaluated at weight 0')


def test_weight_zero_is_not_evaluated(hub):
    switched_on = dict(type='step', values=[0, 1], milestones=[3], by_epoch=False)
    loss = MultiLoss(dict(l1=L1Loss(), late=Fails()), weights=dict(late=switched_on))
    assert_close(loss(PRED, ZERO), L1Loss()(PRED, ZERO))
    assert loss.diagnostics(PRED, ZERO)['term_late'] == 0
    hub.update_info('iter', 3)
    with pytest.raises(AssertionError, match='evaluated at weight 0'):
        loss(PRED, ZERO)


@pytest.mark.parametrize('layout', ['tensor', 'axes'])
def test_all_weights_zero_is_an_attached_zero(layout):
    leaf = torch.full((2, 3), math.nan, requires_grad=True)
    pred = leaf if layout == 'tensor' else (leaf, leaf)
    value = MultiLoss(dict(l1=L1Loss()), weights=dict(l1=0))(pred, None)
    value.backward()
    assert value == 0
    assert value.shape == ()
    assert (leaf.grad == 0).all()


def test_diagnostics_add_up_to_the_loss():
    loss = two_terms(weights=dict(l1=LINEAR, mse=3.0), loss_weight=0.5)
    found = loss.diagnostics(PRED.clone().requires_grad_(), ZERO)
    assert list(found) == ['term_l1', 'weight_l1', 'term_mse', 'weight_mse']
    assert_close(found['term_l1'] + found['term_mse'], loss(PRED, ZERO))
    assert (found['weight_l1'], found['weight_mse']) == (1, 3)
    assert not any(value.requires_grad or value.dim() for value in found.values())
    unreduced = loss.diagnostics(PRED, ZERO, reduction_override='none')
    assert_close(unreduced['term_l1'], found['term_l1'])


@pytest.mark.parametrize(
    ('name', 'logged'),
    [('loss_mse', 'mse'), ('mse_loss', 'mse'), ('loss', 'only'), ('L1Loss', 'L1'), ('a', 'a')],
)
def test_no_diagnostic_counts_as_a_loss(name, logged):
    loss = MultiLoss({name: L1Loss()})
    assert list(loss.diagnostics(PRED, ZERO)) == [f'term_{logged}', f'weight_{logged}']
    assert list(loss.terms) == [name]


def test_arguments_reach_every_term_as_the_head_passed_them():
    weight = torch.tensor([[1.0], [0.0]])
    expected = L1Loss()(PRED, ZERO, weight) + MSELoss(loss_weight=0.5)(PRED, ZERO, weight)
    assert_close(two_terms()(PRED, ZERO, weight), expected)
    assert_close(two_terms()(PRED, ZERO, weight=weight), expected)
    by_average = two_terms()(PRED, ZERO, weight=weight, avg_factor=8)
    assert_close(by_average, expected / 2)
    # MMPose's loss has no such arguments: None is what a head leaves open.
    host = MultiLoss(dict(host=HostMSE()))
    maps = torch.rand(2, 3, 4, 5)
    assert_close(host(maps, maps * 0, avg_factor=None, reduction_override=None), (maps**2).mean())


def test_unreduced_terms_are_added_element_by_element():
    found = two_terms()(PRED, ZERO, reduction_override='none')
    assert_close(found, PRED.abs() + 0.5 * PRED**2)


def test_terms_of_different_shapes_are_refused():
    loss = MultiLoss(dict(a=L1Loss(), b=MSELoss(reduction='none')))
    text = (
        'MultiLoss: term b must have the shape () of a, got (2, 2). '
        'Give all terms the same reduction.'
    )
    with pytest.raises(ValueError, match=re.escape(text)):
        loss(PRED, ZERO)


def test_a_term_that_returns_no_tensor_is_refused():
    class Dictionary(nn.Module):
        def forward(self, pred, target):
            return dict(loss=pred.sum())

    with pytest.raises(TypeError, match='term odd must return a tensor, got dict'):
        MultiLoss(dict(odd=Dictionary()))(PRED, ZERO)


L1 = dict(type='mmloss_plugins.L1Loss')


@pytest.mark.parametrize(
    ('terms', 'options', 'error', 'text'),
    [
        ({}, {}, TypeError, 'terms must be a dict of at least one loss by name'),
        ([L1], {}, TypeError, 'terms must be a dict of at least one loss by name'),
        ({'a': 'L1Loss'}, {}, TypeError, "term a must be the config of a loss, got 'L1Loss'"),
        ({'a.b': L1}, {}, ValueError, 'name of a term must be a word'),
        ({'keys': L1}, {}, ValueError, "nn.ModuleDict has no method for, got 'keys'"),
        ({'mse': L1, 'loss_mse': L1}, {}, ValueError, "got 'loss_mse'. Rename it"),
        ({'a': L1}, dict(weights=dict(b=1.0)), ValueError, "one of 'a', got 'b'"),
        ({'a': L1}, dict(weights=dict(a='1')), TypeError, 'weight of a must be a number'),
        ({'a': L1}, dict(weights=dict(a=math.inf)), TypeError, 'weight of a must be a number'),
        ({'a': L1}, dict(weigths={}), TypeError, "Did you mean 'weights'?"),
        ({'a': dict(L1, redction='sum')}, {}, TypeError, "got 'redction'"),
    ],
)
def test_mistakes_die_in_the_constructor(terms, options, error, text):
    with pytest.raises(error, match=re.escape(text)):
        MultiLoss(terms, **options)


@pytest.mark.parametrize(
    ('change', 'error', 'text'),
    [
        (dict(type='lineer'), ValueError, "one of 'linear', 'step', got 'lineer'"),
        (dict(type=None), ValueError, 'type of the schedule of a must be one of'),
        (dict(stopp=0.0), TypeError, "got 'stopp'. Did you mean 'stop'?"),
        (dict(end=2), ValueError, 'begin and end of a must be whole numbers that grow'),
        (dict(end=6.0), ValueError, 'begin and end of a must be whole numbers that grow'),
        (dict(start='1'), TypeError, 'start and stop of a must be a number'),
        (dict(by_epoch='no'), TypeError, 'by_epoch of a must be True or False'),
    ],
)
def test_mistakes_in_a_schedule_die_in_the_constructor(change, error, text):
    with pytest.raises(error, match=re.escape(text)):
        MultiLoss(dict(a=L1), weights=dict(a={**LINEAR, **change}))


@pytest.mark.parametrize(
    ('schedule', 'text'),
    [
        (dict(type='linear', start=0.0, stop=1.0), 'end of a must be given for a linear schedule'),
        (dict(type='step', values=[1.0]), 'milestones of a must be given for a step schedule'),
        (dict(STEP, values=[1.0, 2.0]), 'values of a must be one more than the 2 milestones'),
        (dict(STEP, milestones=[5, 5]), 'milestones of a must be whole numbers that grow'),
    ],
)
def test_incomplete_schedules_die_in_the_constructor(schedule, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        MultiLoss(dict(a=L1), weights=dict(a=schedule))


def test_one_graph():
    loss = two_terms(weights=dict(l1=0.5))
    compiled = torch.compile(loss, fullgraph=True, backend='aot_eager')
    assert_close(compiled(PRED, ZERO), loss(PRED, ZERO))


@pytest.fixture
def mmpose_scope():
    register_all_modules(init_default_scope=False)
    with DefaultScope.overwrite_default_scope('mmpose'):
        yield


def sample(**labels):
    """A packed sample as a codec leaves it; tensors of one keypoint each 3."""
    packed = PoseDataSample()
    packed.gt_instance_labels = InstanceData(
        keypoint_weights=torch.tensor([[1.0, 0.0, 1.0]]),
        **{name: value for name, value in labels.items() if name != 'heatmaps'},
    )
    if 'heatmaps' in labels:
        from mmengine.structures import PixelData

        packed.gt_fields = PixelData(heatmaps=labels['heatmaps'])
    return packed


@pytest.mark.usefixtures('mmpose_scope')
def test_stock_heatmap_head():
    terms = dict(mse=dict(type='KeypointMSELoss'), l1=dict(type='mmloss_plugins.L1Loss'))
    head = HeatmapHead(
        4,
        3,
        deconv_out_channels=None,
        loss=dict(type='mmloss_plugins.MultiLoss', terms=terms, weights=dict(l1=0.1)),
    )
    feats, maps = torch.randn(2, 4, 6, 5), torch.rand(2, 3, 6, 5)
    losses = head.loss((feats,), [sample(heatmaps=heatmap) for heatmap in maps])
    pred, weight = head((feats,)), torch.tensor([[1.0, 0.0, 1.0]]).expand(2, 3)
    expected = HostMSE(use_target_weight=True)(pred, maps, weight)
    assert_close(losses['loss_kpt'], expected + 0.1 * L1Loss()(pred, maps, weight))
    losses['loss_kpt'].backward()
    assert all(p.grad.abs().sum() > 0 for p in head.parameters())


@pytest.mark.usefixtures('mmpose_scope')
def test_stock_simcc_head():
    terms = dict(
        kl=dict(type='mmloss_plugins.KLDiscretLoss'),
        host=dict(type='KLDiscretLoss', use_target_weight=True),
    )
    head = SimCCHead(
        4,
        3,
        input_size=(16, 24),
        in_featuremap_size=(4, 6),
        simcc_split_ratio=1.0,
        deconv_out_channels=None,
        loss=dict(type='mmloss_plugins.MultiLoss', terms=terms, weights=dict(kl=2.0)),
    )
    feats = torch.randn(2, 4, 6, 4)
    x, y = torch.rand(2, 1, 3, 16).softmax(-1), torch.rand(2, 1, 3, 24).softmax(-1)
    samples = [sample(keypoint_x_labels=a, keypoint_y_labels=b) for a, b in zip(x, y)]
    losses = head.loss((feats,), samples)
    weight = torch.tensor([[1.0, 0.0, 1.0]]).expand(2, 3)
    ours = KLDiscretLoss()(head((feats,)), (x[:, 0], y[:, 0]), weight)
    # MMPose's value is twice ours in a batch of two.
    assert_close(losses['loss_kpt'], 2 * ours + 2 * ours)


def test_stock_box_head_of_mmdetection():
    from mmdet.models.roi_heads.bbox_heads import BBoxHead
    from mmdet.utils import register_all_modules as register_mmdet

    register_mmdet(init_default_scope=False)
    terms = dict(sl1=dict(type='SmoothL1Loss', beta=0.5), l1=dict(type='mmloss_plugins.L1Loss'))
    with DefaultScope.overwrite_default_scope('mmdet'):
        head = BBoxHead(
            num_classes=2,
            reg_class_agnostic=True,
            loss_bbox=dict(type='mmloss_plugins.MultiLoss', terms=terms, weights=dict(l1=0.5)),
        )
    labels, pred, target = torch.tensor([0, 1, 2]), torch.randn(3, 4), torch.randn(3, 4)
    losses = head.loss(
        torch.randn(3, 3), pred, torch.rand(3, 5), labels, torch.ones(3), target, torch.ones(3, 4)
    )
    positive = pred[:2], target[:2]
    expected = SmoothL1Loss(beta=0.5)(*positive, avg_factor=3) + 0.5 * L1Loss()(
        *positive, avg_factor=3
    )
    assert_close(losses['loss_bbox'], expected)


class Toy(BaseModel):
    """One parameter, trained towards the labels."""

    def __init__(self, loss) -> None:
        super().__init__()
        self.guess = nn.Parameter(torch.full((1, 2), 3.0))
        self.loss_module = MODELS.build(loss)

    def forward(self, *labels, mode='loss'):
        labels = torch.stack(labels)
        return dict(loss_kpt=self.loss_module(self.guess.expand(len(labels), -1), labels))


def test_log_of_a_runner_holds_each_term_and_the_total_once(tmp_path):
    loss = dict(
        type='mmloss_plugins.MultiLoss',
        terms=dict(l1=L1, loss_mse=dict(type='mmloss_plugins.MSELoss')),
        weights=dict(l1=dict(type='linear', start=1.0, stop=0.0, end=4, by_epoch=False)),
    )
    runner = Runner(
        Toy(loss),
        work_dir=str(tmp_path),
        train_dataloader=dict(
            batch_size=2,
            sampler=dict(type='InfiniteSampler', shuffle=False),
            dataset=[torch.tensor([1.0, 2.0])] * 4,
            collate_fn=pseudo_collate,
        ),
        train_cfg=dict(by_epoch=False, max_iters=6),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1), checkpoint=None),
        custom_hooks=[dict(type='mmloss_plugins.LossDiagnosticsHook', interval=1)],
        log_processor=dict(by_epoch=False, window_size=1),
        experiment_name=f'{tmp_path.name}-multi',
    )
    runner.train()
    scalars = read_scalars(tmp_path)
    found = {
        name: np.array(scalars.series(name)[1])
        for name in ('loss', 'loss_kpt', 'term_l1', 'term_mse', 'weight_l1', 'weight_mse')
    }
    # Errors are 2 and 1 at first: L1 1.5, MSE 2.5.
    assert found['loss'][0] == pytest.approx(1.5 + 2.5)
    assert found['term_l1'][0] == pytest.approx(1.5)
    assert found['weight_l1'] == pytest.approx([1, 0.75, 0.5, 0.25, 0, 0])
    assert found['weight_mse'] == pytest.approx([1] * 6)
    assert found['term_l1'][4:] == pytest.approx([0, 0])
    assert found['loss'] == pytest.approx(found['loss_kpt'])
    assert found['loss'] == pytest.approx(found['term_l1'] + found['term_mse'])
    assert (np.diff(found['loss']) < 0).all()
