"""Losses on keypoint heatmaps (B, K, H, W)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmloss_plugins import functional as F
from mmloss_plugins.errors import check_choice, message
from mmloss_plugins.functional.heatmap import LABELS, MSE_SCALES, check_positive, holds_classes
from mmloss_plugins.functional.reduction import AvgFactor, reduce_loss
from mmloss_plugins.functional.shapes import check_same_shape
from mmloss_plugins.losses.base import BaseLoss
from mmloss_plugins.registry import MODELS


@MODELS.register_module()
class HeatmapMSELoss(BaseLoss):
    """Squared error of heatmaps, per pixel; see :func:`functional.heatmap_mse`.

    Drop-in for ``mmpose.KeypointMSELoss``, whose arguments are all understood, with
    ``use_target_weight=False`` honoured. The default value is that of the authors of
    SimpleBaseline and HRNet (JointsMSELoss), half the mean over all pixels; MMPose's is twice as
    large, see ``scale``. A weight w counts as w in both; the authors' code counts it as w^2, which
    is the same for their weights of 0 and 1.

    Args:
        skip_empty_channel: leave out maps that are zero everywhere; with ``mean_over='valid'``
            they do not count either.
        scale: 'author' for half the weighted mean, 'mmpose' for KeypointMSELoss, twice that.
        foreground_weight: factor of pixels whose target is 1; it falls linearly to 1 where the
            target is 0.
        base_options: ``reduction``, ``mean_over``, ``loss_weight``, ``use_target_weight``,
            ``loss_name``, ``compile``; see :class:`BaseLoss`. ``mean_over='valid'`` is the mean
            over the visible keypoints.
    """

    def __init__(
        self,
        skip_empty_channel: bool = False,
        scale: str = 'author',
        foreground_weight: float = 1.0,
        **base_options: Any,
    ) -> None:
        super().__init__(**base_options)
        check_choice(self.loss_name, 'scale', scale, MSE_SCALES)
        check_positive(self.loss_name, 'foreground_weight', foreground_weight)
        self.skip_empty_channel = skip_empty_channel
        self.scale = scale
        self.foreground_weight = foreground_weight

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the weighted squared error.

        Args:
            pred: heatmaps, (B, K, H, W).
            target: heatmaps, same shape.

        Returns:
            Shape (B, K, H, W), float32.
        """
        return self._mse(pred, target, summed=False)

    def summed(self, pred: Tensor, target: Tensor) -> Tensor:
        return self._mse(pred, target, summed=True)

    def check_inputs(self, pred: Tensor, target: Tensor) -> None:
        check_same_shape(self.loss_name, pred, target)
        _check_maps(self.loss_name, pred)

    def element_mask(self, mask: Tensor | None, pred: Tensor, target: Tensor) -> Tensor | None:
        if not self.skip_empty_channel:
            return mask
        return _without_empty(mask, target, self.loss_shape(pred), self.loss_name)

    @torch.no_grad()
    def diagnostics(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        mask: Tensor | None = None,
        **_: Any,
    ) -> dict[str, Tensor]:
        """Return ``heatmap_ratio``, the loss over the loss of maps that are zero everywhere.

        1.0 means collapsed (the network draws nothing), values that fall towards 0 mean that it
        learns, however small the loss itself looks. 0-d tensor, no sync.
        """
        if not self.use_target_weight:
            weight = None
        mask = self.element_mask(mask, pred, target)
        value, worst = (
            reduce_loss(self.elementwise(maps, target), weight, mask, reduction='sum')
            for maps in (pred, torch.zeros_like(pred))
        )
        return {'heatmap_ratio': _ratio(value, worst)}

    def _mse(self, pred: Tensor, target: Tensor, summed: bool) -> Tensor:
        return self.run(
            F.heatmap_mse,
            pred,
            target,
            scale=self.scale,
            foreground_weight=self.foreground_weight,
            summed=summed,
        )


