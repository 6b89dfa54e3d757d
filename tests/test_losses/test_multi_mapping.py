"""MultiLoss on a prediction of several parts, as DSNTHead hands it over."""

from __future__ import annotations

import itertools
import math
import re

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmpose.models.losses import SmoothL1Loss as HostSmoothL1
from mmpose.utils import register_all_modules
from torch import nn
from torch.testing import assert_close

from mmloss_plugins import functional as F
from mmloss_plugins.losses import EuclideanLoss, HeatmapJSLoss, HeatmapVarianceLoss, MultiLoss
from mmloss_plugins.registry import MODELS
from mmloss_plugins.visualization.curves import read_scalars

COUNTER = itertools.count()
WEIGHT = torch.tensor([[1.0, 0.0, 1.0], [0.5, 1.0, 1.0]])
TERMS = dict(
    coord=dict(type='mmloss_plugins.EuclideanLoss'),
    js=dict(type='mmloss_plugins.HeatmapJSLoss', sigma_px=2.0),
)


@pytest.fixture(autouse=True)
def hub():
    """A hub as a new runner makes it."""
    return MessageHub.get_instance(f'multi_mapping_{next(COUNTER)}')


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, 7, 5, generator=generator).requires_grad_()


def predicted(logits):
    heatmaps = F.normalize_heatmap(logits)
    return dict(coords=F.dsnt(heatmaps), heatmaps=heatmaps)


def labels():
    points = torch.tensor([[[0.2, -0.3], [0.5, 0.5], [-0.6, 0.1]]]).expand(2, 3, 2)
    return dict(coords=points, heatmaps=points)


def parts(pred, target, *args, **kwargs):
    """Return (distance, divergence), each called by itself."""
    return (
        EuclideanLoss()(pred['coords'], target['coords'], *args, **kwargs),
        HeatmapJSLoss(sigma_px=2.0)(pred['heatmaps'], target['heatmaps'], *args, **kwargs),
    )


def test_each_term_reads_its_entry(logits):
    pred, target = predicted(logits), labels()
    distance, divergence = parts(pred, target, WEIGHT)
    loss = MultiLoss(TERMS, weights=dict(js=3.0), loss_weight=0.5)
    expected = 0.5 * (distance + 3 * divergence)
    assert_close(loss(pred, target, WEIGHT), expected)
    assert_close(loss(pred, target, WEIGHT[..., None]), expected)
    assert_close(loss(pred=pred, target=target, weight=WEIGHT), expected)
    # What is no mapping goes to every term, as the weight does.
    assert_close(loss(pred, target['coords'], WEIGHT), expected)
    values = (loss(pred, target, WEIGHT), expected)
    slopes = [torch.autograd.grad(value, logits, retain_graph=True)[0] for value in values]
    assert_close(*slopes)
    assert slopes[0].any()


def test_keywords_reach_every_term(logits):
    pred, target = predicted(logits), labels()
    options = dict(weight=WEIGHT, mask=WEIGHT == 1, avg_factor=7.0)
    loss = MultiLoss(TERMS)
    assert_close(loss(pred, target, **options), sum(parts(pred, target, **options)))
    options = dict(weight=WEIGHT, avg_factor=None, reduction_override='none')
    assert loss(pred, target, **options).shape == (2, 3)
    assert_close(loss(pred, target, **options), sum(parts(pred, target, **options)))


def test_entries_may_be_weighted_apart(logits):
    pred, target = predicted(logits), labels()
    weights = dict(coords=WEIGHT, heatmaps=WEIGHT.flip(1))
    found = MultiLoss(TERMS)(pred, target, weights)
    assert_close(found, parts(pred, target, WEIGHT)[0] + parts(pred, target, WEIGHT.flip(1))[1])


def test_no_mapping_goes_on_as_it_is(logits):
    """A target that is a mapping next to a prediction that is none belongs to the term."""

    class ReadsBoth(nn.Module):
        def forward(self, pred, target):
            return (pred - target['low']).sum() + target['high']

    target = dict(low=torch.ones(3), high=torch.tensor(4.0))
    assert MultiLoss(dict(both=ReadsBoth()))(torch.ones(3), target) == 4


