"""Losses on coordinates and boxes, element by element."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable, Union

import torch
from torch import Tensor

from mmloss_plugins import functional as F
from mmloss_plugins.errors import message
from mmloss_plugins.functional.reduction import AvgFactor
from mmloss_plugins.functional.regression import check_not_negative
from mmloss_plugins.losses.base import BaseLoss
from mmloss_plugins.registry import MODELS

ScaleOption = Union[float, Sequence[float], None]


class CoordinateLoss(BaseLoss):
    """What the losses on coordinates share: the unit, and a mean per sample.

    Args:
        scale: how many units of the loss one unit of the coordinates is; see the subclass.
        mean_over: 'all', 'valid' as in :class:`BaseLoss`, or 'samples': the sum over keypoints and
            coordinates, averaged over the batch.
        base_options: see :class:`BaseLoss`.
    """

    MEAN_OVER = (*BaseLoss.MEAN_OVER, 'samples')

    scale_per_coordinate: Tensor | None

    def __init__(self, *, scale: ScaleOption = 1.0, **base_options: Any) -> None:
        super().__init__(**base_options)
        values = _positive_numbers(self.loss_name, scale)
        self.scale = values[0] if len(values) == 1 else values
        tensor = None if len(values) == 1 else torch.tensor(values)
        self.register_buffer('scale_per_coordinate', tensor, persistent=False)

    def at_scale(
        self, function: Callable[..., Tensor], pred: Tensor, target: Tensor, **options: Any
    ) -> Tensor:
        """Call ``function`` with the scale of the coordinates."""
        if self.scale_per_coordinate is None:
            # By keyword: a compiled function takes a positional number for a tensor.
            return self.run(function, pred, target, scale=self.scale, **options)
        return self.run(function, pred, target, self.scale_per_coordinate, **options)

    def check_inputs(self, pred: Any, target: Any) -> None:
        super().check_inputs(pred, target)
        if self.scale_per_coordinate is None:
            return
        count = self.scale_per_coordinate.shape[0]
        if pred.dim() == 0 or pred.shape[-1] != count:
            rule = f'have {count} coordinates in its last dimension, as scale has numbers'
            step = 'Give scale one number, or one per coordinate in their order (w, h)'
            raise ValueError(message(self.loss_name, 'pred', rule, tuple(pred.shape), step))

    def default_avg_factor(
        self, weight: Tensor | None, mask: Tensor | None, pred: Any, target: Any
    ) -> AvgFactor | None:
        if self.mean_over == 'samples':
            return int(pred.shape[0])
        return super().default_avg_factor(weight, mask, pred, target)


@MODELS.register_module()
class L1Loss(CoordinateLoss):
    """Absolute error; see :func:`functional.l1_loss`.

    Works in stock heads of MMPose (weight (N, K, 1)) and MMDetection (weight (N, 4), avg_factor).

    Args:
        scale: how many units of the loss one unit of the coordinates is: 1, or pixels per unit,
            one number or one per coordinate, such as ``input_size`` (w, h) for MMPose's
            coordinates in [0, 1]. Value and gradient grow in proportion.
        mean_over: 'all', 'valid', or 'samples' for the sum per sample, averaged over the batch.
        base_options: ``reduction``, ``loss_weight``, ``use_target_weight``, ``loss_name``,
            ``compile``; see :class:`BaseLoss`.
    """

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        return self.at_scale(F.l1_loss, pred, target)

    def summed(self, pred: Tensor, target: Tensor) -> Tensor:
        return self.at_scale(F.l1_loss, pred, target, summed=True)


@MODELS.register_module()
class MSELoss(CoordinateLoss):
    """Squared error; see :func:`functional.mse_loss`.

    The mean of squares, as PyTorch, MMPose and MMDetection have it and twice that of HRNet's
    code. A weight w counts as w; in ``mmpose.MSELoss`` it counts as w squared.

    Args:
        scale: how many units of the loss one unit of the coordinates is, one number or one per
            coordinate; value and gradient grow with its square.
        mean_over: 'all', 'valid', or 'samples' for the sum per sample, averaged over the batch.
        base_options: ``reduction``, ``loss_weight``, ``use_target_weight``, ``loss_name``,
            ``compile``; see :class:`BaseLoss`.
    """

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        return self.at_scale(F.mse_loss, pred, target)

    def summed(self, pred: Tensor, target: Tensor) -> Tensor:
        return self.at_scale(F.mse_loss, pred, target, summed=True)


@MODELS.register_module()
class SmoothL1Loss(CoordinateLoss):
    """Square below beta, absolute error above; see :func:`functional.smooth_l1_loss`.

    Value and gradient of PyTorch and of both hosts; a weight w counts as w, in
    ``mmpose.SmoothL1Loss`` as w squared where the error is small.

    Args:
        beta: error at which the square ends, in units of the loss; 0 is L1.
        scale: how many units of the loss one unit of the coordinates is, one number or one per
            coordinate. At 1, coordinates in [0, 1] are always below a beta of 1.
        mean_over: 'all', 'valid', or 'samples' for the sum per sample, averaged over the batch.
        base_options: ``reduction``, ``loss_weight``, ``use_target_weight``, ``loss_name``,
            ``compile``; see :class:`BaseLoss`.
    """

    def __init__(self, beta: float = 1.0, **base_options: Any) -> None:
        super().__init__(**base_options)
        check_not_negative(self.loss_name, 'beta', beta, '0 is L1')
        self.beta = beta

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        return self.at_scale(F.smooth_l1_loss, pred, target, beta=self.beta)

    def summed(self, pred: Tensor, target: Tensor) -> Tensor:
        return self.at_scale(F.smooth_l1_loss, pred, target, beta=self.beta, summed=True)


def _positive_numbers(what: str, scale: ScaleOption) -> tuple[float, ...]:
    """Return ``scale`` as a tuple of numbers."""
    values: Sequence[Any] = scale if isinstance(scale, (list, tuple)) else (scale,)
    numbers = [isinstance(v, (int, float)) and not isinstance(v, bool) and v > 0 for v in values]
    if values and all(numbers):
        return tuple(float(v) for v in values)
    rule = 'be the pixels that one unit of the coordinates is, a positive number or one for each'
    step = "Pass the codec's input_size for coordinates in [0, 1], 1 for coordinates in pixels"
    raise ValueError(message(what, 'scale', rule, repr(scale), step))
