"""Loss of G-RMI on binary disks and the offsets inside them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mmloss_plugins import functional as F
from mmloss_plugins.errors import check_choice, message
from mmloss_plugins.functional.offset_heatmap import ORDERS
from mmloss_plugins.functional.reduction import AvgFactor, reduce_loss
from mmloss_plugins.functional.shapes import check_same_shape
from mmloss_plugins.losses.base import BaseLoss
from mmloss_plugins.registry import MODELS


@MODELS.register_module()
class OffsetHeatmapLoss(BaseLoss):
    """Logistic loss on the disk and Huber loss on the offsets inside it, per keypoint.

    ``lambda_heatmap`` times :func:`functional.disk_logistic` plus ``lambda_offset`` times
    :func:`functional.disk_offset_huber`, on the 3K maps of
    :class:`mmloss_plugins.codecs.OffsetHeatmap`; unreduced shape (B, K). The disk is averaged over
    the map and the offsets over the disk. MMPose's ``CombinedTargetMSELoss`` averages both over
    the map and squares the weights.

    :meth:`terms` gives the two parts by themselves, for a head that logs them.

    Args:
        lambda_heatmap: factor of the disk's term; 4 in the paper.
        lambda_offset: factor of the offsets' term; 1 in the paper.
        delta_px: error up to which the offsets' term is quadratic, px.
        order: of the channels: 'grouped' (K disks, K offsets x, K offsets y) or 'interleaved'
            (disk, x, y of each keypoint); that of the codec.
        disk_loss: config of another loss for the disk, on logits, such as
            ``dict(type='mmloss_plugins.SigmoidFocalLoss')``. It gets one map per row,
            (B * K, 1, H, W), and the mean over the map is taken of what it returns unreduced:
            ``DiceLoss`` needs ``ratio_over='sample'`` and ``BalancedBCELoss``
            ``mine_over='sample'``, or one keypoint would depend on the others. None: the
            logistic loss.
        base_options: ``reduction``, ``mean_over``, ``loss_weight``, ``use_target_weight``,
            ``loss_name``, ``compile``; see :class:`BaseLoss`.
    """

    def __init__(
        self,
        lambda_heatmap: float = 4.0,
        lambda_offset: float = 1.0,
        delta_px: float = 1.0,
        order: str = 'grouped',
        disk_loss: Mapping[str, Any] | None = None,
        **base_options: Any,
    ) -> None:
        super().__init__(**base_options)
        check_choice(self.loss_name, 'order', order, ORDERS)
        self._check_factors(lambda_heatmap, lambda_offset, delta_px)
        self.lambda_heatmap = lambda_heatmap
        self.lambda_offset = lambda_offset
        self.delta_px = delta_px
        self.order = order
        self.disk_loss = None if disk_loss is None else self._build_disk_loss(disk_loss)

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the weighted sum of the two terms.

        Args:
            pred: logits of the disks and offsets in px, shape (B, 3K, H, W).
            target: disks and offsets in px, same shape.

        Returns:
            Shape (B, K), float32.
        """
        heatmap, offset = self._parts(pred, target)
        return heatmap + offset

    def terms(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        mask: Tensor | None = None,
        *,
        avg_factor: AvgFactor | None = None,
    ) -> dict[str, Tensor]:
        """Return the two terms, weighted and reduced as :meth:`forward` does; they sum to it.

        Returns:
            ``loss_heatmap`` and ``loss_offset``. Give these two to MMEngine or the sum, not both.
        """
        self.check_inputs(pred, target)
        if not self.use_target_weight:
            weight = None
        if avg_factor is None and self.reduction == 'mean':
            avg_factor = self.default_avg_factor(weight, mask, pred, target)
        parts = zip(('loss_heatmap', 'loss_offset'), self._parts(pred, target))
        return {
            name: self.loss_weight
            * reduce_loss(
                part,
                weight,
                mask,
                reduction=self.reduction,
                avg_factor=avg_factor,
                what=self.loss_name,
            )
            for name, part in parts
        }

    @torch.no_grad()
    def diagnostics(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        mask: Tensor | None = None,
        **_: Any,
    ) -> dict[str, Tensor]:
        """Return ``offset_error_px``: mean length of the offsets' error inside the disks, px.

        Far below R where the offsets are learnt. Over keypoints with weight; 0-d tensor, no sync.
        """
        offsets = F.split_offset_maps(pred, self.order)[1]
        disk, labels = F.split_offset_maps(target, self.order)
        # Beyond its parabola, here of no width, Huber's function is the distance itself.
        tiny = 1e-6
        error = F.disk_offset_huber(offsets, labels, disk, delta_px=tiny) / tiny
        has_disk = (disk.sum((-2, -1)) > 0).to(error.dtype)
        weight = weight if self.use_target_weight else None
        total, count = (
            reduce_loss(part, weight, mask, reduction='sum', what=self.loss_name)
            for part in (error, has_disk)
        )
        return {'offset_error_px': total / count.clamp(min=torch.finfo(count.dtype).tiny)}

    def check_inputs(self, pred: Tensor, target: Tensor) -> None:
        check_same_shape(self.loss_name, pred, target)
        if pred.dim() != 4 or pred.shape[1] % 3:
            rule = 'have the shape (B, 3K, H, W): disk, x and y of each keypoint'
            step = 'Use OffsetHeatmapHead, or a head with three channels per keypoint'
            got = tuple(pred.shape)
            raise ValueError(message(self.loss_name, 'pred and target', rule, got, step))

    def loss_shape(self, pred: Tensor) -> torch.Size:
        return torch.Size((pred.shape[0], pred.shape[1] // 3))

    def _parts(self, pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        logits, offsets = F.split_offset_maps(pred, self.order)
        disk, labels = F.split_offset_maps(target, self.order)
        heatmap = self._heatmap_part(logits, disk)
        offset = self.run(F.disk_offset_huber, offsets, labels, disk, delta_px=self.delta_px)
        return heatmap * self.lambda_heatmap, offset * self.lambda_offset

    def _heatmap_part(self, logits: Tensor, disk: Tensor) -> Tensor:
        if self.disk_loss is None:
            return self.run(F.disk_logistic, logits, disk)
        rows = (logits.shape[0] * logits.shape[1], 1, *logits.shape[2:])
        loss: Tensor = self.disk_loss(
            logits.reshape(rows), disk.reshape(rows), reduction_override='none'
        )
        # A size of -1 would be ambiguous for an empty batch.
        cells = math.prod(loss.shape[1:])
        return loss.reshape(*logits.shape[:2], cells).mean(-1)

    def _build_disk_loss(self, config: Mapping[str, Any]) -> BaseLoss:
        loss = MODELS.build(dict(config))
        if not isinstance(loss, BaseLoss):
            rule = 'be the config of a loss of mmloss_plugins'
            step = "Write the prefix, as in type='mmloss_plugins.SigmoidFocalLoss'"
            raise TypeError(message(self.loss_name, 'disk_loss', rule, type(loss).__name__, step))
        for option in ('ratio_over', 'mine_over'):
            if getattr(loss, option, None) == 'batch':
                rule, step = 'judge each keypoint by itself', f"Add {option}='sample' to it"
                got = f"{option}='batch'"
                raise ValueError(message(self.loss_name, 'disk_loss', rule, got, step))
        return loss

    def _check_factors(self, heatmap: float, offset: float, delta_px: float) -> None:
        for argument, value in (('lambda_heatmap', heatmap), ('lambda_offset', offset)):
            if not value >= 0:
                step = 'The paper uses lambda_heatmap=4, lambda_offset=1'
                raise ValueError(message(self.loss_name, argument, 'be >= 0', value, step))
        if not delta_px > 0:
            step = 'Take the error in px up to which the loss shall be quadratic'
            raise ValueError(message(self.loss_name, 'delta_px', 'be > 0', delta_px, step))