def test_heatmap_term_first_and_coordinates_later(logits, hub):
    weights = dict(
        js=dict(type='step', values=[1.0, 0.25], milestones=[4]),
        coord=dict(type='linear', start=0.0, stop=1.0, begin=10, end=20, by_epoch=False),
    )
    pred, target = predicted(logits), labels()
    distance, divergence = parts(pred, target, WEIGHT)
    loss = MultiLoss(TERMS, weights=weights)
    for epoch, iteration, js, coord in ((0, 0, 1, 0), (3, 15, 1, 0.5), (4, 20, 0.25, 1)):
        hub.update_info_dict({'epoch': epoch, 'iter': iteration})
        assert loss.current_weights() == dict(coord=coord, js=js)
        assert_close(loss(pred, target, WEIGHT), coord * distance + js * divergence)
        found = loss.diagnostics(pred, target, WEIGHT)
        assert_close(found['term_coord'] + found['term_js'], loss(pred, target, WEIGHT))
        assert_close(found['term_coord'], coord * distance.detach())
        assert (found['weight_js'], found['weight_coord']) == (js, coord)


def test_a_term_at_weight_zero_does_not_even_read_its_entry(logits):
    pred, target = predicted(logits), labels()
    loss = MultiLoss(TERMS, weights=dict(js=0.0))
    del pred['heatmaps']
    assert_close(
        loss(pred, target, WEIGHT), EuclideanLoss()(pred['coords'], target['coords'], WEIGHT)
    )


def test_all_terms_at_zero_are_an_attached_zero():
    leaves = dict(
        coords=torch.full((2, 3, 2), math.nan, requires_grad=True),
        heatmaps=torch.full((2, 3, 7, 5), math.inf, requires_grad=True),
    )
    loss = MultiLoss(TERMS, weights=dict(coord=0, js=0))
    value = loss(leaves, labels(), WEIGHT)
    value.backward()
    assert value == 0
    assert value.shape == ()
    assert all((leaf.grad == 0).all() for leaf in leaves.values())
    found = loss.diagnostics(leaves, labels(), WEIGHT)
    assert len(found) == 4
    assert all(value == 0 for value in found.values())


@pytest.mark.parametrize('where', ['prediction', 'target'])
def test_a_missing_entry_names_the_term_and_what_there_is(where, logits):
    pred, target = predicted(logits), labels()
    del (pred if where == 'prediction' else target)['heatmaps']
    text = (
        "MultiLoss: term js must find its 'heatmaps' in what the head passes, got a mapping of "
        "'coords'. Remove the term, or take a head that passes it, such as DSNTHead."
    )
    with pytest.raises(ValueError, match=re.escape(text)):
        MultiLoss(TERMS)(pred, target, WEIGHT)


def test_an_empty_mapping_is_named():
    with pytest.raises(ValueError, match=r"term coord must find its 'coords' in .* of nothing"):
        MultiLoss(TERMS)({}, {}, WEIGHT)


def test_a_loss_of_the_host_reads_the_coordinates(logits):
    register_all_modules(init_default_scope=False)
    pred, target = predicted(logits), labels()
    terms = dict(host=dict(type='SmoothL1Loss', use_target_weight=True), js=TERMS['js'])
    with DefaultScope.overwrite_default_scope('mmpose'):
        loss = MultiLoss(terms)
    host = HostSmoothL1(use_target_weight=True)(pred['coords'], target['coords'], WEIGHT)
    assert_close(loss(pred, target, WEIGHT), host + parts(pred, target, WEIGHT)[1])


def test_a_multi_loss_as_a_term_reads_by_its_own_terms(logits):
    pred, target = predicted(logits), labels()
    inner = dict(type='mmloss_plugins.MultiLoss', terms=TERMS, weights=dict(js=2.0))
    distance, divergence = parts(pred, target, WEIGHT)
    found = MultiLoss(dict(both=inner))(pred, target, WEIGHT)
    assert_close(found, distance + 2 * divergence)


