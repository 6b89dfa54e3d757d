"""Losses on the overlap of boxes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmloss_plugins import functional as F
from mmloss_plugins.errors import check_choice
from mmloss_plugins.functional.boxes import IOU_MODES, check_boxes
from mmloss_plugins.functional.regression import check_positive
from mmloss_plugins.losses.base import BaseLoss
from mmloss_plugins.registry import MODELS


class BoxLoss(BaseLoss):
    """What the losses on boxes share: shapes, and MMDetection's weight per coordinate.

    Args:
        eps: keeps denominators and logarithms finite; see the subclass.
        base_options: see :class:`BaseLoss`.
    """

    def __init__(self, *, eps: float, **base_options: Any) -> None:
        super().__init__(**base_options)
        check_positive(self.loss_name, 'eps', eps, 'MMDetection takes 1e-7, and 1e-6 for IoU')
        self.eps = eps

    def check_inputs(self, pred: Any, target: Any) -> None:
        check_boxes(self.loss_name, pred, target)

    def loss_shape(self, pred: Tensor) -> torch.Size:
        return pred.shape[:1]

    def element_weight(self, weight: Tensor | None, pred: Any, target: Any) -> Tensor | None:
        if weight is not None and weight.dim() == 2 and weight.shape == pred.shape:
            return weight.to(torch.float32).mean(dim=1)
        return weight


@MODELS.register_module()
class IoULoss(BoxLoss):
    """Loss on the intersection over union; see :func:`functional.iou_loss`.

    Drop-in for ``mmdet.IoULoss`` and ``mmpose.IoULoss``. Disjoint boxes get no gradient in any mode
    (nor do they there); GIoU, DIoU and CIoU pull them together.

    Args:
        mode: 'linear' 1 - IoU, 'square' 1 - IoU^2, or 'log' -log IoU.
        eps: smallest IoU inside the logarithm: -log(eps) is the loss of disjoint boxes, 13.8
            (MMDetection); MMPose has 1e-16, 36.8. Also added to the area below the fraction.
        base_options: ``reduction``, ``mean_over``, ``loss_weight``, ``use_target_weight``,
            ``loss_name``, ``compile``; see :class:`BaseLoss`. A weight (N, 4), as MMDetection's
            heads pass it, counts with its mean over the coordinates.
    """

    def __init__(self, mode: str = 'log', eps: float = 1e-6, **base_options: Any) -> None:
        super().__init__(eps=eps, **base_options)
        check_choice(self.loss_name, 'mode', mode, IOU_MODES)
        self.mode = mode

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        return self.run(F.iou_loss, pred, target, mode=self.mode, eps=self.eps)


@MODELS.register_module()
class GIoULoss(BoxLoss):
    """Generalised IoU; see :func:`functional.giou_loss`.

    Args:
        eps: added to each denominator, in the square of the boxes' unit.
        base_options: ``reduction``, ``mean_over``, ``loss_weight``, ``use_target_weight``,
            ``loss_name``, ``compile``; see :class:`BaseLoss`. A weight (N, 4), as MMDetection's
            heads pass it, counts with its mean over the coordinates.
    """

    def __init__(self, eps: float = 1e-7, **base_options: Any) -> None:
        super().__init__(eps=eps, **base_options)

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        return self.run(F.giou_loss, pred, target, eps=self.eps)


@MODELS.register_module()
class DIoULoss(BoxLoss):
    """Distance IoU; see :func:`functional.diou_loss`.

    Args:
        eps: added to each denominator, in the square of the boxes' unit.
        base_options: ``reduction``, ``mean_over``, ``loss_weight``, ``use_target_weight``,
            ``loss_name``, ``compile``; see :class:`BaseLoss`. A weight (N, 4), as MMDetection's
            heads pass it, counts with its mean over the coordinates.
    """

    def __init__(self, eps: float = 1e-7, **base_options: Any) -> None:
        super().__init__(eps=eps, **base_options)

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        return self.run(F.diou_loss, pred, target, eps=self.eps)


@MODELS.register_module()
class CIoULoss(BoxLoss):
    """Complete IoU; see :func:`functional.ciou_loss`.

    Args:
        eps: added to each denominator, in the square of the boxes' unit.
        base_options: ``reduction``, ``mean_over``, ``loss_weight``, ``use_target_weight``,
            ``loss_name``, ``compile``; see :class:`BaseLoss`. A weight (N, 4), as MMDetection's
            heads pass it, counts with its mean over the coordinates.
    """

    def __init__(self, eps: float = 1e-7, **base_options: Any) -> None:
        super().__init__(eps=eps, **base_options)

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        return self.run(F.ciou_loss, pred, target, eps=self.eps)