@MODELS.register_module()
class SpatialSoftmaxCELoss(BaseLoss):
    """Cross-entropy of a softmax over each whole map; see :func:`functional.spatial_softmax_ce`.

    One element of the loss is one keypoint, so weights are (B, K) as MMPose's heads pass them. A
    keypoint with an empty target counts as unlabelled: no loss, and with ``mean_over='valid'`` it
    is not counted. The stock HeatmapHead decodes such logits wrongly; use
    ``mmloss_plugins.HeatmapHead(activation='spatial_softmax')``.

    Args:
        beta: inverse temperature of the prediction's softmax.
        label: 'soft' normalises the target of each keypoint to a sum of 1, 'one_hot' takes its
            highest pixel.
        base_options: ``reduction``, ``mean_over``, ``loss_weight``, ``use_target_weight``,
            ``loss_name``, ``compile``; see :class:`BaseLoss`.
    """

    def __init__(self, beta: float = 1.0, label: str = 'soft', **base_options: Any) -> None:
        super().__init__(**base_options)
        check_choice(self.loss_name, 'label', label, LABELS)
        check_positive(self.loss_name, 'beta', beta)
        self.beta = beta
        self.label = label

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the cross-entropy of each keypoint.

        Args:
            pred: logits, (B, K, H, W).
            target: heatmaps, same shape, non-negative.

        Returns:
            Shape (B, K), float32.
        """
        return self.run(F.spatial_softmax_ce, pred, target, beta=self.beta, label=self.label)

    def check_inputs(self, pred: Tensor, target: Tensor) -> None:
        check_same_shape(self.loss_name, pred, target)
        _check_maps(self.loss_name, pred)

    def loss_shape(self, pred: Tensor) -> torch.Size:
        return pred.shape[:2]

    def default_avg_factor(
        self, weight: Tensor | None, mask: Tensor | None, pred: Tensor, target: Tensor
    ) -> AvgFactor | None:
        if self.mean_over == 'valid':
            mask = _without_empty(mask, target, self.loss_shape(pred), self.loss_name)
        return super().default_avg_factor(weight, mask, pred, target)

    @torch.no_grad()
    def diagnostics(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        mask: Tensor | None = None,
        **_: Any,
    ) -> dict[str, Tensor]:
        """Return ``spatial_softmax_ratio``: 1.0 for uniform maps, 0 for maps equal to the label.

        The loss itself does not fall to 0 but to the entropy of a soft label, which is taken off
        both sides of the ratio. 0-d tensor, no sync.
        """
        if not self.use_target_weight:
            weight = None
        perfect = target.float().clamp(min=torch.finfo(torch.float32).tiny).log() / self.beta
        value, worst, best = (
            reduce_loss(self.elementwise(maps, target), weight, mask, reduction='sum')
            for maps in (pred, torch.zeros_like(pred), perfect)
        )
        best = best if self.label == 'soft' else torch.zeros_like(best)
        return {'spatial_softmax_ratio': _ratio(value - best, worst - best)}


@MODELS.register_module()
class PixelSoftmaxCELoss(BaseLoss):
    """Cross-entropy of each pixel over K keypoints and background; see
    :func:`functional.pixel_softmax_ce`.

    ``pred`` has K + 1 channels, the background last;
    ``mmloss_plugins.HeatmapHead(activation='pixel_softmax')`` adds that channel. The target is
    either an integer class map (B, H, W) with the background as class K, or the heatmaps
    (B, K, H, W) of a host's codec: each pixel then belongs to the keypoint with the highest value,
    or to the background where that is below ``pos_threshold``.

    Weights and masks are (B, H, W) or a left part of it. With heatmaps as the target, a weight
    (B, K) or (B, K, 1, 1), as MMPose's heads pass it, is one per keypoint and wins over a reading
    as (B, H): pixels of keypoint k get w[b, k], pixels of the background the largest weight of
    their sample. A sample without any labelled keypoint therefore does not count, while the
    pixels under a single unlabelled keypoint, whose heatmap is empty, count as background.

    Args:
        pos_threshold: smallest value of a heatmap that makes a pixel foreground.
        class_weight: K + 1 factors on the loss of the pixels of each class, the background's
            last. 'mean' does not divide by their sum, as PyTorch's cross-entropy does.
        ignore_index: pixels of this class in a class map are left out; with
            ``mean_over='valid'`` they do not count either.
        base_options: ``reduction``, ``mean_over``, ``loss_weight``, ``use_target_weight``,
            ``loss_name``, ``compile``; see :class:`BaseLoss`.
    """

    class_weight: Tensor | None

    def __init__(
        self,
        pos_threshold: float = 0.5,
        class_weight: Sequence[float] | None = None,
        ignore_index: int = 255,
        **base_options: Any,
    ) -> None:
        super().__init__(**base_options)
        check_positive(self.loss_name, 'pos_threshold', pos_threshold)
        _check_class_weight(self.loss_name, class_weight)
        self.pos_threshold = pos_threshold
        self.ignore_index = ignore_index
        factors = None if class_weight is None else torch.tensor(class_weight, dtype=torch.float32)
        self.register_buffer('class_weight', factors, persistent=False)

    def forward(
        self,
        pred: Any,
        target: Any,
        weight: Tensor | None = None,
        mask: Tensor | None = None,
        *,
        avg_factor: AvgFactor | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """Return ``loss_weight`` times the reduced loss; see :meth:`BaseLoss.forward`.

        Args:
            pred: logits, (B, K + 1, H, W).
            target: classes (B, H, W), or heatmaps (B, K, H, W).
            weight: (B, H, W) or a left part; or (B, K) with heatmaps.
            mask: boolean validity, (B, H, W) or a left part.
            avg_factor: as in the base class.
            reduction_override: as in the base class.

        Returns:
            A scalar, or (B, H, W) for 'none'.
        """
        self.check_inputs(pred, target)
        classes = self._classes(target)
        return super().forward(
            pred,
            classes,
            self._pixel_weight(weight, target, classes),
            mask,
            avg_factor=avg_factor,
            reduction_override=reduction_override,
        )

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the cross-entropy of each pixel.

        Args:
            pred: logits, (B, K + 1, H, W).
            target: classes (B, H, W), or heatmaps (B, K, H, W).

        Returns:
            Shape (B, H, W), float32.
        """
        return self.run(
            _pixel_softmax_ce,
            pred,
            self._classes(target),
            self.class_weight,
            ignore_index=self.ignore_index,
        )

    def loss_shape(self, pred: Tensor) -> torch.Size:
        return torch.Size((pred.shape[0], *pred.shape[2:]))

    def check_inputs(self, pred: Any, target: Any) -> None:
        for name, tensor in (('pred', pred), ('target', target)):
            if not isinstance(tensor, Tensor):
                rule, step = 'be a tensor', 'Pass the output of the head and the encoded target'
                raise TypeError(message(self.loss_name, name, rule, type(tensor).__name__, step))
        if pred.dim() != 4 or pred.shape[1] < 2:
            rule = 'have the shape (B, K + 1, H, W) with at least one keypoint'
            step = "Use mmloss_plugins.HeatmapHead with activation='pixel_softmax'"
            raise ValueError(message(self.loss_name, 'pred', rule, tuple(pred.shape), step))
        batch, channels, height, width = pred.shape
        maps = (batch, channels - 1, height, width)
        if holds_classes(target) and target.shape != (batch, height, width):
            rule = f'have the shape {(batch, height, width)} of the pixels of pred'
            step = 'Pass one class per pixel, the background as class K'
        elif not holds_classes(target) and target.shape != maps:
            rule = f'have the shape {maps}, one channel less than pred, as the background is last'
            step = "Let mmloss_plugins.HeatmapHead(activation='pixel_softmax') add the background"
        else:
            return
        raise ValueError(message(self.loss_name, 'target', rule, tuple(target.shape), step))

    def default_avg_factor(
        self, weight: Tensor | None, mask: Tensor | None, pred: Tensor, target: Tensor
    ) -> AvgFactor | None:
        if self.mean_over == 'valid':
            mask = _and(mask, target != self.ignore_index, self.loss_shape(pred), self.loss_name)
        return super().default_avg_factor(weight, mask, pred, target)

    @torch.no_grad()
    def diagnostics(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        mask: Tensor | None = None,
        **_: Any,
    ) -> dict[str, Tensor]:
        """Return ``pixel_foreground_recall``: foreground pixels whose class has the highest logit.

        Pixels without weight do not count. 0 while everything is background, which the loss
        itself hardly shows. 0-d tensor, no sync.
        """
        classes = self._classes(target)
        foreground = (classes != pred.shape[1] - 1) & (classes != self.ignore_index)
        foreground = _and(mask, foreground, classes.shape, self.loss_name)
        weight = self._pixel_weight(weight, target, classes) if self.use_target_weight else None
        if weight is not None:
            foreground = _and(weight.ne(0), foreground, classes.shape, self.loss_name)
        right = foreground & (pred.argmax(1) == classes)
        return {'pixel_foreground_recall': right.sum() / foreground.sum().clamp(min=1)}

    def _classes(self, target: Tensor) -> Tensor:
        if holds_classes(target):
            return target
        return F.heatmaps_to_classes(target, self.pos_threshold)

    def _pixel_weight(
        self, weight: Tensor | None, target: Tensor, classes: Tensor
    ) -> Tensor | None:
        """Turn a weight per keypoint into one per pixel; leave others as they are."""
        if weight is None or holds_classes(target) or not self.use_target_weight:
            return weight
        per_keypoint = target.shape[:2]
        if weight.shape not in (per_keypoint, (*per_keypoint, 1, 1)):
            return weight
        weight = weight.reshape(per_keypoint)
        table = torch.cat([weight, weight.amax(1, keepdim=True)], dim=1)
        return table.gather(1, classes.flatten(1)).reshape(classes.shape)


