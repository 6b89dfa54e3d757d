"""Focal losses: on hard or soft labels, and on Gaussian heatmaps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Union

import torch
from torch import Tensor

from mmloss_plugins import functional as F
from mmloss_plugins.errors import message
from mmloss_plugins.functional.focal import check_focal_target, positive_mask
from mmloss_plugins.functional.reduction import AvgFactor, divide
from mmloss_plugins.functional.shapes import check_same_shape
from mmloss_plugins.losses.base import BaseLoss, average_over_ranks
from mmloss_plugins.registry import MODELS

PER_IMAGE = 'positives_per_image'
Heatmap = Union[Tensor, tuple[Tensor, Tensor], list[Tensor]]


class PositivesLoss(BaseLoss):
    """An element-wise loss on logits with positive elements, whose number may divide the sum.

    A subclass implements :meth:`positives`. ``mean_over`` has two more choices. 'positives': the
    number of valid positive elements, averaged over ranks, at least 1 in total.
    'positives_per_image': each image (index of dimension 0) is divided by its own number of
    positives, at least 1, and the mean over images is taken.
    """

    MEAN_OVER = ('all', 'valid', 'positives', PER_IMAGE)
    from_logits = True

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
        """Return ``loss_weight`` times the reduced loss; see :meth:`BaseLoss.forward`."""
        mean = (reduction_override or self.reduction) == 'mean' and avg_factor is None
        if mean and self.mean_over == PER_IMAGE:
            loss = super().forward(pred, target, weight, mask, reduction_override='none')
            return self._mean_over_images(loss, pred, target, weight, mask)
        return super().forward(
            pred,
            target,
            weight,
            mask,
            avg_factor=avg_factor,
            reduction_override=reduction_override,
        )

    def positives(self, pred: Tensor, target: Any) -> Tensor:
        """Return which elements are positive, boolean, shape of ``pred``."""
        raise TypeError(
            message(
                type(self).__name__,
                'positives',
                'be implemented by the subclass',
                'none',
                'Return a boolean tensor of the shape of pred',
            )
        )

    def default_avg_factor(
        self, weight: Tensor | None, mask: Tensor | None, pred: Tensor, target: Any
    ) -> AvgFactor | None:
        if self.mean_over != 'positives':
            return super().default_avg_factor(weight, mask, pred, target)
        positive = self._valid_part(self.positives(pred, target), weight, mask)
        # Five times as fast as the sum of a boolean tensor on a CPU.
        return average_over_ranks(torch.count_nonzero(positive))

    @torch.no_grad()
    def diagnostics(
        self,
        pred: Tensor,
        target: Any,
        weight: Tensor | None = None,
        mask: Tensor | None = None,
        **_: Any,
    ) -> dict[str, Tensor]:
        """Return ``num_positives`` and the mean predicted probability of positives and of the rest.

        A collapsed heatmap shows as a ``positive_score`` that stays at the ``background_score``,
        a codec whose targets never reach 1 as ``num_positives`` 0. 0-d tensors of this rank, no
        sync.
        """
        weight = weight if self.use_target_weight else None
        mask = self.element_mask(mask, pred, target)
        positive = self.positives(pred, target)
        scores = pred.float().sigmoid() if self.from_logits else pred.float()
        parts = [self._valid_part(part, weight, mask) for part in (positive, ~positive)]
        counts = [torch.count_nonzero(part) for part in parts]
        # Not a product: a score behind a weight of zero may be NaN.
        totals = [torch.where(part, scores, 0).sum() for part in parts]
        means = [total / count.clamp(min=1) for total, count in zip(totals, counts)]
        return {
            'num_positives': counts[0].float(),
            'positive_score': means[0],
            'background_score': means[1],
        }

    def _valid_part(self, part: Tensor, weight: Tensor | None, mask: Tensor | None) -> Tensor:
        """Return ``part``, boolean, without the elements of weight 0 or mask False."""
        if weight is not None:
            part = part & (F.expand_weight(weight, part.shape, self.loss_name) != 0)
        if mask is not None:
            part = part & F.expand_weight(mask, part.shape, self.loss_name, 'mask').bool()
        return part

    def _mean_over_images(
        self, loss: Tensor, pred: Tensor, target: Any, weight: Tensor | None, mask: Tensor | None
    ) -> Tensor:
        weight = weight if self.use_target_weight else None
        mask = self.element_mask(mask, pred, target)
        positive = self._valid_part(self.positives(pred, target), weight, mask)
        counts = positive.unsqueeze(-1).flatten(1).sum(1).clamp(min=1)
        total = (loss.unsqueeze(-1).flatten(1).sum(1) / counts).sum()
        images = average_over_ranks(counts.new_tensor(len(counts)))
        return divide(total, len(counts), 'mean', images, self.loss_name)


@MODELS.register_module()
class SigmoidFocalLoss(PositivesLoss):
    """Focal loss on independent binary decisions; see :func:`functional.sigmoid_focal`.

    Drop-in for ``mmdet.FocalLoss``, whose arguments are all understood: class labels (N,) with
    background = C as dense heads pass them, or a target of ``pred``'s shape, hard or soft.

    Args:
        alpha: weight of t = 1 against 1 - alpha of t = 0: a number in [0, 1], a sequence with one
            for each class (dimension 1 of ``pred``), or None or -1 for no balancing.
        gamma: exponent, at least 0; 0 gives the alpha-balanced BCE.
        ignore_index: elements with this target drop out, also of ``mean_over='valid'``.
        use_sigmoid: has to be True. MMDetection's dense heads read it in the config, so write it
            there: without it they add a channel for background, with ``mmdet.FocalLoss`` too.
        activated: ``pred`` holds probabilities instead of logits, as in TOOD; what this costs
            stands in :func:`functional.gaussian_focal`.
        mean_over: 'all' (default, as in torchvision and MMDetection), 'valid', 'positives' or
            'positives_per_image', see :class:`PositivesLoss`. Positive is a target above 0.5 or
            a class label in 0...C-1. MMDetection's dense heads divide by the positives of the
            batch, with ``avg_factor``, whatever stands here; ``mmloss_plugins.FCOSHead`` heeds
            'positives_per_image'.
        base_options: ``reduction``, ``loss_weight``, ``use_target_weight``, ``loss_name``,
            ``compile``; see :class:`BaseLoss`.
    """

    class_alpha: Tensor | None

    def __init__(
        self,
        alpha: float | Sequence[float] | None = 0.25,
        gamma: float = 2.0,
        ignore_index: int | None = None,
        use_sigmoid: bool = True,
        activated: bool = False,
        mean_over: str = 'all',
        **base_options: Any,
    ) -> None:
        super().__init__(mean_over=mean_over, **base_options)
        if not use_sigmoid:
            rule, step = 'be True', 'For a softmax over the classes take PixelSoftmaxCELoss'
            raise ValueError(message(self.loss_name, 'use_sigmoid', rule, use_sigmoid, step))
        _check_number(self.loss_name, 'gamma', gamma)
        self.gamma = gamma
        self.ignore_index = ignore_index
        self.use_sigmoid = use_sigmoid
        self.from_logits = not activated
        self.alpha, values = self._check_alpha(alpha)
        self.register_buffer('class_alpha', values, persistent=False)

    def elementwise(self, pred: Tensor, target: Tensor, summed: bool = False) -> Tensor:
        """Return the focal loss of each binary decision.

        Args:
            pred: logits, (N, C) or (B, C, ...).
            target: shape of ``pred``, or class labels in that shape without dimension 1.
            summed: return their sum.

        Returns:
            Shape of ``pred``.
        """
        return self.run(
            _sigmoid_focal,
            pred,
            target,
            self.class_alpha,
            alpha=self.alpha,
            gamma=self.gamma,
            ignore_index=self.ignore_index,
            from_logits=self.from_logits,
            summed=summed,
        )

    def summed(self, pred: Tensor, target: Tensor) -> Tensor:
        return self.elementwise(pred, target, summed=True)

    def check_inputs(self, pred: Tensor, target: Tensor) -> None:
        check_focal_target(self.loss_name, pred, target)

    def element_mask(self, mask: Tensor | None, pred: Tensor, target: Tensor) -> Tensor | None:
        if self.ignore_index is None:
            return mask
        kept = target != self.ignore_index
        kept = kept if target.dim() == pred.dim() else kept.unsqueeze(1)
        if mask is None:
            return kept
        return kept & F.expand_weight(mask, pred.shape, self.loss_name, 'mask').bool()

    def positives(self, pred: Tensor, target: Tensor) -> Tensor:
        if target.dim() == pred.dim():
            return target > 0.5
        shape = [-1] + [1] * (pred.dim() - 2)
        classes = torch.arange(pred.shape[1], device=pred.device).view(shape)
        return target.unsqueeze(1) == classes

    def _check_alpha(
        self, alpha: float | Sequence[float] | None
    ) -> tuple[float | None, Tensor | None]:
        """Return ``alpha`` as a number for all classes or as a tensor (C,)."""
        if alpha is None or alpha == -1:
            return None, None
        for value in [alpha] if isinstance(alpha, (int, float)) else alpha:
            step = 'Give positives a share below 1, or alpha=None for no balancing'
            _check_number(self.loss_name, 'alpha', value, 1, step)
        if isinstance(alpha, (int, float)):
            return alpha, None
        return None, torch.tensor(list(alpha), dtype=torch.float32)


@MODELS.register_module()
class GaussianFocalLoss(PositivesLoss):
    """CenterNet's focal loss on Gaussian heatmaps; see :func:`functional.gaussian_focal`.

    Takes the place of ``mmdet.GaussianFocalLoss`` in CenterNetHead and CornerHead with
    ``from_logits=False``, and of ``mmpose.FocalHeatmapLoss`` on the logits of HeatmapHead.
    Without ``avg_factor`` the sum is divided by the number of positives, as by the authors of
    CornerNet and CenterNet; MMDetection's class divides by the number of elements there. A
    keypoint of weight 0 has no positives.

    Args:
        alpha: exponent of the prediction's error.
        beta: exponent of 1 - t at negatives.
        gamma: MMDetection's name of ``beta``; give one of the two.
        pos_threshold: elements with a target of at least this are positive. Below 1 for codecs
            that put the peak between cells.
        pos_weight: factor on the loss of positives.
        neg_weight: factor on the loss of the others.
        from_logits: False if ``pred`` holds probabilities.
        mean_over: 'positives' (default, the authors' normaliser), 'positives_per_image', 'all' or
            'valid'; see :class:`PositivesLoss`.
        base_options: ``reduction``, ``loss_weight``, ``use_target_weight``, ``loss_name``,
            ``compile``; see :class:`BaseLoss`.
    """

    def __init__(
        self,
        alpha: float = 2.0,
        beta: float | None = None,
        gamma: float | None = None,
        pos_threshold: float = 1.0,
        pos_weight: float = 1.0,
        neg_weight: float = 1.0,
        from_logits: bool = True,
        mean_over: str = 'positives',
        **base_options: Any,
    ) -> None:
        super().__init__(mean_over=mean_over, **base_options)
        if beta is not None and gamma is not None:
            rule, step = 'be left out where beta is given', 'Drop it: both name one exponent'
            raise ValueError(message(self.loss_name, 'gamma', rule, gamma, step))
        self.alpha = alpha
        self.beta = next((value for value in (beta, gamma) if value is not None), 4.0)
        self.pos_threshold = pos_threshold
        self.pos_weight = pos_weight
        self.neg_weight = neg_weight
        self.from_logits = from_logits
        for argument in ('alpha', 'beta', 'pos_weight', 'neg_weight'):
            _check_number(self.loss_name, argument, getattr(self, argument))
        step = 'Targets end at 1; a Gaussian off the grid peaks at about 0.8'
        _check_number(self.loss_name, 'pos_threshold', pos_threshold, 1, step)

    def elementwise(self, pred: Tensor, target: Heatmap, summed: bool = False) -> Tensor:
        """Return the loss of each cell.

        Args:
            pred: logits, (B, K, H, W) or any other shape.
            target: heatmap of that shape, or (heatmap, positives) with the second as in
                :func:`functional.gaussian_focal`: a boolean mask or integer positions.
            summed: return their sum.

        Returns:
            Shape of ``pred``.
        """
        heatmap, positives = _split_target(target)
        return self.run(
            F.gaussian_focal,
            pred,
            heatmap,
            positives,
            alpha=self.alpha,
            beta=self.beta,
            pos_threshold=self.pos_threshold,
            pos_weight=self.pos_weight,
            neg_weight=self.neg_weight,
            from_logits=self.from_logits,
            summed=summed,
        )

    def summed(self, pred: Tensor, target: Heatmap) -> Tensor:
        return self.elementwise(pred, target, summed=True)

    def check_inputs(self, pred: Tensor, target: Heatmap) -> None:
        if isinstance(target, (list, tuple)) and len(target) != 2:
            rule, step = 'be a heatmap or (heatmap, positives)', 'Pass positives as one tensor'
            raise ValueError(message(self.loss_name, 'target', rule, f'{len(target)} parts', step))
        check_same_shape(self.loss_name, pred, _split_target(target)[0])

    def positives(self, pred: Tensor, target: Heatmap) -> Tensor:
        heatmap, positives = _split_target(target)
        if positives is None:
            return heatmap >= self.pos_threshold
        return positive_mask(positives, pred.shape, self.loss_name)


def _sigmoid_focal(
    pred: Tensor, target: Tensor, class_alpha: Tensor | None, alpha: float | None, **options: Any
) -> Tensor:
    """Take the tensor by position: compiled code is told apart by the values of its keywords."""
    chosen = alpha if class_alpha is None else class_alpha
    return F.sigmoid_focal(pred, target, alpha=chosen, **options)


def _split_target(target: Heatmap) -> tuple[Tensor, Tensor | None]:
    return (target[0], target[1]) if isinstance(target, (list, tuple)) else (target, None)


def _check_number(
    what: str, argument: str, value: Any, high: float = float('inf'), step: str = ''
) -> None:
    """Refuse what is no number in [0, high], at construction."""
    if isinstance(value, (int, float)) and 0 <= value <= high:
        return
    rule = 'be a number of at least 0' if high == float('inf') else f'be within [0, {high:g}]'
    step = step or 'The paper has alpha=2, beta=4 on heatmaps, and gamma=2 on labels'
    raise ValueError(message(what, argument, rule, repr(value), step))
