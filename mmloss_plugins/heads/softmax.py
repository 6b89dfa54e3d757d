"""Linear classifier, and the one with weights of length 1."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from mmloss_plugins import functional as F
from mmloss_plugins.errors import message
from mmloss_plugins.heads import _class_options as options
from mmloss_plugins.heads._class_head import ClassHead
from mmloss_plugins.registry import MODELS


@MODELS.register_module()
class SoftmaxHead(ClassHead):
    """Softmax over the products of the embedding and learned class weights, plus a bias.

    What the other heads of this family are measured against. The embedding is tested as it is.

    Args:
        in_channels (int): D, size of the embedding
        num_classes (int): C
        bias (bool): Learn a bias for each class. Defaults to True
        loss (Config, optional): On logits (B, C) and classes (B,), such as ``LabelSmoothLoss``;
            called with ``weight`` and ``avg_factor`` as the losses of MMDetection. Defaults to
            cross-entropy
        weight_init (str): 'xavier', or 'circle' for embeddings of two dimensions: classes at
            equal angles. Defaults to 'xavier'
        ignore_index (int): Samples of this class have no loss and no gradient, and do not count.
            Defaults to -1
        accuracy (bool): Log ``acc_cls``, the share of samples that are predicted right. Defaults
            to False
        with_scores (bool): Whether ``predict`` gives data samples ``scores`` and ``pred_label``,
            too. Defaults to False
        init_cfg (Config, optional): Of MMEngine's BaseModule

    Raises:
        TypeError: an unknown argument, or one of another type.
        ValueError: a value out of range.

    Example:
        >>> import torch
        >>> head = SoftmaxHead(in_channels=2, num_classes=10)
        >>> losses = head.loss(torch.rand(4, 2), torch.tensor([0, 1, 9, -1]))
        >>> list(losses)
        ['loss_cls']
    """

    def __init__(
        self, in_channels: int, num_classes: int, *, bias: bool = True, **base_options: Any
    ) -> None:
        super().__init__(in_channels, num_classes, **base_options)
        options.check_switches(self.what, bias=bias)
        if self.weight.dim() == 3:
            rule, step = 'be 1', 'Take ModifiedSoftmaxHead, NormFaceHead or ArcFaceHead'
            got = base_options['num_subcenters']
            raise ValueError(message(self.what, 'num_subcenters', rule, got, step))
        self.bias = nn.Parameter(torch.zeros(num_classes)) if bias else None

    def logits(self, x: Tensor) -> Tensor:
        """Return x . w + b, (B, C)."""
        return linear(x.to(self.weight.dtype), self.weight, self.bias)

    def margin_logits(self, x: Tensor, labels: Tensor) -> Tensor:
        """Return the logits of training, those of ignored samples without their features."""
        # 0 * NaN: an ignored sample must not reach the weights whatever its features are.
        ignored = (labels == self.ignore_index).unsqueeze(1)
        return self.logits(x.masked_fill(ignored, 0))


@MODELS.register_module()
class ModifiedSoftmaxHead(ClassHead):
    """Softmax over the lengths of the embedding along each class; see
    :func:`functional.modified_softmax_logits`.

    Class weights count by their direction alone, so that borders between classes are bisectors.
    The length of the embedding still counts, and is tested as it is.

    Args:
        in_channels (int): D, size of the embedding
        num_classes (int): C
        num_subcenters (int): Centres of each class, of which the nearest counts. Defaults to 1
        loss (Config, optional): As in :class:`SoftmaxHead`
        weight_init (str): As in :class:`SoftmaxHead`
        ignore_index (int): As in :class:`SoftmaxHead`
        accuracy (bool): As in :class:`SoftmaxHead`
        with_scores (bool): As in :class:`SoftmaxHead`
        init_cfg (Config, optional): Of MMEngine's BaseModule

    Raises:
        TypeError: an unknown argument, or one of another type.
        ValueError: a value out of range.
    """

    def logits(self, x: Tensor) -> Tensor:
        """Return |x| cos(theta), (B, C)."""
        return F.modified_softmax_logits(x, self.weight)
