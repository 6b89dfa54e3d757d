"""Two embeddings of one feature map: one for distances, one for a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Union

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmloss_plugins.errors import message
from mmloss_plugins.registry import MODELS

Features = Union[Tensor, Sequence[Tensor]]
WHAT = 'BNNeck'


@MODELS.register_module()
class BNNeck(BaseModule):
    """Average over pixels, and BatchNorm without a bias behind it.

    Triplet and centre loss ask for small distances within an identity, the classifier for a small
    angle to its weights; on one embedding they disturb each other. So distances are trained on the
    average, the first output, and classes on its BatchNorm, the second, which is also compared at
    test time, by cosine. The bias of the BatchNorm stays 0 and the classifier has none
    (``SoftmaxHead(bias=False)``), so that identities lie around the origin.

    In :class:`EmbeddingClassifier` the ``aux_losses`` read the first output, the head the second.

    Both are computed in float32 under autocast as well.

    Args:
        in_channels (int): Channels C of the feature map
        init_cfg (Config, optional): Of MMEngine's BaseModule

    Raises:
        ValueError: ``in_channels`` that is no positive integer; in ``forward`` a feature map of
            another shape.

    Reference:
        Luo et al., Bag of Tricks and A Strong Baseline for Deep Person Re-identification,
        https://arxiv.org/abs/1903.07071, section 3.5.

    Example:
        >>> import torch
        >>> plain, normalized = BNNeck(in_channels=8)(torch.rand(4, 8, 6, 3))
        >>> plain.shape, normalized.shape
        (torch.Size([4, 8]), torch.Size([4, 8]))
    """

    def __init__(self, in_channels: int, init_cfg: Any = None) -> None:
        super().__init__(init_cfg=init_cfg)
        if type(in_channels) is not int or in_channels < 1:
            rule, step = 'be a positive integer', 'Take the channels of the backbone'
            raise ValueError(message(WHAT, 'in_channels', rule, repr(in_channels), step))
        self.in_channels = in_channels
        self.norm = nn.BatchNorm1d(in_channels)
        self.norm.bias.requires_grad_(False)

    def forward(self, feats: Features) -> tuple[Tensor, Tensor]:
        """Return both embeddings.

        Args:
            feats: Feature map (B, in_channels, H, W), or features (B, in_channels) without
                pixels, or a sequence of which the last is read.

        Returns:
            The average and its BatchNorm, each (B, in_channels), of the type of the weights.
        """
        x = feats if isinstance(feats, Tensor) else feats[-1]
        self._check_shape(x)
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(self.norm.weight.dtype)
            x = x.mean((2, 3)) if x.dim() == 4 else x
            return x, self.norm(x)

    def _check_shape(self, x: Any) -> None:
        shape = tuple(x.shape)
        if len(shape) in (2, 4) and shape[1] == self.in_channels:
            return
        rule = f'have the shape (B, {self.in_channels}, H, W)'
        step = 'Set in_channels to those of the last feature map of the backbone'
        raise ValueError(message(WHAT, 'feats', rule, shape, step))
