"""Cross-entropy with the hard negative mining of DB."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmloss_plugins import functional as F
from mmloss_plugins.errors import check_choice
from mmloss_plugins.functional.balanced_bce import Fallback, check_mining
from mmloss_plugins.functional.reduction import REDUCTIONS, AvgFactor, divide, reduce_loss
from mmloss_plugins.losses.base import BaseLoss, average_over_ranks
from mmloss_plugins.registry import MODELS


@MODELS.register_module()
class BalancedBCELoss(BaseLoss):
    """BCE of the positives and the hardest negatives; see :func:`functional.balanced_bce_loss`.

    Takes logits and targets of one shape: ``(B, 1, H, W)`` for text, ``(B, K, H, W)`` with
    ``weight`` ``(B, K)`` as MMPose's HeatmapHead calls it. The default value is that of the
    authors of DB (whose additional 1e-6 in the divisor is left out): the loss of the positives
    and the mined negatives over their number. With ``reduction='none'`` the other elements are 0.

    An element with weight 0 or mask False is neither a positive nor a negative. Other weights
    scale the loss of their elements; they decide neither what is mined nor how much.

    MMOCR's class has the same value where there is a positive; without one it is 0, here
    ``fallback_negatives=0``.

    Args:
        negative_ratio: negatives for each positive.
        mine_over: 'batch' ranks the negatives of all samples of a rank together (authors),
            'sample' those of each sample: then the loss of a sample depends on no other one, and
            not on the number of processes.
        fallback_negatives: how many negatives to take where there is no positive: 'all' (the
            source), or a number; 0 leaves such a batch or sample without a loss (authors, MMOCR's
            default). With ``mine_over='sample'`` all negatives of one empty image outnumber
            those of all others: take a number, such as 500.
        pos_threshold: smallest target of a positive. At 1 (authors) a Gaussian heatmap has one
            positive per keypoint, or none where its peak lies between pixels: take 0.5.
        neg_threshold: largest target of a negative; what lies between the two is left out.
        mean_over: what 'mean' divides by when ``avg_factor`` is not given. 'mined': the number
            of positives and mined negatives, averaged over ranks, never below 1 in total. 'all',
            'valid': as in :class:`BaseLoss`; 'valid' counts unmined elements too.
        base_options: ``reduction``, ``loss_weight``, ``use_target_weight``, ``loss_name``,
            ``compile``; see :class:`BaseLoss`.
    """

    MEAN_OVER = ('mined', 'all', 'valid')

    def __init__(
        self,
        negative_ratio: float = 3.0,
        mine_over: str = 'batch',
        fallback_negatives: Fallback = 'all',
        pos_threshold: float = 1.0,
        neg_threshold: float = 0.0,
        mean_over: str = 'mined',
        **base_options: Any,
    ) -> None:
        super().__init__(mean_over=mean_over, **base_options)
        check_mining(
            self.loss_name,
            negative_ratio,
            mine_over,
            fallback_negatives,
            pos_threshold,
            neg_threshold,
        )
        self.negative_ratio = negative_ratio
        self.mine_over = mine_over
        self.fallback_negatives = fallback_negatives
        self.pos_threshold = pos_threshold
        self.neg_threshold = neg_threshold

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
            pred: logits, any shape; for ``mine_over='sample'`` (B, ...).
            target: same shape, in [0, 1].
            weight: soft factors, matched from the left; 0 takes an element out of the mining.
            mask: boolean validity, matched from the left; for ``pred`` (B, 1, H, W) give it the
                same four dimensions.
            avg_factor: divide the sum by this ('mean' only).
            reduction_override: takes the place of ``reduction`` for this call.
        """
        reduction = self.reduction if reduction_override is None else reduction_override
        check_choice(self.loss_name, 'reduction_override', reduction, REDUCTIONS)
        self.check_inputs(pred, target)
        weight = weight if self.use_target_weight else None
        valid = self._valid(weight, mask, pred.shape)
        share = self._share(pred, target, valid)
        if avg_factor is None and reduction == 'mean':
            avg_factor = self._avg_factor(share, weight, mask, pred, target)
        summed = weight is None and reduction != 'none'
        loss = self.run(F.balanced_bce_loss, pred, target, share, valid, summed=summed)
        if summed:
            loss = divide(loss, pred.numel(), reduction, avg_factor, self.loss_name)
        else:
            options = dict(reduction=reduction, avg_factor=avg_factor, what=self.loss_name)
            loss = reduce_loss(loss, weight, **options)  # type: ignore[arg-type]
        return loss * self.loss_weight

    @torch.no_grad()
    def diagnostics(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        mask: Tensor | None = None,
        **_: Any,
    ) -> dict[str, Tensor]:
        """Return ``positives`` and ``mined_negatives``, the numbers that this rank's loss counts.

        No positives for long means that the target never reaches ``pos_threshold``. 0-d tensors,
        no sync.
        """
        valid = self._valid(weight if self.use_target_weight else None, mask, pred.shape)
        positive = target.double() >= self.pos_threshold
        positives = (positive if valid is None else positive & valid).sum()
        return {
            'positives': positives,
            'mined_negatives': self._share(pred, target, valid).sum() - positives,
        }

    def _share(self, pred: Tensor, target: Tensor, valid: Tensor | None) -> Tensor:
        return self.run(
            F.hard_negative_share,
            pred,
            target,
            valid,
            negative_ratio=self.negative_ratio,
            mine_over=self.mine_over,
            fallback_negatives=self.fallback_negatives,
            pos_threshold=self.pos_threshold,
            neg_threshold=self.neg_threshold,
        )

    def _valid(
        self, weight: Tensor | None, mask: Tensor | None, shape: torch.Size
    ) -> Tensor | None:
        """Return which elements count, broadcastable to ``shape``; None for all."""
        if mask is not None:
            mask = F.expand_weight(mask, shape, self.loss_name, 'mask') != 0
        if weight is None:
            return mask
        valid = F.expand_weight(weight, shape, self.loss_name) != 0
        return valid if mask is None else valid & mask

    def _avg_factor(
        self,
        share: Tensor,
        weight: Tensor | None,
        mask: Tensor | None,
        pred: Tensor,
        target: Tensor,
    ) -> AvgFactor | None:
        if self.mean_over == 'mined':
            return average_over_ranks(share.sum())
        return self.default_avg_factor(weight, mask, pred, target)
