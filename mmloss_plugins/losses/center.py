"""Centre loss with its centres."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn

from mmloss_plugins import functional as F
from mmloss_plugins.errors import check_choice, message
from mmloss_plugins.functional.center_loss import DISTANCES, check_centers
from mmloss_plugins.functional.reduction import AvgFactor
from mmloss_plugins.losses.base import BaseLoss
from mmloss_plugins.registry import MODELS

UPDATES = ('gradient', 'moving_average')


@MODELS.register_module()
class CenterLoss(BaseLoss):
    """Half the squared distance to the centre of the class; see :func:`functional.center_loss`.

    ``pred`` are features (B, D), the target classes (B,). The loss owns the centres, so it has to
    be a submodule of the model. They are in the checkpoint as ``centers``, (C, D), whichever way
    they move:

    - ``update='gradient'``: a parameter of the optimiser, as in write-ups. Its gradient is scaled
      by ``loss_weight``, and so is its pace with SGD; to undo that, give it its own learning rate:
      ``paramwise_cfg=dict(custom_keys={'center_loss.centers': dict(lr_mult=1 / loss_weight)})``
      where the model calls it ``center_loss``. Weight decay draws it to the origin.
    - ``update='moving_average'``: a buffer that each call in training moves towards the samples,
      after the loss is computed, as in the paper (equation 4): by ``rate`` times the sum of the
      differences over one plus the number of samples of that class, all ranks together. Samples
      of weight 0, ignored ones and those with a NaN do not count. Activation checkpointing would
      move them twice.

    Args:
        num_classes: C.
        feat_dim: D.
        update: 'gradient' or 'moving_average', see above.
        rate: alpha of the moving average, within (0, 1].
        distance: 'squared', or 'frobenius' for the un-squared norm over the batch that write-ups
            print. A sample of weight 0 has no part in it; it is that of each rank.
        init_std: standard deviation of the first centres, normal around the origin; 0: all there.
        ignore_index: samples of this class drop out; with ``mean_over='valid'`` they do not
            count either.
        base_options: ``reduction``, ``mean_over``, ``loss_weight``, ``use_target_weight``,
            ``loss_name``, ``compile``; see :class:`BaseLoss`.
    """

    centers: Tensor

    def __init__(
        self,
        num_classes: int,
        feat_dim: int,
        update: str = 'gradient',
        rate: float = 0.5,
        distance: str = 'squared',
        init_std: float = 0.0,
        ignore_index: int = -1,
        **base_options: Any,
    ) -> None:
        super().__init__(**base_options)
        check_choice(self.loss_name, 'update', update, UPDATES)
        check_choice(self.loss_name, 'distance', distance, DISTANCES)
        self._check_numbers(num_classes, feat_dim, rate, init_std)
        self.update = update
        self.rate = rate
        self.distance = distance
        self.ignore_index = ignore_index
        self.num_classes = num_classes
        centers = init_std * torch.randn(num_classes, feat_dim)
        if update == 'gradient':
            self.centers = nn.Parameter(centers)
        else:
            self.register_buffer('centers', centers)

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
            pred: features, (B, D).
            target: classes, (B,).
            weight: (B,).
            mask: boolean validity, (B,).
            avg_factor: as in the base class.
            reduction_override: as in the base class.

        Returns:
            A scalar, or (B,) for 'none'.
        """
        self.check_inputs(pred, target)
        weight = weight if self.use_target_weight else None
        counting = self._counting(target, weight, mask)
        loss = super().forward(
            pred,
            counting,
            weight,
            mask,
            avg_factor=avg_factor,
            reduction_override=reduction_override,
        )
        if self.training and self.update == 'moving_average':
            self.move_centers(pred, counting, weight)
        return loss

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the distance of each sample to the centre of its class.

        Args:
            pred: features, (B, D).
            target: classes, (B,).

        Returns:
            Shape (B,), float32.
        """
        return self.run(
            _center_loss,
            pred,
            self.centers,
            target,
            distance=self.distance,
            ignore_index=self.ignore_index,
        )

    def loss_shape(self, pred: Tensor) -> torch.Size:
        return pred.shape[:1]

    def check_inputs(self, pred: Any, target: Any) -> None:
        check_centers(self.loss_name, pred, self.centers, target, self.ignore_index)

    def default_avg_factor(
        self, weight: Tensor | None, mask: Tensor | None, pred: Tensor, target: Tensor
    ) -> AvgFactor | None:
        if self.mean_over == 'valid':
            mask = target != self.ignore_index
        return super().default_avg_factor(weight, mask, pred, target)

    @torch.no_grad()
    def move_centers(self, features: Tensor, target: Tensor, weight: Tensor | None = None) -> None:
        """Move the centres towards the samples of their classes on all ranks.

        Args:
            features: (B, D).
            target: (B,) classes or ``ignore_index``.
            weight: (B,) how often a sample counts.
        """
        if weight is not None:
            weight = F.expand_weight(weight, target.shape, self.loss_name).expand(target.shape)
        sums, counts = F.class_sums(
            features, target, len(self.centers), weight, ignore_index=self.ignore_index
        )
        # One message, and the same order of messages on every rank.
        total = torch.cat([sums, counts.unsqueeze(1)], dim=1)
        all_reduce(total)
        self.centers.copy_(
            F.move_centers(self.centers, total[:, :-1], total[:, -1], rate=self.rate)
        )

    def extra_repr(self) -> str:
        classes, dims = self.centers.shape
        return f'{super().extra_repr()}, centers=({classes}, {dims}), update={self.update!r}'

    def _counting(self, target: Tensor, weight: Tensor | None, mask: Tensor | None) -> Tensor:
        """Return ``target`` with ``ignore_index`` for what is switched off."""
        for argument, factor in (('weight', weight), ('mask', mask)):
            if factor is not None:
                factor = F.expand_weight(factor, target.shape, self.loss_name, argument)
                target = torch.where(factor != 0, target, self.ignore_index)
        return target

    def _check_numbers(self, num_classes: Any, feat_dim: Any, rate: Any, init_std: Any) -> None:
        for argument, value in (('num_classes', num_classes), ('feat_dim', feat_dim)):
            if type(value) is not int or value < 1:
                step = 'Take those of the data set and of the embedding'
                rule = 'be a positive integer'
                raise ValueError(message(self.loss_name, argument, rule, value, step))
        if not 0 < rate <= 1:
            step = 'The paper has 0.5'
            raise ValueError(message(self.loss_name, 'rate', 'be within (0, 1]', rate, step))
        if not 0 <= init_std < float('inf'):
            step = 'Leave it out to start at the origin'
            raise ValueError(message(self.loss_name, 'init_std', 'be at least 0', init_std, step))


def _center_loss(features: Tensor, centers: Tensor, target: Tensor, **options: Any) -> Tensor:
    """One region for ``torch.compile``, whose tensors come by position."""
    return F.center_loss(features, centers, target, **options)
