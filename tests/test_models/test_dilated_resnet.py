"""The dilated ResNet against the plain one, torchvision's and a dense computation by hand."""

from __future__ import annotations

import pytest
import torch
import torchvision
from mmpose.models.backbones import ResNet
from mmpose.registry import MODELS
from torch import nn
from torch.nn.functional import conv2d, max_pool2d, relu
from torch.testing import assert_close

from mmloss_plugins.models import DilatedResNet

# Of the first convolution of each dilated stage and of its others, by number of dilated stages.
DILATIONS = {
    0: {2: (1, 1), 3: (1, 1), 4: (1, 1)},
    1: {2: (1, 1), 3: (1, 1), 4: (1, 2)},
    2: {2: (1, 1), 3: (1, 2), 4: (1, 4)},
    3: {2: (1, 2), 3: (1, 4), 4: (1, 8)},
}


def filled(backbone):
    """Random weights and statistics, so that no residual branch is zero, in evaluation mode."""
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode='fan_in')
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.uniform_(module.bias, -0.1, 0.1)
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return evaluated(backbone.double())


def evaluated(backbone):
    backbone.eval()  # MMPose's returns None
    return backbone


def images():
    return torch.rand(1, 3, 64, 96, dtype=torch.float64)


def by_hand(state, image, block_convs, dilated_stages):
    """ResNet-18 or 50 from its state dict alone, each convolution with its dilation written out."""

    def norm(x, name):
        mean, var, weight, bias = (
            state[f'{name}.{key}'].view(1, -1, 1, 1)
            for key in ('running_mean', 'running_var', 'weight', 'bias')
        )
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    def conv(x, name, stride=1, dilation=1):
        weight = state[f'{name}.weight']
        padding = dilation * (weight.shape[-1] // 2)
        return conv2d(x, weight, None, stride, padding, dilation)

    x = relu(norm(conv(image, 'conv1', stride=2), 'bn1'))
    x = max_pool2d(x, 3, 2, 1)
    for stage in (1, 2, 3, 4):
        first, others = DILATIONS[dilated_stages].get(stage, (1, 1))
        stride = 1 if stage == 1 or stage > 4 - dilated_stages else 2
        blocks = {key.split('.')[1] for key in state if key.startswith(f'layer{stage}.')}
        for block in range(len(blocks)):
            name = f'layer{stage}.{block}'
            identity, y = x, x
            for i in range(1, block_convs + 1):
                # The 3x3 with the stride is conv1 of a BasicBlock and conv2 of a Bottleneck.
                is_strided = block == 0 and i == (1 if block_convs == 2 else 2)
                wide = state[f'{name}.conv{i}.weight'].shape[-1] == 3
                dilation = (first if is_strided else others) if wide else 1
                y = conv(y, f'{name}.conv{i}', stride if is_strided else 1, dilation)
                y = norm(y, f'{name}.bn{i}')
                y = relu(y) if i < block_convs else y
            if f'{name}.downsample.0.weight' in state:
                identity = conv(x, f'{name}.downsample.0', stride)
                identity = norm(identity, f'{name}.downsample.1')
            x = relu(y + identity)
    return x


@pytest.mark.parametrize(('dilated_stages', 'side'), [(0, 7), (1, 14), (2, 28), (3, 56)])
def test_sides_of_the_paper(dilated_stages, side):
    backbone = evaluated(DilatedResNet(18, dilated_stages=dilated_stages))
    with torch.no_grad():
        (feature,) = backbone(torch.zeros(1, 3, 224, 224))
    assert feature.shape == (1, 512, side, side)


@pytest.mark.parametrize('dilated_stages', DILATIONS)
@pytest.mark.parametrize('depth', [18, 34, 50, 101])
def test_dilations_of_the_authors(depth, dilated_stages):
    with torch.device('meta'):
        backbone = DilatedResNet(depth, dilated_stages=dilated_stages)
    for stage, (first, others) in DILATIONS[dilated_stages].items():
        convs = [
            module
            for module in backbone.get_submodule(f'layer{stage}').modules()
            if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)
        ]
        wanted = [first] + [others] * (len(convs) - 1)
        assert [conv.dilation for conv in convs] == [(d, d) for d in wanted]
        assert [conv.padding for conv in convs] == [(d, d) for d in wanted]


