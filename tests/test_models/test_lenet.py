"""LeNet++: the layers of the paper's table, sizes, first weights, training, errors."""

from __future__ import annotations

import pytest
import torch
from mmengine.registry import MODELS as ROOT
from torch import nn
from torch.nn.functional import conv2d, max_pool2d, prelu

from mmloss_plugins.models import LeNetPlusPlus

SMALL = dict(channels=(3, 5), kernel_size=3)


def build(**options):
    torch.manual_seed(0)
    model = LeNetPlusPlus(**options)
    model.init_weights()
    return model


def test_layers_of_the_paper():
    # Table 1: (5, 32) x 2, (5, 64) x 2, (5, 128) x 2, each stage a maximum over 2x2, stride 1 and
    # padding 2 of the convolutions, which have biases; 28 -> 14 -> 7 -> 3.
    model = LeNetPlusPlus()
    convolutions = [each for each in model.modules() if isinstance(each, nn.Conv2d)]
    shapes = [tuple(each.weight.shape) for each in convolutions]
    assert shapes == [
        (32, 1, 5, 5),
        (32, 32, 5, 5),
        (64, 32, 5, 5),
        (64, 64, 5, 5),
        (128, 64, 5, 5),
        (128, 128, 5, 5),
    ]
    assert all(each.bias is not None and each.stride == (1, 1) for each in convolutions)
    assert model(torch.rand(2, 1, 28, 28))[0].shape == (2, 128, 3, 3)
    # Weights and biases of the convolutions, one slope for each channel.
    weights = 25 * (1 * 32 + 32 * 32 + 32 * 64 + 64 * 64 + 64 * 128 + 128 * 128)
    assert sum(p.numel() for p in model.parameters()) == weights + 2 * 2 * (32 + 64 + 128)


@pytest.mark.parametrize('norm', [False, True])
def test_is_convolution_norm_prelu_twice_then_the_maximum(norm):
    model = build(in_channels=2, norm=norm, **SMALL).double().eval()
    for norm_layer in (each for each in model.modules() if isinstance(each, nn.BatchNorm2d)):
        nn.init.normal_(norm_layer.running_mean)
        nn.init.uniform_(norm_layer.running_var, 0.5, 2.0)
    images = torch.randn(2, 2, 9, 14, dtype=torch.float64)
    weights = iter(p.detach() for p in model.parameters())
    statistics = iter(b for name, b in model.named_buffers() if 'running' in name)
    x = images
    for _ in range(2):
        for _ in range(2):
            if norm:
                x = conv2d(x, next(weights), padding=1)
                mean, variance = next(statistics), next(statistics)
                gain, bias = next(weights), next(weights)
                x = (x - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
                x = gain[:, None, None] * x + bias[:, None, None]
            else:
                x = conv2d(x, next(weights), next(weights), padding=1)
            x = prelu(x, next(weights))
        x = max_pool2d(x, 2)
    (found,) = model(images)
    assert found.shape == (2, 5, 2, 3)
    torch.testing.assert_close(found, x)


def test_norm_replaces_the_bias_that_it_would_take_out():
    convolutions = [each for each in build(norm=True).modules() if isinstance(each, nn.Conv2d)]
    assert all(each.bias is None for each in convolutions)


def test_first_weights_are_of_xavier():
    # Uniform with variance 2 / (fan_in + fan_out), within sqrt(3) standard deviations.
    model = build()
    weight = model.stages[2][2].weight.detach()
    std = (2 / (25 * (128 + 128))) ** 0.5
    assert weight.std().item() == pytest.approx(std, rel=0.02)
    assert weight.abs().max().item() == pytest.approx(3**0.5 * std, rel=0.01)
    assert all((each.bias == 0).all() for each in model.modules() if isinstance(each, nn.Conv2d))
    assert build(init_cfg=dict(type='Constant', layer='Conv2d', val=0.5)).stages[0][0].weight[
        0, 0, 0, 0
    ].item() == pytest.approx(0.5)


@pytest.mark.parametrize(('size', 'expected'), [((4, 4), (1, 1)), ((8, 5), (2, 1))])
def test_smallest_images(size, expected):
    assert build(**SMALL)(torch.rand(2, 1, *size))[0].shape == (2, 5, *expected)


def test_every_parameter_learns():
    model = build(norm=True, **SMALL)
    model(torch.randn(4, 1, 8, 8))[0].square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_in_a_batch_as_alone():
    model = build(**SMALL).eval()
    images = torch.randn(3, 1, 8, 12)
    alone = torch.cat([model(image.unsqueeze(0))[0] for image in images])
    torch.testing.assert_close(model(images)[0], alone)


def test_built_by_a_config_of_any_host():
    model = ROOT.build(dict(type='mmloss_plugins.LeNetPlusPlus', channels=[4], in_channels=3))
    assert type(model) is LeNetPlusPlus
    assert model(torch.rand(2, 3, 6, 4))[0].shape == (2, 4, 3, 2)


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        (dict(in_channels=0), 'in_channels must be a positive integer, got 0. The paper has'),
        (dict(in_channels=1.0), 'in_channels must be a positive integer, got 1.0'),
        (dict(channels=()), r'channels must hold a positive integer for each stage, got \(\)'),
        (dict(channels=(32, 0)), r'channels must hold a positive integer for each stage'),
        (dict(channels=32), 'channels must hold a positive integer for each stage, got 32'),
        (dict(kernel_size=4), 'kernel_size must be an odd positive integer, got 4'),
        (dict(kernel_size=-1), 'kernel_size must be an odd positive integer, got -1'),
    ],
)
def test_bad_sizes(options, text):
    with pytest.raises(ValueError, match=text):
        LeNetPlusPlus(**options)


def test_switch():
    with pytest.raises(TypeError, match='norm must be True or False, got 1'):
        LeNetPlusPlus(norm=1)


@pytest.mark.parametrize(
    ('shape', 'got'), [((2, 1, 7, 9), '7, 9'), ((2, 3, 9, 9), '3, 9, 9'), ((1, 9, 9), '1, 9, 9')]
)
def test_other_images(shape, got):
    with pytest.raises(
        ValueError, match=rf'x must be images \(B, 1, H, W\) of at .* 8x8, got.*{got}'
    ):
        LeNetPlusPlus()(torch.rand(shape))
