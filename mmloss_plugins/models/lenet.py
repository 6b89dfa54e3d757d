"""LeNet++, the small network behind the pictures of two-dimensional embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor, nn

from mmloss_plugins.errors import message
from mmloss_plugins.registry import MODELS

WHAT = 'LeNetPlusPlus'


@MODELS.register_module()
class LeNetPlusPlus(BaseModule):
    """Stages of two convolutions with PReLU and a maximum over 2x2 pixels.

    Each stage halves height and width. The paper flattens the last map, 128 channels of 3x3 for
    images of 28x28, into a fully connected layer of two numbers: ``ArcFaceNeck(in_channels=128,
    out_channels=2, feat_size=3, dropout=0, input_norm=False, output_norm=False)``.

    Args:
        in_channels (int): Of the image. Defaults to 1
        channels (Sequence[int]): Of each stage. Defaults to (32, 64, 128)
        kernel_size (int): Of all convolutions, odd; the sides stay as they are. Defaults to 5
        norm (bool): BatchNorm after each convolution, which the paper does not have. Defaults to
            False
        init_cfg (Config, optional): Of MMEngine's BaseModule. Defaults to Xavier's uniform
            distribution for the convolutions

    Raises:
        TypeError: ``norm`` is no bool.
        ValueError: a number that is no positive integer, an even kernel, or no stage; in
            ``forward`` images of another shape, or with fewer pixels than the stages halve.

    Reference:
        Wen et al., A Discriminative Feature Learning Approach for Deep Face Recognition, ECCV
        2016, table 1.

    Example:
        >>> import torch
        >>> LeNetPlusPlus()(torch.rand(2, 1, 28, 28))[0].shape
        torch.Size([2, 128, 3, 3])
    """

    def __init__(
        self,
        in_channels: int = 1,
        channels: Sequence[int] = (32, 64, 128),
        kernel_size: int = 5,
        norm: bool = False,
        init_cfg: Any = None,
    ) -> None:
        if init_cfg is None:
            init_cfg = dict(type='Xavier', layer='Conv2d', distribution='uniform')
        super().__init__(init_cfg=init_cfg)
        _check(in_channels, channels, kernel_size, norm)
        self.in_channels = in_channels
        self.stages = nn.Sequential()
        for out_channels in channels:
            self.stages.append(
                nn.Sequential(
                    *_convolution(in_channels, out_channels, kernel_size, norm),
                    *_convolution(out_channels, out_channels, kernel_size, norm),
                    nn.MaxPool2d(2),
                )
            )
            in_channels = out_channels

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """Return the last feature map, (B, channels[-1], H / 2^n, W / 2^n), as a tuple of one.

        Args:
            x: Images (B, in_channels, H, W), at least 2^n pixels high and wide.
        """
        least = 2 ** len(self.stages)
        if x.dim() != 4 or x.shape[1] != self.in_channels or min(x.shape[2:]) < least:
            rule = f'be images (B, {self.in_channels}, H, W) of at least {least}x{least}'
            step = 'Set in_channels; enlarge small images, or leave out a stage'
            raise ValueError(message(WHAT, 'x', rule, tuple(x.shape), step))
        return (self.stages(x),)


def _convolution(inputs: int, outputs: int, kernel_size: int, norm: bool) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel_size, padding=kernel_size // 2, bias=not norm)
    return [conv, *([nn.BatchNorm2d(outputs)] if norm else []), nn.PReLU(outputs)]


def _check(in_channels: Any, channels: Any, kernel_size: Any, norm: Any) -> None:
    step = 'The paper has in_channels=1, channels=(32, 64, 128), kernel_size=5'
    stages = list(channels) if isinstance(channels, Sequence) else []
    if not stages or not all(_is_count(number) for number in stages):
        rule = 'hold a positive integer for each stage'
        raise ValueError(message(WHAT, 'channels', rule, repr(channels), step))
    if not _is_count(in_channels):
        raise ValueError(
            message(WHAT, 'in_channels', 'be a positive integer', repr(in_channels), step)
        )
    if not _is_count(kernel_size) or kernel_size % 2 == 0:
        rule = 'be an odd positive integer'
        raise ValueError(message(WHAT, 'kernel_size', rule, repr(kernel_size), step))
    if not isinstance(norm, bool):
        raise TypeError(message(WHAT, 'norm', 'be True or False', repr(norm), step))


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0
