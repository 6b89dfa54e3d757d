"""Losses of DSNT: the author's average, the hosts' losses and heads, weights and bad arguments."""

from __future__ import annotations

import math
import re

import dsntnn
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from mmpose.models.heads import IntegralRegressionHead, RegressionHead
from mmpose.models.losses import JSDiscretLoss as HostJS
from mmpose.models.losses import MPJPELoss as HostMPJPE
from mmpose.structures import PoseDataSample
from mmpose.utils import register_all_modules
from torch import nn
from torch.testing import assert_close

from mmloss_plugins import functional as F
from mmloss_plugins.losses import (
    EuclideanLoss,
    HeatmapJSLoss,
    HeatmapKLLoss,
    HeatmapMSERegLoss,
    HeatmapVarianceLoss,
)
from mmloss_plugins.registry import MODELS

REGULARIZERS = [HeatmapJSLoss, HeatmapKLLoss, HeatmapMSERegLoss, HeatmapVarianceLoss]
VISIBLE = torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 1.0]]).double()
SOFT = torch.tensor([[0.5, 0.0, 1.0], [0.25, 1.5, 1.0]]).double()


def make_points(generator, shape=(2, 3, 2)):
    return torch.rand(shape, dtype=torch.float64, generator=generator) * 1.8 - 0.9


def make_logits(generator, shape=(2, 3, 7, 5)):
    return torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_()


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


AUTHOR = {
    'js': (HeatmapJSLoss, lambda maps, mean: dsntnn.js_reg_losses(maps, mean, 1.5)),
    'kl': (HeatmapKLLoss, lambda maps, mean: dsntnn.kl_reg_losses(maps, mean, 1.5)),
    'variance': (HeatmapVarianceLoss, lambda maps, mean: dsntnn.variance_reg_losses(maps, 1.5)),
    'coordinates': (
        EuclideanLoss,
        lambda maps, mean: dsntnn.euclidean_losses(dsntnn.dsnt(maps), mean),
    ),
}


def ours_and_authors(name, logits, target, weight, **options):
    """Return (our loss, the author's average), both of softmaxed ``logits``."""
    cls, losses = AUTHOR[name]
    maps = F.normalize_heatmap(logits)
    if name == 'coordinates':
        ours = cls()(F.dsnt(maps), target, weight, **options)
    else:
        ours = cls(sigma_px=1.5)(maps, target, weight, **options)
    return ours, dsntnn.average_loss(losses(dsntnn.flat_softmax(logits), target), weight)


@pytest.mark.parametrize('name', AUTHOR)
@pytest.mark.parametrize('weight', [VISIBLE, 0 * VISIBLE, None], ids=['some', 'none', 'no weight'])
def test_the_default_is_the_authors_average(name, weight, generator):
    logits, target = make_logits(generator), make_points(generator)
    ours, authors = ours_and_authors(name, logits, target, weight)
    assert_close(ours, authors, rtol=1e-9, atol=1e-12)
    slopes = [torch.autograd.grad(loss, logits)[0] for loss in (ours, authors)]
    assert_close(*slopes, rtol=1e-7, atol=1e-10)
    assert (weight is not None and not weight.any()) == (slopes[0] == 0).all()


@pytest.mark.parametrize('name', AUTHOR)
def test_soft_weights_divide_by_keypoints_and_the_author_by_their_sum(name, generator):
    logits, target = make_logits(generator), make_points(generator)
    ours, authors = ours_and_authors(name, logits, target, SOFT)
    # Five keypoints count; the weights add up to 4.25.
    assert_close(5 * ours, 4.25 * authors, rtol=1e-9, atol=0)
    averaged, _ = ours_and_authors(name, logits, target, SOFT, avg_factor=SOFT.sum())
    assert_close(averaged, authors, rtol=1e-9, atol=0)


def test_squared_error_by_hand():
    # Of a map with all mass in cell (1, 0) of 2 x 1, and a Gaussian whose masses are q, 1 - q with
    # a label on the border between the cells: q = 1/2, so 1/4 + 1/4.
    maps = torch.tensor([[[[0.0, 1.0]], [[0.5, 0.5]]]])
    loss = HeatmapMSERegLoss(reduction='none')(maps, torch.zeros(1, 2, 2))
    assert_close(loss, torch.tensor([[0.5, 0.0]]))


def test_distance_by_hand():
    pred = torch.tensor([[[3.0, 4.0], [0.0, 1.0], [9.0, 9.0]]])
    weight = torch.tensor([[1.0, 0.5, 0.0]])
    loss = EuclideanLoss()
    assert_close(loss(pred, 0 * pred, weight), torch.tensor((5 + 0.5) / 2))
    assert_close(EuclideanLoss(mean_over='all')(pred, 0 * pred, weight), torch.tensor(5.5 / 3))


