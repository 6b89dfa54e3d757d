"""ResNet with dilation in place of its last strides, as in the experiments of DSNT."""

from __future__ import annotations

from typing import Any

from mmpose.models.backbones import ResNet
from torch import nn

from mmloss_plugins.errors import message
from mmloss_plugins.registry import MODELS

WHAT = 'DilatedResNet'
FIXED = ('strides', 'dilations', 'num_stages')


@MODELS.register_module()
class DilatedResNet(ResNet):
    """``mmpose.ResNet`` whose last stages keep their resolution, with the authors' dilations.

    The first convolution of a stage that had stride 2 gets stride 1 and stays undilated; every
    other 3x3 convolution of the last stages is dilated by 2, 4, 8, in this order from the first
    dilated stage on. A side of 224 pixels gives a map of 7, 14, 28 or 56 cells. Parameters have
    the names and shapes of ``mmpose.ResNet`` and of torchvision, so that their ImageNet
    checkpoints load unchanged.

    Differs from ``mmpose.ResNet(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4))``, which also
    dilates the convolution that lost its stride, and of the two convolutions of a BasicBlock
    (depth 18 and 34) the first alone.

    With one dilated stage the output at every second cell is that of the plain ResNet (in
    evaluation mode), for zeros pad both. With more this holds up to the first dilated stage only:
    the undilated convolutions of the later ones see cells that the plain network had dropped.

    Args:
        depth: 18, 34, 50, 101 or 152.
        dilated_stages: number of last stages, 0 to 3, that keep their resolution.
        options: further arguments of ``mmpose.ResNet``, without 'strides', 'dilations' and
            'num_stages'.

    Raises:
        TypeError: ``dilated_stages`` is no integer, or an argument is unknown.
        ValueError: an unknown depth, ``dilated_stages`` outside 0 to 3, or strides, dilations or
            a number of stages beside it.

    Reference:
        A. Nibali et al., Numerical Coordinate Regression with Convolutional Neural Networks,
        arXiv 1801.07372; the dilations are those of the authors' code (dsnt-pose2d).

    Example:
        >>> import torch
        >>> backbone = DilatedResNet(18, dilated_stages=2)
        >>> backbone(torch.zeros(1, 3, 224, 224))[0].shape
        torch.Size([1, 512, 28, 28])
    """

    def __init__(self, depth: int, dilated_stages: int = 0, **options: Any) -> None:
        _check(depth, dilated_stages)
        for name in FIXED:
            if name in options:
                rule, step = 'be left out', 'Set dilated_stages, or take mmpose.ResNet'
                raise ValueError(message(WHAT, name, rule, options[name], step))
        strided = 3 - dilated_stages
        super().__init__(depth, strides=(1, *(2,) * strided, *(1,) * dilated_stages), **options)
        self.dilated_stages = dilated_stages
        for i, name in enumerate(self.res_layers[1 + strided :]):
            self._dilate(getattr(self, name), 2 ** (i + 1))

    def _dilate(self, stage: nn.Sequential, dilation: int) -> None:
        for i, block in enumerate(stage):
            convs = [conv for conv in block.children() if _is_3x3(conv)]
            # In the caffe style a 1x1 convolution had the stride.
            had_stride = 1 if i == 0 and self.style == 'pytorch' else 0
            for conv in convs[had_stride:]:
                conv.dilation = conv.padding = (dilation, dilation)


def _is_3x3(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)


def _check(depth: Any, dilated_stages: Any) -> None:
    if depth not in ResNet.arch_settings:
        rule = f'be one of {", ".join(map(str, ResNet.arch_settings))}'
        raise ValueError(message(WHAT, 'depth', rule, repr(depth), 'Take 34, or 50'))
    rule, step = 'be 0, 1, 2 or 3', 'Each one doubles the side of the output'
    if isinstance(dilated_stages, bool) or not isinstance(dilated_stages, int):
        raise TypeError(message(WHAT, 'dilated_stages', rule, repr(dilated_stages), step))
    if not 0 <= dilated_stages <= 3:
        raise ValueError(message(WHAT, 'dilated_stages', rule, dilated_stages, step))