@pytest.mark.parametrize('dilated_stages', [1, 2, 3])
@pytest.mark.parametrize(('depth', 'block_convs'), [(18, 2), (50, 3)])
def test_equals_a_computation_from_the_weights_alone(depth, block_convs, dilated_stages):
    backbone = filled(DilatedResNet(depth, dilated_stages=dilated_stages))
    image = images()
    with torch.no_grad():
        wanted = by_hand(backbone.state_dict(), image, block_convs, dilated_stages)
        assert_close(backbone(image)[0], wanted)


@pytest.mark.parametrize('depth', [18, 50])
@pytest.mark.parametrize('dilated_stages', [0, 1, 2, 3])
def test_every_second_cell_is_the_plain_resnet(depth, dilated_stages):
    """A trous: exact, borders included, up to the first stage that is dilated."""
    dilated = filled(DilatedResNet(depth, dilated_stages=dilated_stages, out_indices=(0, 1, 2, 3)))
    plain = evaluated(ResNet(depth, out_indices=(0, 1, 2, 3)).double())
    plain.load_state_dict(dilated.state_dict())
    image = images()
    with torch.no_grad():
        found, wanted = dilated(image), plain(image)
    first = 4 - dilated_stages  # index of the first dilated stage; none for 0
    for stage in range(min(first, 4)):
        assert_close(found[stage], wanted[stage])
    if dilated_stages:
        assert_close(found[first][..., ::2, ::2], wanted[first])
    if dilated_stages > 1:
        # The undilated first convolution of the next stage ends the identity.
        assert not torch.allclose(found[first + 1][..., ::4, ::4], wanted[first + 1], rtol=0.01)


@pytest.mark.parametrize('depth', [34, 101])
def test_checkpoints_of_both_hosts_load_unchanged(depth):
    with torch.device('meta'):
        dilated = DilatedResNet(depth, dilated_stages=3).state_dict()
        plain = ResNet(depth).state_dict()
        vision = getattr(torchvision.models, f'resnet{depth}')().state_dict()
    shapes = {name: value.shape for name, value in dilated.items()}
    assert shapes == {name: value.shape for name, value in plain.items()}
    vision = {name: value.shape for name, value in vision.items() if not name.startswith('fc.')}
    assert shapes == vision


def test_differs_from_the_dilation_of_mmpose():
    ours = filled(DilatedResNet(18, dilated_stages=1))
    host = evaluated(ResNet(18, strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2)).double())
    host.load_state_dict(ours.state_dict())
    image = images()
    with torch.no_grad():
        assert not torch.allclose(ours(image)[0], host(image)[0], rtol=0.01)


def test_caffe_style_dilates_every_3x3():
    backbone = DilatedResNet(50, dilated_stages=1, style='caffe')
    assert [block.conv2.dilation for block in backbone.layer4] == [(2, 2)] * 3
    assert backbone(torch.zeros(2, 3, 64, 64))[0].shape == (2, 2048, 4, 4)


def test_builds_from_a_config_of_mmpose():
    backbone = MODELS.build(dict(type='mmloss_plugins.DilatedResNet', depth=34, dilated_stages=2))
    assert type(backbone) is DilatedResNet
    assert backbone.strides == (1, 2, 1, 1)


@pytest.mark.parametrize(
    ('options', 'error', 'text'),
    [
        (dict(depth=35), ValueError, r'depth must be one of 18, 34, 50, 101, 152, got 35\.'),
        (dict(depth='34'), ValueError, r"depth must be one of .*, got '34'\."),
        (dict(dilated_stages=4), ValueError, r'dilated_stages must be 0, 1, 2 or 3, got 4\.'),
        (dict(dilated_stages=-1), ValueError, r'dilated_stages must be .*, got -1\.'),
        (dict(dilated_stages=True), TypeError, r'dilated_stages must be .*, got True\.'),
        (dict(dilated_stages=1.0), TypeError, r'dilated_stages must be .*, got 1\.0\.'),
        (dict(strides=(1, 2, 2, 1)), ValueError, r'strides must be left out, got .*dilated_stages'),
        (dict(dilations=(1, 1, 1, 2)), ValueError, r'dilations must be left out, got '),
        (dict(num_stages=3), ValueError, r'num_stages must be left out, got 3\.'),
        (dict(dilate=2), TypeError, r'dilate'),
    ],
)
def test_wrong_arguments(options, error, text):
    with pytest.raises(error, match=text):
        DilatedResNet(**dict(dict(depth=18), **options))
