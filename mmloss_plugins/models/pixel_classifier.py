"""A small fully convolutional network that says for every pixel whether it is foreground."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.model import BaseModel, bias_init_with_prob
from torch import Tensor, nn

from mmloss_plugins.errors import check_choice, message
from mmloss_plugins.registry import MODELS

WHAT = 'PixelClassifier'
MODES = ('tensor', 'loss', 'predict')
LOGIT_STD = 0.1


@MODELS.register_module()
class PixelClassifier(BaseModel):
    """``depth`` convolutions of 3x3 with ReLU, one of 1x1, and a loss on its logits.

    The map keeps the size of the image; a pixel sees ``2 * depth + 1`` rows and columns. Weights
    start as in He et al. 2015, those of the last layer at a standard deviation of 0.1, all by
    ``init_weights``.

    Args:
        loss (dict): config of a loss on logits and targets, both (B, 1, H, W).
        in_channels (int): channels of the image.
        channels (int): channels between the layers.
        depth (int): number of 3x3 convolutions.
        prior_prob (float, optional): probability of foreground that every pixel starts with,
            pi of RetinaNet (section 3.3): the last bias is -log((1 - pi) / pi). None starts at a
            bias of zero, a probability of one half.
        data_preprocessor (dict, optional): of MMEngine's BaseModel.

    Raises:
        TypeError: ``in_channels``, ``channels`` or ``depth`` is not an integer.
        ValueError: one of them is below 1, or ``prior_prob`` is not between 0 and 1.

    Reference:
        Focal Loss for Dense Object Detection, arXiv 1708.02002.

    Example:
        >>> loss = dict(type='mmloss_plugins.SigmoidFocalLoss')
        >>> model = PixelClassifier(loss, prior_prob=0.01)
        >>> target = torch.zeros(2, 1, 20, 30)
        >>> losses = model(torch.rand(2, 1, 20, 30), dict(target=target), mode='loss')
        >>> list(losses)
        ['loss_pixels']
    """

    def __init__(
        self,
        loss: dict[str, Any],
        in_channels: int = 1,
        channels: int = 16,
        depth: int = 3,
        prior_prob: float | None = None,
        data_preprocessor: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            data_preprocessor,
            init_cfg=[
                dict(type='Kaiming', layer='Conv2d'),
                dict(type='Normal', std=LOGIT_STD, override=dict(name='logits')),
            ],
        )
        for name, value in (('in_channels', in_channels), ('channels', channels), ('depth', depth)):
            _check_positive(name, value)
        if prior_prob is not None and not 0 < prior_prob < 1:
            next_step = 'Take for instance 0.01, or None for no prior'
            raise ValueError(
                message(WHAT, 'prior_prob', 'be between 0 and 1', prior_prob, next_step)
            )
        self.prior_prob = prior_prob
        layers: list[nn.Module] = []
        for place in range(depth):
            inputs = channels if place else in_channels
            layers += [nn.Conv2d(inputs, channels, 3, padding=1), nn.ReLU(inplace=True)]
        self.features = nn.Sequential(*layers)
        self.logits = nn.Conv2d(channels, 1, 1)
        self.loss_module = MODELS.build(loss)

    def init_weights(self) -> None:
        """Initialise all weights, the last bias at the prior; MMEngine's runner calls it."""
        if self.is_init:
            return
        super().init_weights()
        if self.prior_prob is not None:
            nn.init.constant_(self.logits.bias, bias_init_with_prob(self.prior_prob))

    def forward(
        self,
        inputs: Tensor,
        data_samples: dict[str, Tensor] | None = None,
        mode: str = 'tensor',
    ) -> Tensor | dict[str, Tensor] | list[dict[str, Tensor]]:
        """Return what ``mode`` asks for.

        Args:
            inputs: images (B, in_channels, H, W).
            data_samples: dict with ``target``, (B, 1, H, W) in [0, 1]; may be None for 'tensor'.
            mode: 'tensor', 'loss' or 'predict'.

        Returns:
            For 'tensor' the logits (B, 1, H, W), for 'loss' a dict with ``loss_pixels``, for
            'predict' a dict per image with ``prob`` and ``target``, both (1, H, W).

        Raises:
            ValueError: an unknown mode, or no data samples where they are needed.
        """
        check_choice(WHAT, 'mode', mode, MODES)
        logits = self.logits(self.features(inputs))
        if mode == 'tensor':
            return logits
        if data_samples is None:
            next_step = 'Use the default_collate function of MMEngine in the dataloader'
            raise ValueError(
                message(WHAT, 'data_samples', "be a dict with 'target'", None, next_step)
            )
        target = data_samples['target']
        if mode == 'loss':
            return dict(loss_pixels=self.loss_module(logits, target))
        return [
            dict(prob=prob, target=labels) for prob, labels in zip(torch.sigmoid(logits), target)
        ]


def _check_positive(name: str, value: Any) -> None:
    rule = 'be an integer of at least 1'
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(message(WHAT, name, rule, repr(value), f'Pass {name} as an int'))
    if value < 1:
        raise ValueError(message(WHAT, name, rule, value, f'Raise {name}'))