def _pixel_softmax_ce(
    pred: Tensor, classes: Tensor, class_weight: Tensor | None, ignore_index: int
) -> Tensor:
    return F.pixel_softmax_ce(pred, classes, class_weight=class_weight, ignore_index=ignore_index)


def _check_maps(what: str, pred: Tensor) -> None:
    if pred.dim() != 4 or 0 in pred.shape[1:]:
        step = 'Use a head that predicts one map per keypoint'
        rule = 'have the shape (B, K, H, W) with pixels'
        raise ValueError(message(what, 'pred', rule, tuple(pred.shape), step))


def _check_class_weight(what: str, class_weight: Sequence[float] | None) -> None:
    if class_weight is None:
        return
    if len(class_weight) < 2 or not all(0 <= factor < float('inf') for factor in class_weight):
        rule = 'hold K + 1 finite factors that are not negative'
        step = 'Give one per keypoint and the background last'
        raise ValueError(message(what, 'class_weight', rule, class_weight, step))


def _without_empty(mask: Tensor | None, target: Tensor, shape: torch.Size, what: str) -> Tensor:
    """Return ``mask`` with False for the keypoints whose target is zero everywhere."""
    return _and(mask, (target != 0).flatten(2).any(-1), shape, what)


def _and(mask: Tensor | None, other: Tensor, shape: torch.Size, what: str) -> Tensor:
    other = F.expand_weight(other, shape, what, 'mask')
    return other if mask is None else other & F.expand_weight(mask, shape, what, 'mask').bool()


def _ratio(value: Tensor, worst: Tensor) -> Tensor:
    return value / worst.clamp(min=torch.finfo(worst.dtype).tiny)
