"""Cross-entropy with smoothed labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmloss_plugins import functional as F
from mmloss_plugins.errors import check_choice, message
from mmloss_plugins.functional.label_smoothing import SPREADS, check_logits, check_smoothing
from mmloss_plugins.functional.reduction import AvgFactor
from mmloss_plugins.losses.base import BaseLoss
from mmloss_plugins.registry import MODELS


@MODELS.register_module()
class LabelSmoothLoss(BaseLoss):
    """Cross-entropy with smoothed labels; see :func:`functional.label_smoothing_ce`.

    For heads that hand over logits (N, C), or (N, C, ...), and integer classes (N, ...), such as
    the losses of classification heads. With ``spread='all'`` the elements are those of
    ``torch.nn.CrossEntropyLoss(label_smoothing=smoothing)``; its 'mean' divides by the number of
    elements that are not ignored (``mean_over='valid'``), and with class weights by the sum of
    those of the targets.

    Args:
        smoothing: epsilon, the probability that the label leaves to other classes, in [0, 1).
        spread: 'others' (default): over the C - 1 wrong classes; 'all': over all C, as in PyTorch
            and in mmpretrain's mode 'original'.
        class_weight: C factors on the terms of the classes.
        ignore_index: elements of this class are left out; with ``mean_over='valid'`` they do not
            count either.
        base_options: ``reduction``, ``mean_over``, ``loss_weight``, ``use_target_weight``,
            ``loss_name``, ``compile``; see :class:`BaseLoss`.
    """

    class_weight: Tensor | None

    def __init__(
        self,
        smoothing: float = 0.1,
        spread: str = 'others',
        class_weight: Sequence[float] | None = None,
        ignore_index: int = -100,
        **base_options: Any,
    ) -> None:
        super().__init__(**base_options)
        check_smoothing(self.loss_name, smoothing)
        check_choice(self.loss_name, 'spread', spread, SPREADS)
        self.smoothing = smoothing
        self.spread = spread
        self.ignore_index = ignore_index
        self.register_buffer('class_weight', self._factors(class_weight), persistent=False)

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the cross-entropy of each element.

        Args:
            pred: logits, (N, C) or (N, C, ...).
            target: classes, (N,) or (N, ...).

        Returns:
            Shape of ``target``, float32.
        """
        return self.run(
            _label_smoothing_ce,
            pred,
            target,
            self.class_weight,
            smoothing=self.smoothing,
            spread=self.spread,
            ignore_index=self.ignore_index,
        )

    def loss_shape(self, pred: Tensor) -> torch.Size:
        return torch.Size((pred.shape[0], *pred.shape[2:]))

    def check_inputs(self, pred: Any, target: Any) -> None:
        check_logits(self.loss_name, pred, target, self.ignore_index)
        if self.class_weight is not None and len(self.class_weight) != pred.shape[1]:
            rule = f'hold one factor for each of the {pred.shape[1]} classes of pred'
            step = 'Count the classes of the head'
            got = len(self.class_weight)
            raise ValueError(message(self.loss_name, 'class_weight', rule, got, step))

    def default_avg_factor(
        self, weight: Tensor | None, mask: Tensor | None, pred: Tensor, target: Tensor
    ) -> AvgFactor | None:
        if self.mean_over == 'valid':
            known = target != self.ignore_index
            if mask is not None:
                known = known & F.expand_weight(mask, known.shape, self.loss_name, 'mask').bool()
            mask = known
        return super().default_avg_factor(weight, mask, pred, target)

    def extra_repr(self) -> str:
        return f'{super().extra_repr()}, smoothing={self.smoothing}, spread={self.spread!r}'

    def _factors(self, class_weight: Sequence[float] | None) -> Tensor | None:
        if class_weight is None:
            return None
        if not class_weight or not all(0 <= factor < float('inf') for factor in class_weight):
            rule, step = 'hold C finite factors that are not negative', 'Give one per class'
            raise ValueError(message(self.loss_name, 'class_weight', rule, class_weight, step))
        return torch.tensor(list(class_weight), dtype=torch.float32)


def _label_smoothing_ce(
    pred: Tensor, target: Tensor, class_weight: Tensor | None, **options: Any
) -> Tensor:
    """Take the tensor by position: compiled code is told apart by the values of its keywords."""
    return F.label_smoothing_ce(pred, target, class_weight=class_weight, **options)
