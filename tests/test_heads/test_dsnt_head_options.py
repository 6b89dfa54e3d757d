"""DSNTHead: what its constructor refuses, and with which advice."""

from __future__ import annotations

import re

import pytest
import torch
from mmengine.registry import init_default_scope
from mmpose.models.losses import MultipleLossWrapper

from mmloss_plugins.heads import DSNTHead, FCHeatmapHead
from mmloss_plugins.losses import MultiLoss
from mmloss_plugins.registry import MODELS

from .dsnt_cases import CODECS, INPUT, MAP, build, features

WRAPPER = [dict(type='SmoothL1Loss'), dict(type='JSDiscretLoss')]
MSRA = dict(type='MSRAHeatmap', input_size=INPUT, heatmap_size=MAP, sigma=2)


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmpose')


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        ({'normalization': 'softmx'}, "normalization must be one of .*Did you mean 'softmax'"),
        ({'normalization': 'relu', 'beta': 2.0}, "beta must be 1 .* got 2.0. 'relu' does not"),
        ({'beta': 0.0}, 'beta must be positive and finite, got 0.0'),
        ({'threshold': -1.0}, "threshold must be left out .*thresholded_softmax', got -1.0"),
        ({'normalization': 'abs', 'debias': True}, 'debias must be False without normalization='),
        ({'score': 'maximum'}, "score must be one of 'mass', 'peak', got 'maximum'"),
        ({'score_radius_px': -1.0}, 'score_radius_px must be positive and finite, got -1.0'),
        ({'score_radius_px': float('nan')}, 'score_radius_px must be positive and finite, got nan'),
        ({'num_stages': 0}, 'num_stages must be a positive whole number, got 0'),
        ({'num_stages': 1.5}, 'num_stages must be a positive whole number, got 1.5'),
        ({'in_channels': [8, 16]}, r'in_channels must be one number, got \[8, 16\].*neck'),
        ({'lambda_t': 30}, r'lambda_t must be -1, got 30. Write loss=.*milestones=\[30\]'),
        (
            {'num_joints': 4},
            'out_channels must be the number of keypoints, got 3, and num_joints=4',
        ),
        ({'out_channels': None}, 'out_channels must be the number of keypoints, got None'),
        ({'decoder': MSRA}, 'decoder must be DSNTLabel, or .*, got MSRAHeatmap. Write decoder='),
        (
            {'loss': dict(type='MultipleLossWrapper', losses=WRAPPER)},
            r"loss must be None, .*got 'MultipleLossWrapper'. Write loss=None .*HeatmapJSLoss",
        ),
        (
            {'loss': dict(type='mmpose.MultipleLossWrapper', losses=WRAPPER)},
            r"loss must be None, .*got 'mmpose.MultipleLossWrapper'",
        ),
        ({'loss': dict(type=MultipleLossWrapper, losses=WRAPPER)}, 'loss must be None'),
    ],
)
def test_values_that_are_refused(options, text):
    with pytest.raises(ValueError, match=f'^DSNTHead: {text}'):
        build(**options)


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        ({'normalisation': 'relu'}, "got 'normalisation'. Did you mean 'normalization'?"),
        ({'num_joint': 3}, "got 'num_joint'. Did you mean 'num_joints'?"),
        ({'loss': 'EuclideanLoss'}, "loss must be the config of a loss, or None, got 'Eucl"),
        ({'loss': dict(sigma_px=2.0)}, 'loss must be the config of a loss, or None, got {'),
    ],
)
def test_types_and_names_that_are_refused(options, text):
    with pytest.raises(TypeError, match=re.escape(text)):
        build(**options)


def test_both_names_of_the_number_of_keypoints():
    for given in (dict(out_channels=None, num_joints=4), dict(out_channels=4, num_joints=4)):
        head = build(**given, in_featuremap_size=(1, 2))
        assert head.out_channels == 4
        assert head.forward(features())[0].shape == (2, 4, 2)


def test_losses_by_class_and_by_name():
    terms = dict(coord=dict(type='mmloss_plugins.EuclideanLoss'))
    for kind in ('mmloss_plugins.MultiLoss', MultiLoss):
        head = build(loss=dict(type=kind, terms=terms, weights=dict(coord=0.5)))
        assert head.loss_module.current_weights() == {'coord': 0.5}


def test_without_a_codec():
    """The coordinates of forward are the paper's; prediction says what is missing."""
    head = build(codec=None)
    assert (head.forward(features())[0].abs() < 1).all()
    with pytest.raises(RuntimeError, match='decoder has not been set'):
        head.predict(features(), None)


def test_codecs_decide_on_the_coordinates():
    means = {
        name: build(codec=codec).forward((torch.zeros(1, 8, MAP[1], MAP[0]),))[0][0, 0].tolist()
        for name, codec in CODECS.items()
    }
    # The middle of cells 0 to 15 is 7.5, of 0 to 11 it is 5.5.
    middle = [7.5 / 16, 5.5 / 12]
    assert means['centered'] == pytest.approx([0, 0], abs=1e-6)
    assert means['mmpose'] == pytest.approx(middle)
    assert means['host'] == pytest.approx(middle)


def test_registered_under_their_own_names():
    assert MODELS.get('mmloss_plugins.DSNTHead') is DSNTHead
    assert MODELS.get('mmloss_plugins.FCHeatmapHead') is FCHeatmapHead
