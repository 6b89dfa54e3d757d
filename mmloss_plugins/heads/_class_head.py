"""What the heads that own class weights have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmloss_plugins.errors import message, refuse_unknown
from mmloss_plugins.functional._margin_checks import check_classifier
from mmloss_plugins.heads import _class_options as options
from mmloss_plugins.heads._class_samples import labels_of, last_features, with_predictions
from mmloss_plugins.losses.base import average_over_ranks
from mmloss_plugins.registry import MODELS

CROSS_ENTROPY = dict(type='mmloss_plugins.LabelSmoothLoss', smoothing=0.0)


class ClassHead(BaseModule):
    """Class weights, a loss on labels in the forms of MMDetection and of tensors, predictions.

    A subclass says what its logits are.

    Args:
        in_channels (int): D, size of the embedding
        num_classes (int): C
        num_subcenters (int): K, centres of each class, of which the nearest counts
        loss (Config, optional): On logits (B, C) and classes (B,), called with ``weight`` and
            ``avg_factor`` as the losses of MMDetection. None is cross-entropy
        weight_init (str): 'xavier', or 'circle' for embeddings of two dimensions: classes at
            equal angles
        ignore_index (int): Samples of this class have no loss and no gradient and do not count
        accuracy (bool): Log ``acc_cls``, the share of samples that are predicted right without a
            margin; costs the logits once more
        with_scores (bool): Whether data samples get ``scores`` and ``pred_label``, too; embeddings
            are tested on classes that have no weights
        init_cfg (Config, optional): Of MMEngine's BaseModule
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        num_subcenters: int = 1,
        loss: Mapping[str, Any] | nn.Module | None = None,
        weight_init: str = 'xavier',
        ignore_index: int = -1,
        accuracy: bool = False,
        with_scores: bool = False,
        init_cfg: Any = None,
        **unknown: Any,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.what = type(self).__name__
        refuse_unknown(self.what, unknown, options.arguments_of(type(self), ClassHead))
        step = 'Take the size of the embedding and the classes of the data set'
        options.check_counts(
            self.what,
            step,
            in_channels=in_channels,
            num_classes=num_classes,
            num_subcenters=num_subcenters,
        )
        options.check_switches(self.what, accuracy=accuracy, with_scores=with_scores)
        weight = options.first_weight(
            self.what, num_classes, num_subcenters, in_channels, weight_init
        )
        self.weight = nn.Parameter(weight)
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.accuracy = accuracy
        self.with_scores = with_scores
        loss = self.default_loss() if loss is None else loss
        if loss is not None:
            options.check_loss(self.what, loss)
            loss = loss if isinstance(loss, nn.Module) else MODELS.build(dict(loss))
        self.loss_module = loss

    def default_loss(self) -> Mapping[str, Any] | None:
        """Return what ``loss=None`` stands for; None: :meth:`class_loss` needs no logits."""
        return CROSS_ENTROPY

    def forward(self, feats: Any) -> Tensor:
        """Return the embedding as it is to be compared, (B, D): of length 1 for cosines.

        Args:
            feats: Embedding (B, D), or a sequence of which the last is read
        """
        return self.checked(feats)

    def checked(self, feats: Any) -> Tensor:
        """Return the embedding (B, D), after a check of its shape."""
        x = last_features(feats)
        check_classifier(self.what, x, self.weight)
        return x

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits (B, C) of embeddings (B, D), without a margin."""
        step = 'Return a call of the function in mmloss_plugins.functional'
        raise TypeError(
            message(self.what, 'logits', 'be implemented by the subclass', 'none', step)
        )

    def margin_logits(self, x: Tensor, labels: Tensor) -> Tensor:
        """Return the logits (B, C) of training."""
        return self.logits(x)

    def loss(self, feats: Any, data_samples: Any) -> dict[str, Tensor]:
        """Return the loss of a batch.

        Args:
            feats: Embedding (B, D), or a sequence of which the last is read
            data_samples: Classes (B,), 0...C-1 or ``ignore_index``; or a dict with them at
                'gt_label'; or data samples with ``gt_label``, such as :obj:`ReIDDataSample`

        Returns:
            dict: ``loss_cls``, averaged over the samples of all ranks that are not ignored, and
            ``acc_cls`` if asked for

        Raises:
            TypeError: features or labels of another type.
            ValueError: wrong shapes, or samples without labels.
        """
        x = last_features(feats)
        check_classifier(self.what, x, self.weight)
        labels = labels_of(self.what, data_samples, x.device)
        check_classifier(self.what, x, self.weight, labels, self.ignore_index)
        valid = labels != self.ignore_index
        losses = dict(loss_cls=self.class_loss(x, labels, valid))
        if self.accuracy:
            losses['acc_cls'] = self.share_of_hits(x, labels, valid)
        return losses

    def class_loss(self, x: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
        """Return the mean loss of the ``valid`` samples.

        Args:
            x: (B, D).
            labels: (B,).
            valid: boolean, (B,).
        """
        logits = self.margin_logits(x, labels)
        # Losses of hosts index with the label before they look at the weight.
        target = torch.where(valid, labels, 0).long()
        weight = valid.to(torch.float32)
        return self.loss_module(logits, target, weight, avg_factor=average_over_ranks(valid.sum()))

    @torch.no_grad()
    def share_of_hits(self, x: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
        """Return the share of the ``valid`` samples that are predicted right, a 0-d tensor."""
        hits = (self.nearest(x) == labels) & valid
        return hits.sum() / valid.sum().clamp(min=1)

    def nearest(self, x: Tensor) -> Tensor:
        """Return the class with the highest logit, (B,)."""
        return self.logits(x).argmax(1)

    def predict(self, feats: Any, data_samples: Any = None) -> Any:
        """Return logits without a margin, or data samples with the embedding.

        Args:
            feats: Embedding (B, D), or a sequence of which the last is read
            data_samples: As in :meth:`loss`. Defaults to None

        Returns:
            Without ``data_samples`` the logits (B, C). With them the samples, or a dict for each
            label, with ``pred_feature``, (D,), as in :meth:`forward`; and ``with_scores`` also
            ``scores``, (C,), and ``pred_label``, whose ``label`` is the best class.
        """
        x = self(feats)
        if data_samples is None:
            return self.logits(x)
        scores = self.logits(x) if self.with_scores else None
        return with_predictions(self.what, data_samples, x, scores)
