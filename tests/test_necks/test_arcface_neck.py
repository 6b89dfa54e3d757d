"""ArcFaceNeck: the layers in order, by hand in float64, options, half precision, errors."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from mmengine.registry import MODELS as ROOT
from torch import nn
from torch.testing import assert_close

from mmloss_plugins.necks import ArcFaceNeck


def normalized(x, dims):
    """Return x as BatchNorm has it in training: the biased variance."""
    mean = x.mean(dims, keepdim=True)
    variance = (x - mean).square().mean(dims, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt()


def build(**options):
    return ArcFaceNeck(**{'in_channels': 3, 'out_channels': 2, 'dropout': 0.0, **options})


class TestValues:
    def test_flattened_as_the_authors_have_it(self):
        neck = build(feat_size=(2, 5)).double()
        x = torch.randn(6, 3, 2, 5, dtype=torch.float64) * 3 + 1
        flat = normalized(x, (0, 2, 3)).reshape(6, 30)
        assert_close(neck(x), normalized(flat @ neck.fc.weight.T, (0,)))

    def test_averaged(self):
        neck = build().double()
        x = torch.randn(6, 3, 4, 5, dtype=torch.float64)
        pooled = normalized(x, (0, 2, 3)).sum((2, 3)) / 20
        assert_close(neck(x), normalized(pooled @ neck.fc.weight.T, (0,)))

    def test_features_without_pixels(self):
        neck = build()
        x = torch.randn(6, 3)
        assert_close(neck(x), neck(x[:, :, None, None]))
        assert_close(neck(x).mean(0), torch.zeros(2), atol=1e-6, rtol=0)

    def test_the_last_of_several_is_read(self):
        neck = build()
        maps = (torch.randn(4, 7, 8, 8), torch.randn(4, 3, 2, 5))
        assert_close(neck(maps), neck(maps[1]))

    def test_bare_it_is_the_fully_connected_layer(self):
        neck = build(input_norm=False, output_norm=False)
        x = torch.randn(4, 3)
        assert_close(neck(x), x @ neck.fc.weight.T + neck.fc.bias)

    def test_dropout_is_of_what_enters_the_layer(self):
        neck = build(dropout=0.5, input_norm=False, output_norm=False, bias=False)
        nn.init.eye_(neck.fc.weight)
        out = neck(torch.ones(400, 3, 2, 2))
        # Half of the numbers, the others doubled; after the average over pixels, not before.
        assert set(out.unique().tolist()) == {0.0, 2.0}
        assert out.mean().item() == pytest.approx(1, abs=0.15)
        assert_close(neck.eval()(torch.ones(1, 3)), torch.ones(1, 2))


class TestOptions:
    def test_the_scale_of_the_embedding_is_not_learned(self):
        learned = {name for name, p in build().named_parameters() if p.requires_grad}
        assert learned == {'input_norm.weight', 'input_norm.bias', 'fc.weight', 'output_norm.bias'}
        scaled = build(output_scale=True)
        assert scaled.output_norm.weight.requires_grad
        build()(torch.randn(4, 3)).square().sum().backward()

    @pytest.mark.parametrize(
        ('options', 'has_bias'),
        [({}, False), (dict(output_norm=False), True), (dict(bias=True), True)],
    )
    def test_bias(self, options, has_bias):
        assert (build(**options).fc.bias is not None) is has_bias

    def test_one_number_is_a_square(self):
        assert build(feat_size=7).fc.in_features == 3 * 49

    def test_initialised_by_the_runner(self):
        neck = build(in_channels=300, out_channels=100)
        neck.init_weights()
        # Xavier: sqrt(2 / (300 + 100)) = 0.0707.
        assert neck.fc.weight.std().item() == pytest.approx(0.0707, rel=0.02)

    def test_built_by_a_config_of_any_host(self):
        config = dict(type='mmloss_plugins.ArcFaceNeck', in_channels=3, out_channels=2)
        assert type(ROOT.build(config)) is ArcFaceNeck


def test_float32_under_autocast():
    neck = build(input_norm=False, output_norm=False, bias=False)
    nn.init.constant_(neck.fc.weight, 300.0)
    x = torch.full((2, 3), 200.0)
    with torch.autocast('cpu', dtype=torch.float16):
        out = neck(x.half())
    # 3 * 200 * 300 is beyond 65504.
    assert_close(out, torch.full((2, 2), 180000.0))


def test_resumed():
    trained, fresh = build(), build()
    trained(torch.randn(8, 3))
    fresh.load_state_dict(copy.deepcopy(trained.state_dict()))
    x = torch.randn(4, 3)
    assert_close(fresh.eval()(x), trained.eval()(x), rtol=0, atol=0)


class TestErrors:
    @pytest.mark.parametrize(
        ('options', 'error', 'text'),
        [
            (dict(in_channels=0), ValueError, 'in_channels must be a positive integer, got 0'),
            (dict(out_channels=2.0), ValueError, 'out_channels must be a positive integer, got 2.'),
            (dict(dropout=1.0), ValueError, 'dropout must be within [0, 1), got 1.0'),
            (dict(feat_size=(7, 7, 7)), ValueError, 'feat_size must be a positive integer or (h'),
            (dict(feat_size=0), ValueError, 'feat_size must be a positive integer or (h'),
            (dict(input_norm='BN'), TypeError, "input_norm must be True or False, got 'BN'"),
            (dict(bias='yes'), TypeError, "bias must be True or False, got 'yes'"),
        ],
    )
    def test_mistakes_die_in_the_constructor(self, options, error, text):
        with pytest.raises(error, match=re.escape(f'ArcFaceNeck: {text}')):
            build(**options)

    @pytest.mark.parametrize('shape', [(4, 5, 2, 5), (4, 3, 5, 2), (4, 3), (4, 3, 10), (3,)])
    def test_another_feature_map(self, shape):
        text = re.escape(f'feats must have the shape (B, 3, 2, 5), got {shape}. Set in_channels')
        with pytest.raises(ValueError, match=text):
            build(feat_size=(2, 5))(torch.rand(shape))
