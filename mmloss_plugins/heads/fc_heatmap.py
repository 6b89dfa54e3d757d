"""The paper's baseline of DSNT: a fully connected layer in place of the mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmloss_plugins.errors import message, refuse_unknown
from mmloss_plugins.heads._dsnt_options import arguments_of, check_size
from mmloss_plugins.heads.dsnt import DSNTHead
from mmloss_plugins.registry import MODELS

NOT_HERE = ('debias', 'covariance', 'num_stages', 'in_featuremap_size', 'lambda_t')


@MODELS.register_module()
class FCHeatmapHead(DSNTHead):
    """Top-down head that regresses coordinates from heatmaps by one linear layer.

    The baseline of `Numerical Coordinate Regression with Convolutional Neural Networks`_: softmax
    maps, flattened, and a layer of ``H * W`` inputs and 2 outputs that all keypoints share. It is
    trained by the coordinates alone, so that its maps are a code that need not show where a
    keypoint is, and it is bound to the size that it was built for.

    Arguments, losses, codecs, prediction and flip test are those of :class:`DSNTHead`, but for:

    Args:
        in_channels (int): Channels of the last feature map
        out_channels (int): Number of keypoints K
        heatmap_size (Tuple[int, int]): Size (w, h) of the maps: that of the features times 2 for
            each deconvolution
        loss (Config, optional): As in DSNTHead. Defaults to ``EuclideanLoss``
        score (str): As in DSNTHead. Defaults to 'peak': mass near the coordinate means nothing
            where the map is a code
        options: further arguments of DSNTHead, without 'debias', 'covariance' and 'num_stages'

    Raises:
        ValueError: as in DSNTHead; in :meth:`forward`, maps of another size.
        TypeError: as in DSNTHead, and the options named above.

    .. _`Numerical Coordinate Regression with Convolutional Neural Networks`:
        https://arxiv.org/abs/1801.07372
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int | None = None,
        *,
        heatmap_size: Sequence[int],
        loss: Mapping[str, Any] | None = None,
        score: str = 'peak',
        **options: Any,
    ) -> None:
        known = [option for option in arguments_of(type(self), DSNTHead) if option not in NOT_HERE]
        name = type(self).__name__
        refuse_unknown(name, {key: options[key] for key in options if key not in known}, known)
        super().__init__(in_channels, out_channels, loss=loss, score=score, **options)
        self.heatmap_size = check_size(name, 'heatmap_size', heatmap_size)
        self.fc = nn.Linear(self.heatmap_size[0] * self.heatmap_size[1], 2)

    def means(self, heatmaps: Tensor) -> Tensor:
        """Return the coordinates of maps (B, K, H, W), (B, K, 2) about the middle at 0."""
        size = tuple(heatmaps.shape[:-3:-1])
        if size != self.heatmap_size:
            rule = f'be {self.heatmap_size}, the heatmap_size (w, h) of the linear layer'
            step = 'Set heatmap_size to it, or feed images of the size that the head was built for'
            raise ValueError(message(type(self).__name__, 'size of the maps', rule, size, step))
        weight, bias = (tensor.to(heatmaps.dtype) for tensor in (self.fc.weight, self.fc.bias))
        # In bfloat16 a coordinate would be exact to a pixel of 256 at best.
        with torch.autocast(heatmaps.device.type, enabled=False):
            return nn.functional.linear(heatmaps.flatten(2), weight, bias)

    @classmethod
    def default_terms(cls, sigma_px: float) -> dict[str, Any]:
        """Return the config of the loss that ``loss=None`` stands for."""
        return dict(coord=dict(type='mmloss_plugins.EuclideanLoss'))
