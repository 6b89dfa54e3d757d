"""BNNeck: both outputs by hand, what is trained, in EmbeddingClassifier, errors."""

from __future__ import annotations

import re

import pytest
import torch
from mmengine.registry import MODELS as ROOT
from torch import nn
from torch.testing import assert_close

from mmloss_plugins.models import EmbeddingClassifier
from mmloss_plugins.necks import BNNeck

LABELS = torch.tensor([0, 0, 2, 2, 1])


def maps():
    return torch.randn(5, 3, 6, 4, generator=torch.Generator().manual_seed(1)) * 2 + 1


class TestValues:
    def test_average_and_its_batchnorm(self):
        neck = BNNeck(3).double()
        nn.init.constant_(neck.norm.weight, 1.5)
        x = maps().double()
        average = x.sum((2, 3)) / 24
        variance = (average - average.mean(0)).square().mean(0)
        plain, normalized = neck(x)
        assert_close(plain, average)
        assert_close(normalized, 1.5 * (average - average.mean(0)) / (variance + 1e-5).sqrt())

    def test_of_the_running_statistics_at_test(self):
        neck = BNNeck(3).eval()
        neck.norm.running_mean.copy_(torch.tensor([1.0, 0.0, 2.0]))
        neck.norm.running_var.fill_(4.0)
        plain, normalized = neck(torch.full((1, 3, 2, 5), 3.0))
        assert plain.tolist() == [[3, 3, 3]]
        # (3 - mean) / 2
        assert_close(normalized, torch.tensor([[1.0, 1.5, 0.5]]), atol=1e-5, rtol=0)

    def test_features_without_pixels_and_the_last_of_several(self):
        x = maps().mean((2, 3))
        expected = BNNeck(3)(x)
        assert_close(BNNeck(3)(x[:, :, None, None]), expected)
        assert_close(BNNeck(3)((torch.rand(5, 7, 9, 9), x)), expected)
        assert_close(expected[0], x)

    def test_float32_under_autocast(self):
        with torch.autocast('cpu', dtype=torch.float16):
            plain, normalized = BNNeck(3)(torch.full((2, 3, 400, 300), 60000.0).half())
        assert plain.dtype == normalized.dtype == torch.float32
        assert_close(plain, torch.full((2, 3), 60000.0), rtol=1e-3, atol=0)


class TestTraining:
    def test_the_bias_stays_zero(self):
        neck = BNNeck(3)
        assert [name for name, p in neck.named_parameters() if p.requires_grad] == ['norm.weight']
        optimizer = torch.optim.Adam([p for p in neck.parameters() if p.requires_grad])
        neck(maps())[1].exp().sum().backward()
        optimizer.step()
        assert neck.norm.bias.count_nonzero() == 0
        assert (neck.norm.weight != 1).all()

    def test_losses_read_the_plain_one_and_the_head_the_other(self):
        center = dict(type='mmloss_plugins.CenterLoss', num_classes=3, feat_dim=3)
        head = dict(type='mmloss_plugins.SoftmaxHead', in_channels=3, num_classes=3, bias=False)
        model = EmbeddingClassifier(
            backbone=nn.Identity(),
            neck=dict(type='mmloss_plugins.BNNeck', in_channels=3),
            head=head,
            aux_losses=dict(center=center),
        )
        losses = model(maps(), LABELS, mode='loss')
        plain, normalized = BNNeck(3)(maps())
        # Centres start at the origin: half the mean of the squared lengths.
        assert_close(losses['loss_center'], plain.square().sum() / 2 / 5)
        logits = normalized @ model.head.weight.T
        assert_close(losses['loss_cls'], nn.functional.cross_entropy(logits, LABELS))
        model.eval()
        found = model(maps(), LABELS, mode='predict')
        expected = model.neck(maps())[1]
        assert_close(torch.stack([each['pred_feature'] for each in found]), expected)
        assert not torch.equal(expected, plain)

    def test_losses_of_mmdet_without_mmpretrain(self):
        pytest.importorskip('mmdet')
        loss = ROOT.build(dict(type='mmdet.TripletLoss', margin=0.3))
        x = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0], [0.0, 9.0]])
        # Farthest of the own class 5, 5, 8, 8; nearest of the other 1, sqrt(18), 1, sqrt(34).
        found = loss(x, torch.tensor([0, 0, 1, 1]))
        terms = [5 - 1, 5 - 18**0.5, 8 - 1, 8 - 34**0.5]
        assert_close(found, torch.tensor(sum(term + 0.3 for term in terms) / 4))


class TestErrors:
    @pytest.mark.parametrize('channels', [0, 3.0, None])
    def test_mistakes_die_in_the_constructor(self, channels):
        text = f'BNNeck: in_channels must be a positive integer, got {channels!r}. Take the'
        with pytest.raises(ValueError, match=re.escape(text)):
            BNNeck(channels)

    @pytest.mark.parametrize('shape', [(4, 5, 2, 5), (4, 5), (4, 3, 5), (3,)])
    def test_another_feature_map(self, shape):
        text = re.escape(f'feats must have the shape (B, 3, H, W), got {shape}. Set in_channels')
        with pytest.raises(ValueError, match=text):
            BNNeck(3)(torch.rand(shape))


def test_built_by_a_config_of_any_host():
    assert type(ROOT.build(dict(type='mmloss_plugins.BNNeck', in_channels=3))) is BNNeck
