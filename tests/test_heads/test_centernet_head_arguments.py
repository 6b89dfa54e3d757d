"""CenterNetHead: what it refuses, and which way out its messages show."""

from __future__ import annotations

import pytest
import torch

from mmloss_plugins.registry import MODELS
from tests.test_heads.centernet_cases import build, features, samples

pytestmark = pytest.mark.usefixtures('mmdet_scope')


@pytest.mark.parametrize(
    ('argument', 'replacement'),
    [
        ('loss_center_heatmap', r"loss=dict\(heatmap_loss=dict\(.*GaussianFocalLoss'\)\)"),
        ('loss_wh', r"loss=dict\(size_loss=dict\(.*RegL1Loss'\), size_weight=0.1\)"),
        ('loss_offset', r"loss=dict\(offset_loss=dict\(.*RegL1Loss'\)\)"),
    ],
)
def test_losses_of_the_head_of_mmdet(argument, replacement):
    text = rf"^CenterNetHead: argument must .*, got '{argument}'. {argument} is of .*{replacement}"
    with pytest.raises(TypeError, match=text):
        build(**{argument: dict(type='L1Loss', loss_weight=0.1)})


@pytest.mark.parametrize('name', ['flip_test', 'scales', 'size_divisor'])
def test_options_of_the_detector_in_a_detector_of_mmdet(name):
    text = rf"^CenterNetHead.test_cfg: .*, got '{name}'. Set type='mmloss_plugins.HeatmapDetector'"
    with pytest.raises(TypeError, match=text):
        build(test_cfg={name: True})


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        ({'radius_imp': 'mmdet'}, "got 'radius_imp'. Did you mean 'radius_impl'"),
        ({'test_cfg': dict(top_k=3)}, "got 'top_k'. Did you mean 'topk'"),
        ({'loss': dict(size_wight=1)}, "got 'size_wight'. Did you mean 'size_weight'"),
        ({'loss': dict(type='mmloss_plugins.L1Loss')}, 'loss must be CtdetLoss.* got L1Loss'),
    ],
)
def test_misspelt_arguments(options, text):
    with pytest.raises(TypeError, match=text):
        build(**options)


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        ({'num_classes': 0}, 'num_classes must be an integer >= 1, got 0.'),
        ({'num_classes': '80'}, "num_classes must be an integer >= 1, got '80'"),
        ({'in_channels': -1}, 'in_channels must be an integer >= 1, got -1'),
        ({'feat_channels': 6.0}, 'feat_channels must be an integer >= 1, got 6.0'),
        ({'num_stacks': True}, 'num_stacks must be an integer >= 1, got True'),
        ({'max_objects': 0}, 'max_objects must be an integer >= 1, got 0. The authors have 128'),
        ({'prior_prob': 1.0}, r'prior_prob must be in \(0, 1\), got 1.0. The authors'),
        ({'radius_impl': 'cornernet'}, "radius_impl must be one of .*, got 'cornernet'"),
        ({'min_overlap': 1.5}, 'min_overlap must be .* got 1.5'),
        ({'test_cfg': dict(topk=0)}, 'test_cfg: topk must be an integer >= 1, got 0'),
        ({'test_cfg': dict(max_per_img=-1)}, 'max_per_img must be an integer >= 1, got -1'),
        ({'test_cfg': dict(score_thr=1)}, r'score_thr must be in \[0, 1\), got 1'),
        ({'test_cfg': dict(local_maximum_kernel=2)}, 'kernel must be odd and positive, got 2'),
        ({'test_cfg': dict(nms=dict(type='softnms'))}, 'nms must be None or what .*soft_nms'),
        (
            {'test_cfg': dict(nms=dict(type='soft_nms', iou=0.5))},
            "nms must be None or what mmcv.*'iou'.*Set nms=dict",
        ),
        ({'test_cfg': dict(nms='soft_nms')}, 'nms must be None or what .*soft_nms'),
        (
            {'loss': dict(size_loss=dict(type='mmloss_plugins.RegL1Loss', class_specific=True))},
            r'loss.size_loss must have class_specific=False .* got True. Set size_loss=dict\(.*'
            r'class_specific=False\)',
        ),
    ],
)
def test_bad_configs_do_not_build(options, text):
    with pytest.raises(ValueError, match=text):
        build(**options)


def test_number_of_feature_maps():
    head = build(num_stacks=2)
    text = 'CenterNetHead: x must be num_stacks=2 feature maps, got 1. Set num_stacks'
    with pytest.raises(ValueError, match=text):
        head(features())
    with pytest.raises(ValueError, match=text):
        head.loss(features(), samples())


def test_levels_of_a_pyramid_are_no_stacks():
    x = (torch.zeros(2, 8, 16, 24), torch.zeros(2, 8, 8, 12))
    text = r'x must be feature maps of one size, got \[\(16, 24\), \(8, 12\)\]. Levels'
    with pytest.raises(ValueError, match=text):
        build(num_stacks=2).loss(x, samples())


def test_registered():
    head = MODELS.get('mmloss_plugins.CenterNetHead')
    assert head.__module__ == 'mmloss_plugins.heads.centernet'
