"""Wing losses of facial landmarks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmloss_plugins import functional as F
from mmloss_plugins.errors import message
from mmloss_plugins.functional.regression import check_positive
from mmloss_plugins.functional.wing import check_constants
from mmloss_plugins.losses.base import BaseLoss
from mmloss_plugins.losses.regression import CoordinateLoss, ScaleOption
from mmloss_plugins.registry import MODELS


@MODELS.register_module()
class WingLoss(CoordinateLoss):
    """Wing loss on coordinates, in pixels; see :func:`functional.wing_loss`.

    The default reduction is the paper's and MMPose's: summed over keypoints and coordinates,
    averaged over the batch; ``mean_over='all'`` is 1 / (K D) of it. ``scale`` has no default:
    with MMPose's coordinates in [0, 1] read as pixels the error never reaches omega and the loss
    degenerates to about 5 times L1, as ``mmpose.WingLoss`` does in the host's own config.

    Args:
        omega: width of the logarithmic part in pixels.
        epsilon: its curvature in pixels.
        scale: pixels per unit of the coordinates, one number or one per coordinate:
            ``input_size`` (w, h) for RegressionLabel's coordinates in [0, 1], 1 for pixels. The
            gradient of the coordinates is this factor times the slope per pixel.
        mean_over: 'samples', 'all' or 'valid'.
        base_options: ``reduction``, ``loss_weight``, ``use_target_weight``, ``loss_name``,
            ``compile``; see :class:`BaseLoss`.
    """

    def __init__(
        self,
        omega: float = 10.0,
        epsilon: float = 2.0,
        scale: ScaleOption = None,
        mean_over: str = 'samples',
        **base_options: Any,
    ) -> None:
        super().__init__(scale=scale, mean_over=mean_over, **base_options)
        check_positive(self.loss_name, 'omega', omega, 'The paper takes 10 pixels')
        check_positive(self.loss_name, 'epsilon', epsilon, 'The paper takes 2 pixels')
        self.omega = omega
        self.epsilon = epsilon

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        options = dict(omega=self.omega, epsilon=self.epsilon)
        return self.at_scale(F.wing_loss, pred, target, **options)

    def summed(self, pred: Tensor, target: Tensor) -> Tensor:
        options = dict(omega=self.omega, epsilon=self.epsilon)
        return self.at_scale(F.wing_loss, pred, target, summed=True, **options)

    @torch.no_grad()
    def diagnostics(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        mask: Tensor | None = None,
        **_: Any,
    ) -> dict[str, Tensor]:
        """Return ``wing_linear``, the share of valid coordinates that miss by omega or more.

        0 from the first step on says that ``scale`` is wrong. 0-d tensor, no sync.
        """
        far = self.at_scale(F.l1_loss, pred, target) >= self.omega
        valid = torch.ones_like(far)
        if weight is not None and self.use_target_weight:
            valid = valid & (F.expand_weight(weight, far.shape, self.loss_name) != 0)
        if mask is not None:
            valid = valid & F.expand_weight(mask, far.shape, self.loss_name, 'mask').bool()
        return dict(wing_linear=(far & valid).sum() / valid.sum().clamp(min=1))


@MODELS.register_module()
class AdaptiveWingLoss(BaseLoss):
    """Adaptive Wing loss on heatmaps; see :func:`functional.adaptive_wing_loss`.

    The default is the authors' weighted loss, averaged over all pixels. ``mmpose.AdaptiveWingLoss``
    has no weight map: ``foreground_weight=0`` is its value. A weight w counts as w; there it
    scales prediction and target inside the logarithm.

    Args:
        alpha: exponent on background, above 2.
        omega: height of the logarithmic part.
        epsilon: its curvature.
        theta: distance at which the loss becomes linear.
        foreground_weight: extra weight (W in the paper) of the pixels around keypoints; 0 for none.
        mask_threshold: value of the 3x3-dilated target from which on a pixel gets it.
        base_options: ``reduction``, ``mean_over``, ``loss_weight``, ``use_target_weight``,
            ``loss_name``, ``compile``; see :class:`BaseLoss`.
    """

    def __init__(
        self,
        alpha: float = 2.1,
        omega: float = 14.0,
        epsilon: float = 1.0,
        theta: float = 0.5,
        foreground_weight: float = 10.0,
        mask_threshold: float = 0.2,
        **base_options: Any,
    ) -> None:
        super().__init__(**base_options)
        check_constants(self.loss_name, alpha, omega, epsilon, theta, foreground_weight)
        if not 0 < mask_threshold <= 1:
            rule, step = 'be above 0 and at most 1', 'It is a value of the target; the paper: 0.2'
            raise ValueError(message(self.loss_name, 'mask_threshold', rule, mask_threshold, step))
        self.constants = dict(
            alpha=alpha,
            omega=omega,
            epsilon=epsilon,
            theta=theta,
            foreground_weight=foreground_weight,
            mask_threshold=mask_threshold,
        )

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        return self.run(F.adaptive_wing_loss, pred, target, **self.constants)

    def summed(self, pred: Tensor, target: Tensor) -> Tensor:
        return self.run(F.adaptive_wing_loss, pred, target, summed=True, **self.constants)
