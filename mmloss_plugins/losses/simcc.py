"""Loss of SimCC and RTMPose on 1-D coordinate distributions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Union

import torch
from torch import Tensor

from mmloss_plugins import functional as F
from mmloss_plugins.errors import check_choice, message
from mmloss_plugins.functional.reduction import AvgFactor, reduce_loss
from mmloss_plugins.functional.simcc import BIN_REDUCTIONS
from mmloss_plugins.losses.base import BaseLoss
from mmloss_plugins.registry import MODELS

Axes = Union[list[Tensor], tuple[Tensor, ...]]
SCALES = ('author', 'mmpose')


@MODELS.register_module()
class KLDiscretLoss(BaseLoss):
    """Discrete KL divergence per keypoint, summed over the axes; see :func:`functional.kl_discret`.

    Drop-in for ``mmpose.KLDiscretLoss`` in SimCCHead and RTMCCHead: all of its arguments are
    understood. The default value is that of the SimCC authors: mean over bins, weighted mean
    over batch and keypoints, summed over the axes. MMPose's value is the batch size B times as
    large, so that its scale follows the batch size per GPU; ``scale='mmpose'`` reproduces it.

    Args:
        beta: inverse temperature of the prediction's softmax.
        label_softmax: take a softmax of the labels first (RTMPose: unnormalised Gaussians).
        label_beta: inverse temperature of that softmax.
        mask: indices of keypoints whose loss is scaled by ``mask_weight``.
        mask_weight: factor for the keypoints in ``mask``.
        bin_reduction: 'mean' over bins (authors, MMPose) or 'sum', the true KL in nats.
        scale: 'author', or 'mmpose' for B times the author's value (with ``reduction='mean'``
            and without ``avg_factor``).
        base_options: ``reduction``, ``mean_over``, ``loss_weight``, ``use_target_weight``,
            ``loss_name``, ``compile``; see :class:`BaseLoss`.
    """

    masked_keypoints: Tensor | None

    def __init__(
        self,
        beta: float = 1.0,
        label_softmax: bool = False,
        label_beta: float = 10.0,
        use_target_weight: bool = True,
        mask: Sequence[int] | None = None,
        mask_weight: float = 1.0,
        bin_reduction: str = 'mean',
        scale: str = 'author',
        **base_options: Any,
    ) -> None:
        super().__init__(use_target_weight=use_target_weight, **base_options)
        check_choice(self.loss_name, 'bin_reduction', bin_reduction, BIN_REDUCTIONS)
        check_choice(self.loss_name, 'scale', scale, SCALES)
        self._check_config(beta, label_beta, scale)
        self.beta = beta
        self.label_softmax = label_softmax
        self.label_beta = label_beta
        self.mask_weight = mask_weight
        self.bin_reduction = bin_reduction
        self.scale = scale
        self.mask = () if mask is None else tuple(mask)
        masked = None if mask is None else torch.tensor(self.mask, dtype=torch.long)
        self.register_buffer('masked_keypoints', masked, persistent=False)

    def elementwise(self, pred: Axes, target: Axes) -> Tensor:
        """Return the divergence summed over the axes.

        Args:
            pred: one tensor of logits per axis, (B, K, Wx), (B, K, Wy), ...
            target: one tensor of labels per axis, same shapes.

        Returns:
            Shape (B, K), float32.
        """
        return self.run(
            _kl_over_axes,
            tuple(pred),
            tuple(target),
            beta=self.beta,
            label_softmax=self.label_softmax,
            label_beta=self.label_beta,
            bin_reduction=self.bin_reduction,
        )

    def check_inputs(self, pred: Axes, target: Axes) -> None:
        self._check_axes(pred, target)

    def loss_shape(self, pred: Axes) -> torch.Size:
        return pred[0].shape[:-1]

    def element_weight(self, weight: Tensor | None, pred: Axes, target: Axes) -> Tensor | None:
        if self.masked_keypoints is None:
            return weight
        shape = self.loss_shape(pred)
        self._check_masked_keypoints(shape[1])
        ones = torch.ones(shape[1], device=pred[0].device)
        factor = ones.index_fill(0, self.masked_keypoints, self.mask_weight)
        if weight is None:
            return factor.expand(shape)
        return F.expand_weight(weight, shape, self.loss_name) * factor

    def default_avg_factor(
        self, weight: Tensor | None, mask: Tensor | None, pred: Axes, target: Axes
    ) -> AvgFactor | None:
        if self.scale == 'mmpose':
            return pred[0].shape[1]
        return super().default_avg_factor(weight, mask, pred, target)

    @torch.no_grad()
    def diagnostics(
        self,
        pred: Axes,
        target: Axes,
        weight: Tensor | None = None,
        mask: Tensor | None = None,
        **_: Any,
    ) -> dict[str, Tensor]:
        """Return ``simcc_ratio``, the loss over the loss of a uniform prediction.

        1.0 means collapsed (the network says nothing), values that fall towards 0 mean that it
        learns, however small the loss itself looks. 0-d tensor, no sync.
        """
        if not self.use_target_weight:
            weight = None
        uniform = [torch.zeros_like(logits) for logits in pred]
        weight = self.element_weight(weight, pred, target)
        value, worst = (
            reduce_loss(loss, weight, mask, reduction='sum')
            for loss in (self.elementwise(pred, target), self.elementwise(uniform, target))
        )
        return {'simcc_ratio': value / worst.clamp(min=torch.finfo(worst.dtype).tiny)}

    def _check_config(self, beta: float, label_beta: float, scale: str) -> None:
        for argument, value in (('beta', beta), ('label_beta', label_beta)):
            if not value > 0:
                raise ValueError(
                    message(
                        self.loss_name,
                        argument,
                        'be positive',
                        value,
                        'SimCC uses beta=1; RTMPose uses beta=10, label_beta=10',
                    )
                )
        if scale == 'mmpose' and self.mean_over == 'valid':
            raise ValueError(
                message(
                    self.loss_name,
                    'mean_over',
                    "be 'all' with scale='mmpose'",
                    "'valid'",
                    "Drop one of the two: MMPose's scale divides by the number of keypoints",
                )
            )

    def _check_masked_keypoints(self, num_keypoints: int) -> None:
        # On a GPU an index out of range is an assertion that ends the process.
        outside = [k for k in self.mask if not -num_keypoints <= k < num_keypoints]
        if outside:
            raise ValueError(
                message(
                    self.loss_name,
                    'mask',
                    f'hold indices of the {num_keypoints} keypoints of pred',
                    outside[0],
                    'Count keypoints from 0, in the order of the data set',
                )
            )

    def _check_axes(self, pred: Axes, target: Axes) -> None:
        if not (isinstance(pred, (list, tuple)) and isinstance(target, (list, tuple))):
            raise TypeError(
                message(
                    self.loss_name,
                    'pred and target',
                    'be sequences of one tensor per axis, (x, y)',
                    f'{type(pred).__name__} and {type(target).__name__}',
                    'Pass (pred_x, pred_y) and (target_x, target_y)',
                )
            )
        if not pred or len(pred) != len(target):
            raise ValueError(
                message(
                    self.loss_name,
                    'target',
                    f'have one tensor for each of the {len(pred)} axes of pred, at least one',
                    len(target),
                    'Pass (pred_x, pred_y) and (target_x, target_y)',
                )
            )
        for axis, logits, label in zip('xyzw', pred, target):
            self._check_shape(axis, logits, label)

    def _check_shape(self, axis: str, logits: Tensor, label: Tensor) -> None:
        if logits.dim() != 3 or label.dim() != 3 or logits.shape[0] != label.shape[0]:
            rule, step = 'have the shape (B, K, bins) of pred', 'Check the batch'
        elif logits.shape[1] != label.shape[1]:
            rule = f'have the {logits.shape[1]} keypoints of pred'
            step = "Set the head's out_channels to the number of keypoints of the data set"
        elif logits.shape[2] != label.shape[2]:
            rule = f'have the {logits.shape[2]} bins of pred'
            step = 'Give head and codec the same input_size and simcc_split_ratio'
        else:
            return
        got = f'{tuple(label.shape)} against pred {tuple(logits.shape)}'
        raise ValueError(message(self.loss_name, f'target_{axis}', rule, got, step))


def _kl_over_axes(pred: Axes, target: Axes, **options: Any) -> Tensor:
    """One region for ``torch.compile``: an axis each would pay the cost of a call twice."""
    losses = [F.kl_discret(logits, label, **options) for logits, label in zip(pred, target)]
    return sum(losses[1:], losses[0])