@pytest.mark.parametrize('cls', [EuclideanLoss, *REGULARIZERS])
def test_weights_as_both_kinds_of_heads_pass_them(cls, generator):
    target = make_points(generator).float()
    if cls is EuclideanLoss:
        pred = make_points(generator).float()
    else:
        pred = F.normalize_heatmap(make_logits(generator).detach().float())
    weight = SOFT.float()
    flat = cls()(pred, target, weight)
    assert_close(cls()(pred, target, weight[..., None]), flat, rtol=0, atol=0)
    text = (
        f'{cls.__name__}: weight must have the shape (2, 3) or a left part of it, got (2, 3, 2). '
        'Pass one factor per sample or per keypoint.'
    )
    with pytest.raises(ValueError, match=re.escape(text)):
        cls()(pred, target, weight[..., None].expand(2, 3, 2))


def gaussian_maps(target, height, width, sigma):
    return dsntnn.make_gauss(target, (height, width), sigma)


@pytest.mark.parametrize('weight', [torch.ones_like(VISIBLE), VISIBLE], ids=['all', 'some'])
def test_mmpose_js_is_the_number_of_keypoints_times_ours(weight, generator):
    maps, target = F.normalize_heatmap(make_logits(generator)), make_points(generator)
    host = HostJS()(maps, gaussian_maps(target, 7, 5, 1.0), weight)
    assert_close(host, 3 * HeatmapJSLoss(mean_over='all')(maps, target, weight))
    # By default the divisor is the number of visible keypoints, not of all.
    share = (weight != 0).double().mean()
    assert_close(host, 3 * share * HeatmapJSLoss()(maps, target, weight))


def gradient_of_a_layer(loss, feats, *labels):
    """Return the gradient that a 1 x 1 convolution in front of the softmax gets."""
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 3, 1)
    logits = layer(feats)
    logits.retain_grad()
    value = loss(F.normalize_heatmap(logits), *labels)
    value.backward()
    assert value.isfinite()
    return layer.weight.grad, logits.grad


def test_one_invisible_joint(generator):
    """MMPose's gradient is NaN behind a finite loss; ours is zero for that joint alone."""
    feats = torch.randn(2, 4, 7, 5, generator=generator)
    target, weight = make_points(generator).float(), VISIBLE.float()
    shared, logits = gradient_of_a_layer(HostJS(), feats, gaussian_maps(target, 7, 5, 1.0), weight)
    assert logits[0, 1].isnan().all(), 'MMPose has repaired it: say so in the documentation'
    assert shared[1].isnan().all()
    for cls in REGULARIZERS:
        shared, logits = gradient_of_a_layer(cls(), feats, target, weight)
        assert (logits[0, 1] == 0).all()
        assert logits.isfinite().all()
        assert shared.isfinite().all()
        others = torch.ones(2, 3, dtype=torch.bool)
        others[0, 1] = False
        assert (logits[others] != 0).any(-1).any(-1).all()


@pytest.mark.parametrize('bad', [math.nan, math.inf])
def test_an_invisible_joint_may_hold_anything(bad, generator):
    target = make_points(generator).float()
    target[0, 1] = bad
    pred = make_points(generator).float()
    pred[0, 1] = bad
    pred.requires_grad_()
    with F.value_checks(False):
        EuclideanLoss()(pred, target, VISIBLE.float()).backward()
    assert (pred.grad[0, 1] == 0).all()
    assert pred.grad.isfinite().all()


def test_mpjpe_of_mmpose_is_the_mean_over_all(generator):
    pred, target = make_points(generator), make_points(generator)
    host = HostMPJPE(use_target_weight=True)(pred, target, SOFT[..., None])
    assert_close(EuclideanLoss(mean_over='all')(pred, target, SOFT[..., None]), host)


def stock_head(kind):
    loss = dict(type='mmloss_plugins.EuclideanLoss')
    if kind == 'regression':
        return RegressionHead(4, 3, loss=loss)
    return IntegralRegressionHead(4, (5, 7), 3, deconv_out_channels=None, loss=loss)


@pytest.mark.parametrize('kind', ['regression', 'integral'])
def test_stock_heads_of_mmpose(kind, generator):
    """The first passes weights (N, K, 1), the second (N, K)."""
    register_all_modules(init_default_scope=False)
    with DefaultScope.overwrite_default_scope('mmpose'):
        head = stock_head(kind)
    target, weight = make_points(generator, (2, 1, 3, 2)).float(), VISIBLE.float()
    samples = [PoseDataSample() for _ in range(2)]
    for sample, labels, weights in zip(samples, target, weight):
        sample.gt_instance_labels = InstanceData(
            keypoint_labels=labels, keypoint_weights=weights[None]
        )
    size = (1, 1) if kind == 'regression' else (7, 5)
    feats = torch.randn(2, 4, *size, generator=generator)
    losses = head.loss((feats,), samples)
    pred = head.forward((feats,))
    pred = pred if kind == 'regression' else pred[0]
    distance = (pred - target[:, 0]).square().sum(-1).sqrt()
    assert_close(losses['loss_kpt'], (distance * weight).sum() / 5)
    losses['loss_kpt'].backward()
    slopes = [parameter.grad for parameter in head.parameters() if parameter.grad is not None]
    assert slopes
    assert all(slope.isfinite().all() and slope.any() for slope in slopes)