def test_three_terms_on_the_same_maps(logits):
    """MMPose's DSNTHead adds the first two and drops the third."""
    pred, target = predicted(logits), labels()
    variance = dict(type='mmloss_plugins.HeatmapVarianceLoss')
    found = MultiLoss(dict(TERMS, variance=variance))(pred, target, WEIGHT)
    third = HeatmapVarianceLoss()(pred['heatmaps'], target['heatmaps'], WEIGHT)
    assert_close(found, sum(parts(pred, target, WEIGHT)) + third)


def test_an_empty_batch_is_an_attached_zero():
    logits = torch.zeros(0, 3, 7, 5, requires_grad=True)
    target = {name: points[:0] for name, points in labels().items()}
    value = MultiLoss(TERMS)(predicted(logits), target, WEIGHT[:0])
    value.backward()
    assert value == 0
    assert logits.grad.shape == logits.shape


def test_one_graph(logits):
    loss = MultiLoss(TERMS, weights=dict(js=0.5))
    compiled = torch.compile(loss, fullgraph=True, backend='aot_eager')
    pred, target = predicted(logits.detach()), labels()
    assert_close(compiled(pred, target, WEIGHT), loss(pred, target, WEIGHT))


class Toy(BaseModel):
    """Maps that are parameters, trained towards one label."""

    def __init__(self, loss) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(1, 2, 7, 5))
        self.loss_module = MODELS.build(loss)

    def forward(self, *batch, mode='loss'):
        target = torch.stack(batch)
        pred = predicted(self.logits.expand(len(batch), -1, -1, -1))
        weight = torch.tensor([[1.0, 0.0]]).expand(len(batch), 2)
        value = self.loss_module(pred, dict(coords=target, heatmaps=target), weight)
        return dict(loss_kpt=value)


def test_log_of_a_runner(tmp_path):
    """The hook logs both terms, their weights and the spread of the maps of visible keypoints."""
    loss = dict(
        type='mmloss_plugins.MultiLoss',
        terms=TERMS,
        weights=dict(coord=dict(type='step', values=[0, 1], milestones=[3], by_epoch=False)),
    )
    model = Toy(loss)
    runner = Runner(
        model,
        work_dir=str(tmp_path),
        train_dataloader=dict(
            batch_size=2,
            sampler=dict(type='InfiniteSampler', shuffle=False),
            dataset=[torch.tensor([[0.3, -0.2], [0.5, 0.5]])] * 4,
            collate_fn=pseudo_collate,
        ),
        train_cfg=dict(by_epoch=False, max_iters=6),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=2.0)),
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1), checkpoint=None),
        custom_hooks=[dict(type='mmloss_plugins.LossDiagnosticsHook', interval=1)],
        log_processor=dict(by_epoch=False, window_size=1),
        experiment_name=f'{tmp_path.name}-mapping',
    )
    runner.train()
    scalars = read_scalars(tmp_path)
    names = ('loss', 'term_coord', 'term_js', 'weight_coord', 'weight_js', 'heatmap_std_px')
    found = {name: np.array(scalars.series(name)[1]) for name in names}
    assert found['weight_coord'] == pytest.approx([0, 0, 0, 1, 1, 1])
    assert found['weight_js'] == pytest.approx([1] * 6)
    assert found['term_coord'][:3] == pytest.approx([0] * 3)
    assert (found['term_coord'][3:] > 0).all()
    assert found['loss'] == pytest.approx(found['term_coord'] + found['term_js'])
    assert (np.diff(found['term_js'][:3]) < 0).all()
    # A flat map of n cells has the variance (n^2 - 1) / 12: 4 along y, 2 along x.
    assert found['heatmap_std_px'][0] == pytest.approx(math.sqrt(3))
    # The second keypoint has no weight.
    assert (model.logits[0, 1] == 0).all()
    assert (model.logits[0, 0] != 0).any()
