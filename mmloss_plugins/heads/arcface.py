"""Classifiers on the hypersphere: NormFace, and ArcFace with its relatives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mmloss_plugins import functional as F
from mmloss_plugins.functional._angles import Margin, unit
from mmloss_plugins.functional._ranks import is_sharded
from mmloss_plugins.functional.class_sampling import IGNORED, check_sample_rate
from mmloss_plugins.functional.closed_form import compute_dtype
from mmloss_plugins.functional.margin_cross_entropy import check_chunk_size
from mmloss_plugins.heads import _class_options as options
from mmloss_plugins.heads import _class_shards as shards
from mmloss_plugins.heads._class_head import ClassHead
from mmloss_plugins.losses.base import average_over_ranks
from mmloss_plugins.losses.schedules import Schedule, value_at
from mmloss_plugins.registry import MODELS


@MODELS.register_module()
class NormFaceHead(ClassHead):
    """Cross-entropy of scaled cosines between embedding and classes; see
    :func:`functional.margin_cross_entropy`.

    Embeddings are handed over with length 1, so that Euclidean distances rank as cosines do.

    With ``sample_rate`` below 1 a step of training compares with the classes of its batch and
    random others alone (Partial FC, :func:`functional.sample_classes`), in ``train()`` mode; the
    loss is lower than over all classes, prediction and accuracy are over all. Each rank draws for
    its own share of the batch. Classes that are not drawn have a gradient of 0, with which
    momentum and weight decay of an optimizer still move them. Class weights count by their
    direction alone and need no decay::

        optim_wrapper=dict(paramwise_cfg=dict(custom_keys={'head.weight': dict(decay_mult=0.0)}))

    With ``shard_classes`` each of W processes owns the weights of C / W classes, as a DTensor: it
    keeps their gradient and the state of their optimizer, and computes their logits for the
    batches of all (:func:`functional.sharded_margin_cross_entropy`). Loss and gradients are those
    of one process. Inside of :class:`EmbeddingClassifier`, which keeps MMEngine's
    MMDistributedDataParallel off the weights, and with a hook for checkpoints and clipping::

        model = dict(head=dict(shard_classes=True))
        custom_hooks = [dict(type='mmloss_plugins.ShardedWeightsHook')]

    Processes have to build the head from the same seed, as MMEngine does, to start as one would.
    ``accuracy`` is computed over the ranks, too. Logits and scores of ``predict`` gather the
    weights of all classes for the call, in which all ranks have to take part; embeddings do not.

    Args:
        in_channels (int): D, size of the embedding
        num_classes (int): C
        scale (float | str): Factor s of the cosines, or 'auto' for that of AdaCos,
            :func:`functional.adacos_scale`, for which there must be 3 classes or more. Defaults
            to 16
        num_subcenters (int): Centres of each class, of which the nearest counts. Defaults to 1
        chunk_size (int, optional): Compute this many classes at a time, so that memory does not
            grow with the number of classes beyond the weights and their gradient. None keeps all
            logits. Defaults to None
        sample_rate (float): Share of the classes that a step of training compares with, within
            (0, 1]. Defaults to 1: all
        shard_classes (bool): Spread the class weights over the processes of a run; without
            ``loss`` and ``sample_rate``. In a single process they stay as they are. Defaults to
            False
        loss (Config, optional): On logits (B, C) and classes (B,), such as ``LabelSmoothLoss``;
            called with ``weight`` and ``avg_factor`` as the losses of MMDetection. It needs all
            logits, so there are no ``chunk_size`` and ``sample_rate``. Defaults to cross-entropy
        weight_init (str): As in :class:`SoftmaxHead`
        ignore_index (int): As in :class:`SoftmaxHead`
        accuracy (bool): As in :class:`SoftmaxHead`
        with_scores (bool): As in :class:`SoftmaxHead`
        init_cfg (Config, optional): Of MMEngine's BaseModule

    Raises:
        TypeError: an unknown argument, or one of another type.
        ValueError: a value out of range, or ``chunk_size`` or ``sample_rate`` beside ``loss``,
            ``loss`` or ``sample_rate`` beside ``shard_classes``, or fewer classes than processes.
        RuntimeError: ``shard_classes`` with PyTorch before 2.5.

    Reference:
        Wang et al., NormFace, https://arxiv.org/abs/1704.06369; An et al., Partial FC,
        https://arxiv.org/abs/2203.15565.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        scale: float | str = 16.0,
        chunk_size: int | None = None,
        sample_rate: float = 1.0,
        shard_classes: bool = False,
        **base_options: Any,
    ) -> None:
        super().__init__(in_channels, num_classes, **base_options)
        check_chunk_size(self.what, chunk_size)
        check_sample_rate(self.what, sample_rate)
        if self.loss_module is not None:
            options.check_all_logits(self.what, chunk_size, sample_rate)
        options.check_switches(self.what, shard_classes=shard_classes)
        if shard_classes:
            options.check_shards(self.what, self.loss_module, sample_rate)
            self.weight = shards.shard_weight(self.what, self.weight)
        if is_sharded(self.weight):
            self._register_load_state_dict_pre_hook(shards.take_rows, with_module=True)
        self.scale = options.scale_of(self.what, scale, num_classes)
        self.chunk_size = chunk_size
        self.sample_rate = sample_rate

    def default_loss(self) -> None:
        """Return None: cross-entropy needs no logits."""
        return

    def init_weights(self) -> None:
        """Do as MMEngine's BaseModule; refuse a run that would not save sharded weights."""
        super().init_weights()
        if is_sharded(self.weight):
            shards.check_run(self.what)

    def forward(self, feats: Any) -> Tensor:
        """Return the embedding with length 1, (B, D).

        Args:
            feats: Embedding (B, D), or a sequence of which the last is read
        """
        x = self.checked(feats)
        return unit(x.to(compute_dtype(x)))[0]

    def logits(self, x: Tensor) -> Tensor:
        """Return s cos(theta), (B, C)."""
        return F.cosine_logits(x, shards.whole(self.weight), scale=self.scale)

    def margins(self) -> tuple[float, Margin, Margin]:
        """Return m1, m2, m3 of this iteration; see :func:`functional.combined_margin_logits`."""
        return (1.0, 0.0, 0.0)

    def rule_beyond_pi(self) -> str:
        """Return what stands where theta + m is beyond pi."""
        return 'off'

    def margin_logits(self, x: Tensor, labels: Tensor) -> Tensor:
        """Return the logits of training, (B, C)."""
        return F.combined_margin_logits(x, self.weight, labels, **self._options())

    def class_loss(self, x: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
        """Return the mean loss of the ``valid`` samples; without logits where it can."""
        if self.loss_module is not None:
            return super().class_loss(x, labels, valid)
        weight, choices = self.weight, self._options()
        if self.training and self.sample_rate < 1:
            weight, labels, choices = self._sampled(labels)
        choices['chunk_size'] = self.chunk_size
        losses = shards.sharded_losses if is_sharded(weight) else F.margin_cross_entropy
        values = losses(x, weight, labels, **choices)
        return values.sum() / average_over_ranks(valid.sum())

    def nearest(self, x: Tensor) -> Tensor:
        """Return the class with the highest logit, (B,); in chunks as the loss."""
        return shards.nearest_class(x, self.weight, self.chunk_size)

    def _sampled(self, labels: Tensor) -> tuple[Tensor, Tensor, dict[str, Any]]:
        """Return weights, labels and options of the classes that this step compares with."""
        share = dict(sample_rate=self.sample_rate, ignore_index=self.ignore_index)
        classes, labels = F.sample_classes(labels, self.num_classes, **share)
        m1, *others = self.margins()
        m2, m3 = (m[classes] if isinstance(m, Tensor) else m for m in others)
        choices = {**self._options(), 'margins': (m1, m2, m3), 'ignore_index': IGNORED}
        return self.weight.index_select(0, classes), labels, choices

    def _options(self) -> dict[str, Any]:
        return dict(
            scale=self.scale,
            margins=self.margins(),
            rule=self.rule_beyond_pi(),
            ignore_index=self.ignore_index,
        )


@MODELS.register_module()
class ArcFaceHead(NormFaceHead):
    """Cross-entropy of scaled cosines with a margin at the own class; see
    :func:`functional.margin_cross_entropy`.

    The margin is ArcFace's by default, cos(theta + m). ``margin=0, cosine_margin=0.35`` is
    CosFace; ``angle_factor``, ``margin`` and ``cosine_margin`` are m1, m2, m3 of the combined
    margin. There is none in ``predict``.

    A schedule lets the margin grow, so that classes part before they are drawn together::

        margin=dict(type='linear', start=0.0, stop=0.5, begin=0, end=10)
        margin=dict(type='step', values=[0.0, 0.5], milestones=[1000], by_epoch=False)

    as in :class:`MultiLoss`; it counts the epochs or iterations of MMEngine's runner, also after
    a resume, and ``loss`` logs its value as ``margin``.

    It also takes the place of ``LinearReIDHead`` in MMDetection's ``BaseReID``, which needs
    mmpretrain, behind a neck that gives the embedding; :class:`EmbeddingClassifier` needs neither.

    Args:
        in_channels (int): D, size of the embedding
        num_classes (int): C
        scale (float | str): Factor s of the cosines, or 'auto'; see :class:`NormFaceHead`.
            Defaults to 64
        margin (float | dict | Sequence[float]): m2, in radians within [0, pi); a schedule; or one
            number for each class. Defaults to 0.5
        cosine_margin (float): m3, at least 0. Defaults to 0
        angle_factor (float): m1, above 0. Defaults to 1
        rule (str): What stands where theta + m is beyond pi: 'monotonic', 'easy' or 'off'; see
            :func:`functional.combined_margin_logits`. Defaults to 'monotonic'
        num_subcenters (int): Centres of each class, of which the nearest counts. Defaults to 1
        chunk_size (int, optional): As in :class:`NormFaceHead`
        sample_rate (float): As in :class:`NormFaceHead`
        shard_classes (bool): As in :class:`NormFaceHead`
        loss (Config, optional): As in :class:`NormFaceHead`
        weight_init (str): As in :class:`SoftmaxHead`
        ignore_index (int): As in :class:`SoftmaxHead`
        accuracy (bool): As in :class:`SoftmaxHead`
        with_scores (bool): As in :class:`SoftmaxHead`
        init_cfg (Config, optional): Of MMEngine's BaseModule

    Raises:
        TypeError: an unknown argument, or one of another type.
        ValueError: a value out of range, or ``chunk_size`` or ``sample_rate`` beside ``loss``,
            ``loss`` or ``sample_rate`` beside ``shard_classes``, or fewer classes than processes.
        RuntimeError: ``shard_classes`` with PyTorch before 2.5.

    Differs from:
        mmpretrain's ``ArcFaceClsHead``: finite at the centre of a class, half features, fewer
        tensors of the size of the logits; ``margin`` for ``margins``, ``rule='easy'`` for
        ``easy_margin=True``.

    Reference:
        Deng et al., ArcFace, https://arxiv.org/abs/1801.07698.

    Example:
        >>> import torch
        >>> head = ArcFaceHead(in_channels=2, num_classes=4, scale=8.0, weight_init='circle')
        >>> # log(1 + 2 exp(-8 cos 0.5) + exp(-8 - 8 cos 0.5))
        >>> head.loss(torch.tensor([[3.0, 0.0]]), torch.tensor([0]))
        {'loss_cls': tensor(0.0018, grad_fn=<DivBackward0>)}
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        scale: float | str = 64.0,
        margin: float | Mapping[str, Any] | Sequence[float] = 0.5,
        cosine_margin: float = 0.0,
        angle_factor: float = 1.0,
        rule: str = 'monotonic',
        **base_options: Any,
    ) -> None:
        super().__init__(in_channels, num_classes, scale=scale, **base_options)
        found = options.margin_of(self.what, margin, num_classes, cosine_margin, angle_factor, rule)
        per_class = found if isinstance(found, Tensor) else None
        self.register_buffer('class_margins', per_class, persistent=False)
        self.margin: Schedule | None = None if isinstance(found, Tensor) else found
        self.cosine_margin = cosine_margin
        self.angle_factor = angle_factor
        self.rule = rule

    def margins(self) -> tuple[float, Margin, Margin]:
        """Return m1, m2, m3 of this iteration."""
        margin = self.class_margins if self.margin is None else value_at(self.margin)
        return (self.angle_factor, margin, self.cosine_margin)

    def rule_beyond_pi(self) -> str:
        """Return what stands where theta + m is beyond pi."""
        return self.rule

    def loss(self, feats: Any, data_samples: Any) -> dict[str, Tensor]:
        """Return the loss of a batch; with a schedule also the ``margin`` for the log.

        Args:
            feats: As in :class:`SoftmaxHead`
            data_samples: As in :class:`SoftmaxHead`

        Returns:
            dict: ``loss_cls``, ``acc_cls`` if asked for, ``margin`` if it follows a schedule
        """
        losses = super().loss(feats, data_samples)
        if self.margin is not None and not isinstance(self.margin, float):
            losses['margin'] = torch.tensor(value_at(self.margin))
        return losses
