"""Dice loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmloss_plugins import functional as F
from mmloss_plugins.errors import check_choice, message
from mmloss_plugins.functional.dice import check_dice, check_dice_target, dice_shape
from mmloss_plugins.functional.reduction import REDUCTIONS, AvgFactor, reduce_loss
from mmloss_plugins.losses.base import BaseLoss
from mmloss_plugins.registry import MODELS

Weights = tuple['Tensor | None', 'Tensor | None']


@MODELS.register_module()
class DiceLoss(BaseLoss):
    """One minus the overlap of prediction and target; see :func:`functional.dice_loss`.

    Its table says which options give the values of DB, MMOCR and MMDetection. The default is
    DB's ratio over the whole batch, but smoothed by one pixel above and below, so that an image
    without text can reach 0.

    The unreduced loss has one element per ratio: (1,) for 'batch', (B,) for 'sample', (B, C) for
    'channel'. A ``weight`` or ``mask`` that fits it from the left is a factor on these elements:
    weight w on a sample counts as w. Any other that fits ``pred`` from the left, such as
    (B, 1, H, W), or (B,) and (B, C) for a ratio over more than that, weighs the pixels inside the
    sums: 0 leaves them out, and a common factor changes little. A ratio without any pixel counts
    0.

    A ratio over the batch is one of each rank: unlike 'sample' and 'channel' its value depends on
    the number of processes.

    Args:
        activation: 'sigmoid', 'softmax' over channels, or 'none' for a head that hands over
            probabilities.
        ratio_over: one ratio over the 'batch' (DB), for each 'sample' or for each 'channel' of
            each sample. With 'channel' a weight (1, C) weighs classes.
        power: 1, or 2 for squares in the denominator (V-Net, MMDetection).
        smooth_numerator: added to the numerator, in pixels.
        smooth_denominator: added to the denominator, in pixels, greater than 0.
        ignore_index: class index of pixels that do not count, for targets (B, H, W) of 'softmax'.
        base_options: ``reduction``, ``mean_over``, ``loss_weight``, ``use_target_weight``,
            ``loss_name``, ``compile``; see :class:`BaseLoss`.
    """

    def __init__(
        self,
        activation: str = 'sigmoid',
        ratio_over: str = 'batch',
        power: int = 1,
        smooth_numerator: float = 1.0,
        smooth_denominator: float = 1.0,
        ignore_index: int = -100,
        **base_options: Any,
    ) -> None:
        super().__init__(**base_options)
        smooths = smooth_numerator, smooth_denominator
        check_dice(self.loss_name, activation, ratio_over, power, *smooths)
        self.activation = activation
        self.ratio_over = ratio_over
        self.power = power
        self.smooth_numerator = smooth_numerator
        self.smooth_denominator = smooth_denominator
        self.ignore_index = ignore_index

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        mask: Tensor | None = None,
        *,
        avg_factor: AvgFactor | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """Return ``loss_weight`` times the reduced loss; arguments as in :class:`BaseLoss`.

        Args:
            pred: logits (B, C, ...).
            target: same shape, in [0, 1]; for 'softmax' also class indices (B, ...).
            weight: factors on ratios or on pixels, by its shape.
            mask: boolean validity of ratios or of pixels, by its shape.
            avg_factor: divide the sum by this ('mean' only).
            reduction_override: takes the place of ``reduction`` for this call.
        """
        reduction = self.reduction if reduction_override is None else reduction_override
        check_choice(self.loss_name, 'reduction_override', reduction, REDUCTIONS)
        self.check_inputs(pred, target)
        weight = weight if self.use_target_weight else None
        weight, pixel_weight = self._ratios_or_pixels(weight, pred, 'weight')
        mask, pixel_mask = self._ratios_or_pixels(mask, pred, 'mask')
        pixel_weight = _combine(pixel_weight, pixel_mask)
        if avg_factor is None and reduction == 'mean':
            known = mask if self.mean_over == 'all' else self._known(mask, pixel_weight, pred)
            avg_factor = self.default_avg_factor(weight, known, pred, target)
        loss = self.run(
            F.dice_loss,
            pred,
            target,
            pixel_weight,
            activation=self.activation,
            ratio_over=self.ratio_over,
            power=self.power,
            smooth_numerator=self.smooth_numerator,
            smooth_denominator=self.smooth_denominator,
            ignore_index=self.ignore_index,
        )
        options = dict(reduction=reduction, avg_factor=avg_factor, what=self.loss_name)
        loss = reduce_loss(loss, weight, mask, **options)  # type: ignore[arg-type]
        return loss * self.loss_weight

    def check_inputs(self, pred: Tensor, target: Tensor) -> None:
        check_dice_target(self.loss_name, pred, target, self.activation, self.ratio_over)

    def loss_shape(self, pred: Tensor) -> torch.Size:
        return dice_shape(pred.shape, self.ratio_over)

    def _ratios_or_pixels(self, given: Tensor | None, pred: Tensor, argument: str) -> Weights:
        """Return ``given`` as (factor of the ratios, weight of the pixels); one of them is None."""
        if given is None:
            return None, None
        shape = self.loss_shape(pred)
        if _fits(given, shape):
            return given, None
        if _fits(given, pred.shape):
            return None, F.expand_weight(given, pred.shape, self.loss_name, argument)
        rule = f'have the shape {tuple(shape)} of the ratios or a left part of {tuple(pred.shape)}'
        step = 'Pass (B, 1, H, W) to weigh pixels'
        raise ValueError(message(self.loss_name, argument, rule, tuple(given.shape), step))

    def _known(
        self, mask: Tensor | None, pixel_weight: Tensor | None, pred: Tensor
    ) -> Tensor | None:
        """Return which ratios have a valid pixel, given the mask of the ratios."""
        if pixel_weight is None:
            return mask
        shape = self.loss_shape(pred)
        pixels = (pixel_weight != 0).expand(pred.shape)
        known = pixels.reshape(shape.numel(), pred.numel() // max(shape.numel(), 1)).any(1)
        known = known.reshape(shape)
        return (
            known if mask is None else known & F.expand_weight(mask, shape, self.loss_name).bool()
        )


def _fits(given: Tensor, shape: torch.Size) -> bool:
    """Whether ``given`` is a left part of ``shape``, up to dimensions of size 1 behind it."""
    size = list(given.shape)
    while len(size) > len(shape) and size[-1] == 1:
        size.pop()
    return len(size) <= len(shape) and all(s in (1, n) for s, n in zip(size, shape))


def _combine(weight: Tensor | None, mask: Tensor | None) -> Tensor | None:
    """Return weights that are 0 where the mask is False, whatever they hold there."""
    if weight is None or mask is None:
        return mask if weight is None else weight
    return torch.where(mask.bool(), weight, 0)