@pytest.mark.parametrize('size', [7, 14, 28, 56])
def test_lambda_of_the_paper_in_pixels(size, generator):
    """100 in normalised units is 2.6e-3 in pixels at 28 x 28."""
    maps = F.normalize_heatmap(make_logits(generator, (2, 3, size, size)))
    target = make_points(generator)
    paper = HeatmapVarianceLoss(unit='normalized', loss_weight=100.0)(maps, target)
    factor = 100 * (size / 2) ** -4
    assert_close(HeatmapVarianceLoss(loss_weight=factor)(maps, target), paper)
    documented = {7: '0.67', 14: '0.042', 28: '2.6e-3', 56: '1.6e-4'}[size]
    assert float(documented) == pytest.approx(factor, rel=0.02)
    assert documented in HeatmapVarianceLoss.__doc__


def test_base_two_is_the_natural_one_over_ln_2(generator):
    maps, target = F.normalize_heatmap(make_logits(generator)), make_points(generator)
    nats = HeatmapJSLoss()(maps, target)
    assert_close(HeatmapJSLoss(base=2)(maps, target) * math.log(2), nats)
    # Mass in one corner and a narrow Gaussian in the other have nothing in common.
    corner = torch.zeros(1, 2, 7, 5, dtype=torch.float64)
    corner[..., 0, 0] = 1
    far = torch.ones(1, 2, 2, dtype=torch.float64) * 0.8
    assert_close(HeatmapJSLoss(0.3, base=2)(corner, far).item(), 1.0)
    assert_close(HeatmapJSLoss(0.3)(corner, far).item(), math.log(2))


@pytest.mark.parametrize('cls', [HeatmapJSLoss, HeatmapKLLoss, HeatmapMSERegLoss])
def test_sigma_per_axis_is_x_first(cls, generator):
    target = make_points(generator)
    along_x = dsntnn.make_gauss(target[..., :1], (5,), 2.0)
    along_y = dsntnn.make_gauss(target[..., 1:], (7,), 0.5)
    maps = along_y[..., None] * along_x[..., None, :]
    assert cls(sigma_px=[2.0, 0.5])(maps, target).item() == pytest.approx(0, abs=1e-9)
    assert cls(sigma_px=[0.5, 2.0])(maps, target) > 0.1
    assert_close(cls(sigma_px=[2.0, 2.0])(maps, target), cls(sigma_px=2.0)(maps, target))


def test_variance_per_axis_is_x_first():
    # Half the mass each in columns 1 and 5 of one row: 4 px^2 along x, 0 along y.
    maps = torch.zeros(1, 2, 3, 7)
    maps[:, :, 1, [1, 5]] = 0.5
    target = torch.zeros(1, 2, 2)
    assert_close(HeatmapVarianceLoss([2.0, 1.0])(maps, target), torch.tensor(1.0))
    assert_close(HeatmapVarianceLoss([1.0, 2.0])(maps, target), torch.tensor(9.0 + 16.0))
    # In normalised units a cell is 2 / 7 wide and 2 / 3 high.
    wanted = 9 * (2 / 7) ** 4 + 16 * (2 / 3) ** 4
    loss = HeatmapVarianceLoss([1.0, 2.0], unit='normalized')
    assert_close(loss(maps, target), torch.tensor(wanted))


@pytest.mark.parametrize('cls', REGULARIZERS)
def test_maps_that_saturate_in_half_precision(cls):
    """Logits of 1e4 make maps of zeros and a single one, labels lie far off it."""
    for dtype in (torch.float16, torch.bfloat16):
        logits = torch.full((2, 3, 7, 5), -1e4, dtype=dtype)
        logits[..., 2, 3] = 1e4
        logits.requires_grad_()
        target = torch.full((2, 3, 2), -0.99, dtype=dtype)
        loss = cls(sigma_px=0.5)(F.normalize_heatmap(logits).to(dtype), target)
        loss.backward()
        assert loss.isfinite()
        assert loss > 0.1
        assert logits.grad.isfinite().all()


