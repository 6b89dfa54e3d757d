"""The pixel classifier: prior, modes, a step that reaches every parameter, errors."""

from __future__ import annotations

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS as ROOT
from torch import nn

from mmloss_plugins.models import PixelClassifier

FOCAL = dict(type='mmloss_plugins.SigmoidFocalLoss')


def build(**options):
    model = PixelClassifier(**{'loss': FOCAL, **options})
    model.init_weights()
    return model


@pytest.fixture
def batch():
    target = torch.zeros(2, 1, 12, 17)
    target[:, :, 5:7, 8:10] = 1
    return dict(inputs=torch.rand(2, 1, 12, 17), data_samples=dict(target=target))


class TestPrior:
    @pytest.mark.parametrize('prior', [0.01, 0.3])
    def test_every_pixel_starts_at_the_prior(self, prior, batch):
        model = build(prior_prob=prior)
        # The features add a little to the bias: compare the bias itself and, loosely, the map.
        assert model.logits.bias.sigmoid().item() == pytest.approx(prior, rel=1e-5)
        with torch.no_grad():
            probs = model(batch['inputs'] * 0, mode='tensor').sigmoid()
        torch.testing.assert_close(probs, torch.full_like(probs, prior))

    def test_none_starts_at_one_half(self, batch):
        with torch.no_grad():
            logits = build()(batch['inputs'] * 0)
        torch.testing.assert_close(logits, torch.zeros_like(logits), rtol=0, atol=0)

    def test_a_second_initialisation_changes_nothing(self):
        model = build(prior_prob=0.01)
        nn.init.constant_(model.logits.bias, 3.0)
        model.init_weights()
        assert model.logits.bias.item() == 3.0

    @pytest.mark.parametrize('prior', [0.0, 1.0, -0.1])
    def test_outside_of_0_and_1(self, prior):
        with pytest.raises(ValueError, match=r'prior_prob must be between 0 and 1, got'):
            PixelClassifier(FOCAL, prior_prob=prior)


class TestModes:
    def test_tensor_keeps_the_size(self, batch):
        assert build()(batch['inputs']).shape == (2, 1, 12, 17)

    def test_loss_is_the_loss_of_the_logits(self, batch):
        model = build(prior_prob=0.01)
        losses = model(**batch, mode='loss')
        expected = model.loss_module(model(batch['inputs']), batch['data_samples']['target'])
        assert list(losses) == ['loss_pixels']
        torch.testing.assert_close(losses['loss_pixels'], expected)

    def test_predict_gives_probabilities_per_image(self, batch):
        model = build(prior_prob=0.01).eval()
        samples = model.val_step(batch)
        assert len(samples) == 2
        probs = torch.stack([sample['prob'] for sample in samples])
        torch.testing.assert_close(probs, model(batch['inputs']).sigmoid())
        targets = torch.stack([sample['target'] for sample in samples])
        torch.testing.assert_close(targets, batch['data_samples']['target'])

    def test_unknown_mode_and_missing_samples(self, batch):
        with pytest.raises(ValueError, match=r"mode must be one of 'tensor', 'loss', 'predict'"):
            build()(batch['inputs'], mode='train')
        with pytest.raises(ValueError, match=r"data_samples must be a dict with 'target', got Non"):
            build()(batch['inputs'], mode='loss')


class TestArchitecture:
    @pytest.mark.parametrize(('depth', 'seen'), [(1, 3), (3, 7), (4, 9)])
    def test_field_of_view(self, depth, seen):
        model = build(depth=depth, channels=5)
        image = torch.randn(1, 1, 21, 21, requires_grad=True)
        model(image)[0, 0, 10, 10].backward()
        rows = (image.grad[0, 0].abs().sum(1) > 0).nonzero().flatten()
        assert (int(rows[0]), int(rows[-1])) == (10 - seen // 2, 10 + seen // 2)

    def test_channels_and_in_channels(self):
        model = build(in_channels=3, channels=5, depth=2)
        shapes = [tuple(p.shape) for p in model.parameters() if p.dim() == 4]
        assert shapes == [(5, 3, 3, 3), (5, 5, 3, 3), (1, 5, 1, 1)]

    @pytest.mark.parametrize('name', ['in_channels', 'channels', 'depth'])
    def test_sizes_are_positive_integers(self, name):
        with pytest.raises(ValueError, match=f'{name} must be an integer of at least 1, got 0'):
            PixelClassifier(FOCAL, **{name: 0})
        with pytest.raises(TypeError, match=f'{name} must be an integer of at least 1, got 2.0'):
            PixelClassifier(FOCAL, **{name: 2.0})


def test_built_by_a_config_of_any_host(batch):
    model = ROOT.build(dict(type='mmloss_plugins.PixelClassifier', loss=FOCAL, depth=1))
    assert type(model) is PixelClassifier


def test_training_lowers_the_loss_and_moves_every_parameter(batch):
    model = build(prior_prob=0.01, loss=dict(FOCAL, mean_over='positives'))
    before = [p.detach().clone() for p in model.parameters()]
    wrapper = OptimWrapper(torch.optim.Adam(model.parameters(), lr=1e-2))
    values = [model.train_step(batch, wrapper)['loss_pixels'].item() for _ in range(20)]
    assert values[-1] < 0.7 * values[0]
    assert all((p != old).any() for p, old in zip(model.parameters(), before))
