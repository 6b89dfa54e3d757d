"""From feature maps to an embedding, as ArcFace has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Union

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmloss_plugins.errors import message
from mmloss_plugins.registry import MODELS

Features = Union[Tensor, Sequence[Tensor]]
WHAT = 'ArcFaceNeck'


@MODELS.register_module()
class ArcFaceNeck(BaseModule):
    """BatchNorm - dropout - fully connected layer - BatchNorm: option E of ArcFace.

    The last BatchNorm centres each dimension of the embedding, so that classes lie around the
    origin, and angles between them use the whole sphere.

    The layers are computed in float32 under autocast as well: a sum over some ten thousand
    products may leave the range of float16.

    Args:
        in_channels (int): Channels C of the feature map
        out_channels (int): D, size of the embedding
        feat_size (int | Sequence[int], optional): Height and width of the feature map, which is
            flattened as the authors have it. None averages it over its pixels, for which any size
            will do. Defaults to None
        dropout (float): Share of the numbers before the fully connected layer that are dropped, the
            paper's 0.4. Take 0 for large data sets and for small embeddings. Defaults to 0.4
        input_norm (bool): BatchNorm of the input. Defaults to True
        output_norm (bool): BatchNorm of the embedding. Defaults to True
        output_scale (bool): Whether the BatchNorm of the embedding learns a factor for each
            dimension; without it all have a standard deviation of 1, as in the authors' code.
            Defaults to False
        bias (bool, optional): Of the fully connected layer. None: where no BatchNorm follows that
            would take it out again. Defaults to None
        init_cfg (Config, optional): Of MMEngine's BaseModule. Defaults to Xavier's normal
            distribution for the fully connected layer

    Raises:
        TypeError: a switch that is no bool.
        ValueError: a number out of range; in ``forward`` a feature map of another shape.

    Reference:
        Deng et al., ArcFace, https://arxiv.org/abs/1801.07698, section 3.1.

    Example:
        >>> import torch
        >>> neck = ArcFaceNeck(in_channels=8, out_channels=4)
        >>> neck((torch.rand(2, 4, 10, 6), torch.rand(2, 8, 5, 3))).shape
        torch.Size([2, 4])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        feat_size: int | Sequence[int] | None = None,
        dropout: float = 0.4,
        input_norm: bool = True,
        output_norm: bool = True,
        output_scale: bool = False,
        bias: bool | None = None,
        init_cfg: Any = None,
    ) -> None:
        if init_cfg is None:
            init_cfg = dict(type='Xavier', layer='Linear', distribution='normal')
        super().__init__(init_cfg=init_cfg)
        _check_counts(in_channels=in_channels, out_channels=out_channels)
        bias = not output_norm if bias is None else bias
        _check_switches(
            input_norm=input_norm, output_norm=output_norm, output_scale=output_scale, bias=bias
        )
        _check_dropout(dropout)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.feat_size = _as_size(feat_size)
        inputs = in_channels
        if self.feat_size is not None:
            inputs *= self.feat_size[0] * self.feat_size[1]
        self.input_norm = nn.BatchNorm2d(in_channels) if input_norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(inputs, out_channels, bias=bias)
        self.output_norm = nn.BatchNorm1d(out_channels) if output_norm else nn.Identity()
        if output_norm and not output_scale:
            self.output_norm.weight.requires_grad_(False)

    def forward(self, feats: Features) -> Tensor:
        """Return the embedding.

        Args:
            feats: Feature map (B, in_channels, H, W), or features (B, in_channels) without
                pixels, or a sequence of which the last is read.

        Returns:
            Shape (B, out_channels), of the type of the weights.
        """
        x = feats if isinstance(feats, Tensor) else feats[-1]
        self._check_shape(x)
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(self.fc.weight.dtype)
            x = x[:, :, None, None] if x.dim() == 2 else x
            x = self.input_norm(x)
            x = x.mean((2, 3)) if self.feat_size is None else x.flatten(1)
            return self.output_norm(self.fc(self.dropout(x)))

    def _check_shape(self, x: Any) -> None:
        size = ('H', 'W') if self.feat_size is None else self.feat_size
        shape = tuple(x.shape)
        pixels = (1, 1) if len(shape) == 2 else shape[2:]
        fits = len(shape) in (2, 4) and shape[1] == self.in_channels
        if fits and (self.feat_size is None or pixels == self.feat_size):
            return
        rule = f'have the shape (B, {self.in_channels}, {size[0]}, {size[1]})'
        step = 'Set in_channels and feat_size to those of the last feature map of the backbone'
        raise ValueError(message(WHAT, 'feats', rule, shape, step))


def _as_size(feat_size: Any) -> tuple[int, int] | None:
    if feat_size is None:
        return None
    size = (feat_size, feat_size) if type(feat_size) is int else feat_size
    whole = isinstance(size, (list, tuple)) and all(type(s) is int and s > 0 for s in size)
    if whole and len(size) == 2:
        return (size[0], size[1])
    step = 'Inputs of 112 px have 7 at a stride of 16; None averages over any size'
    rule = 'be a positive integer or (height, width)'
    raise ValueError(message(WHAT, 'feat_size', rule, feat_size, step))


def _check_counts(**counts: Any) -> None:
    for argument, value in counts.items():
        if type(value) is not int or value < 1:
            step = 'Take the channels of the backbone and the size of the embedding'
            raise ValueError(message(WHAT, argument, 'be a positive integer', repr(value), step))


def _check_switches(**switches: Any) -> None:
    for argument, value in switches.items():
        if not isinstance(value, bool):
            step = 'See the docstring of ArcFaceNeck'
            raise TypeError(message(WHAT, argument, 'be True or False', repr(value), step))


def _check_dropout(dropout: Any) -> None:
    number = isinstance(dropout, (int, float)) and not isinstance(dropout, bool)
    if not number or not 0 <= dropout < 1:
        step = 'The paper has 0.4; 0 switches it off'
        raise ValueError(message(WHAT, 'dropout', 'be within [0, 1)', repr(dropout), step))