def test_configs_of_the_registry(generator):
    maps, target = F.normalize_heatmap(make_logits(generator)), make_points(generator)
    for cls in REGULARIZERS:
        config = ConfigDict(type=f'mmloss_plugins.{cls.__name__}', sigma_px=[1.0, 2.0])
        for built in (MODELS.build(config), MODELS.build(dict(config))):
            assert_close(built(maps, target), cls(sigma_px=(1.0, 2.0))(maps, target))
            assert 'sigma_px=(1.0, 2.0)' in repr(built)


def test_spread_is_logged_in_pixels():
    # A quarter of the mass in four cells two apart: variance 1 px^2 along both axes. All mass in
    # one cell: 0. Half each in columns 0 and 4: 4 px^2 along x, 0 along y, 2 on average.
    maps = torch.zeros(1, 3, 5, 6)
    for row in (0, 2):
        for column in (1, 3):
            maps[0, 0, row, column] = 0.25
    maps[0, 1, 2, 2] = 1
    maps[0, 2, 3, [0, 4]] = 0.5
    target = torch.zeros(1, 3, 2)
    loss = HeatmapJSLoss()

    def spread(*weight):
        return loss.diagnostics(maps, target, *weight)['heatmap_std_px'].item()

    assert spread() == pytest.approx(1.0)
    assert spread(torch.tensor([[0.0, 0.0, 0.3]])) == pytest.approx(math.sqrt(2))
    assert spread(torch.tensor([[1.0, 1.0, 0.0]])[..., None]) == pytest.approx(math.sqrt(0.5))
    assert spread(None, torch.tensor([[False, True, False]])) == pytest.approx(0)
    maps[0, 1] = math.nan
    assert spread(torch.tensor([[1.0, 0.0, 0.0]])) == pytest.approx(1.0)


MAPS, POINTS = torch.rand(2, 3, 7, 5), torch.zeros(2, 3, 2)


@pytest.mark.parametrize('cls', REGULARIZERS)
@pytest.mark.parametrize(
    ('arguments', 'error', 'text'),
    [
        (
            (MAPS, MAPS),
            ValueError,
            'target must have the shape (2, 3, 2) for heatmaps (2, 3, 7, 5), got (2, 3, 7, 5). '
            'Pass the coordinates (x, y, ...) of DSNTLabel: the loss makes the Gaussian.',
        ),
        ((MAPS, POINTS[:, :2]), ValueError, 'target must have the shape (2, 3, 2)'),
        ((POINTS[..., 0], POINTS), ValueError, 'pred must have the shape (B, K, *S)'),
        ((MAPS, POINTS.numpy()), TypeError, 'target must be a tensor, got ndarray'),
        ((MAPS, POINTS.clone().requires_grad_()), ValueError, 'target must not require a gradient'),
    ],
)
def test_bad_inputs(cls, arguments, error, text):
    with pytest.raises(error, match=re.escape(f'{cls.__name__}: {text}')):
        cls()(*arguments)


def test_sigma_of_another_number_of_axes():
    text = 'HeatmapJSLoss: sigma_px must hold one value per axis of the map, 2, got (1.0, 1.0, 2.0)'
    with pytest.raises(ValueError, match=re.escape(text)):
        HeatmapJSLoss(sigma_px=[1.0, 1.0, 2.0])(MAPS, POINTS)


@pytest.mark.parametrize(
    ('options', 'error', 'text'),
    [
        (dict(sigma_px=0), ValueError, 'sigma_px must be > 0 and finite, got 0'),
        (dict(sigma_px=(1.0, -2.0)), ValueError, 'sigma_px must be > 0 and finite'),
        (dict(sigma_px='1'), TypeError, 'sigma_px must be a number or one per axis'),
        (dict(sigma_px=True), TypeError, 'sigma_px must be a number or one per axis'),
        (dict(sigma=1.0), TypeError, "Did you mean 'sigma_px'?"),
        (dict(base='2'), ValueError, "base must be 'e' or 2, got '2'"),
    ],
)
def test_mistakes_die_in_the_constructor(options, error, text):
    with pytest.raises(error, match=re.escape(text)):
        HeatmapJSLoss(**options)


def test_a_near_miss_of_the_unit_gets_the_right_word():
    with pytest.raises(ValueError, match="Did you mean 'normalized'"):
        HeatmapVarianceLoss(unit='normalised')


@pytest.mark.parametrize(
    ('pred', 'text'),
    [
        (torch.rand(2, 3, 2), 'target must have the shape (2, 3, 2) of pred, got (2, 3, 7, 5)'),
        (
            MAPS[:, 0, 0, 0],
            'pred and target must have the shape (B, K, D) of coordinates, got (2,)',
        ),
    ],
)
def test_bad_points(pred, text):
    target = MAPS if pred.dim() > 1 else pred
    with pytest.raises(ValueError, match=re.escape(f'EuclideanLoss: {text}')):
        EuclideanLoss()(pred, target)
