"""Cross-entropy of cosines with a margin, for classes whose weights are spread over ranks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from mmloss_plugins.errors import message
from mmloss_plugins.functional._margin_checks import check_classifier, check_labels, check_margins
from mmloss_plugins.functional._margin_logits import margins_of
from mmloss_plugins.functional._ranks import Batches, gather_samples, numbers_of_ranks
from mmloss_plugins.functional.closed_form import compute_dtype
from mmloss_plugins.functional.margin_cross_entropy import (
    Margins,
    Ranks,
    check_chunk_size,
    classify,
)
from mmloss_plugins.functional.margins import ARCFACE

WHAT = 'sharded_margin_cross_entropy'


def sharded_margin_cross_entropy(
    features: Tensor,
    class_shard: Tensor,
    target: Tensor,
    *,
    num_classes: int,
    first_class: int = 0,
    group: Any = None,
    scale: float = 64.0,
    margins: Margins = ARCFACE,
    rule: str = 'monotonic',
    ignore_index: int = -1,
    chunk_size: int | None = None,
) -> Tensor:
    r"""Penalise each sample as :func:`margin_cross_entropy`; each rank has some of the classes.

    .. math::
        L_b = - \log \frac{e^{s \, \phi_b}}{e^{s \, \phi_b} +
            \sum_r \sum_{j \in \mathcal{C}_r, \, j \neq y_b} e^{s \cos \theta_{bj}}}

    Every rank sees the features of all ranks and computes the logits of its own classes. Beside
    them ranks exchange the largest logit, the sum of exponentials and the own cosine of each
    sample, and in backward its gradient: nothing that grows with the number of classes.

    All ranks of the group have to call it, and backward, together. Their batches may differ in
    size and be empty, for which they exchange the sizes, a host-device sync.

    Gradients are made for DistributedDataParallel: ``features`` have the gradient of the sum over
    ranks of what each makes of its losses, and ``class_shard`` that of the average, which
    DistributedDataParallel takes of every other parameter but must not of these.

    Args:
        features: x of this rank, shape (B, D), any floating-point type.
        class_shard: w of the classes of this rank, shape (n, D), or (n, K, D) with K sub-centres;
            one class or more.
        target: y of this rank, shape (B,), classes 0...C-1 or ``ignore_index``.
        num_classes: C, over all ranks.
        first_class: the class of the first row of ``class_shard``. Each class is on one rank.
        group: process group; None: all ranks. Where there is none, all classes are here.
        scale: s.
        margins: m1, m2, m3; see :func:`combined_margin_logits`. A tensor has all C classes.
        rule: 'monotonic', 'easy' or 'off'; see :func:`combined_margin_logits`.
        ignore_index: samples of this class have loss and gradient 0.
        chunk_size: compute this many classes of a rank at a time; see
            :func:`margin_cross_entropy`.

    Returns:
        Losses of the samples of this rank, shape (B,), float32 (float64 for float64 ``features``).

    Raises:
        TypeError: an input is no tensor, or ``target`` holds no integers.
        ValueError: wrong shapes, a class that is on no rank or on two, a margin, scale or chunk
            out of range, or an unknown ``rule``. With :func:`value_checks` also a class that does
            not exist.

    Differs from:
        ``torch.distributed.tensor.parallel.loss_parallel``: no logits of all samples and classes,
        not even spread over ranks, if there is a ``chunk_size``, and batches of any size.

    Reference:
        Deng et al., ArcFace, https://arxiv.org/abs/1801.07698, section 2.2, where this is called
        parallel acceleration; An et al., Partial FC, https://arxiv.org/abs/2203.15565.

    Example:
        >>> import torch
        >>> features, target = torch.tensor([[1.0, 1.0]]), torch.tensor([0])
        >>> # A single process has all classes.
        >>> sharded_margin_cross_entropy(features, torch.eye(2), target, num_classes=2, scale=4.0)
        tensor([1.8697])
    """
    check_classifier(WHAT, features, class_shard, weights='class_shard')
    _check_counts(num_classes, first_class, len(class_shard))
    check_labels(WHAT, target, (len(features),), num_classes, ignore_index)
    check_margins(WHAT, num_classes, scale, margins, rule)
    check_chunk_size(WHAT, chunk_size)
    batches = None
    if dist.is_available() and dist.is_initialized():
        batches = _batches(features, class_shard, num_classes, first_class, group)
        features = gather_samples(features, batches, group)
        target = gather_samples(target, batches, group)
    ignored = target == ignore_index
    index = torch.where(ignored, 0, target.long())
    margins = margins_of(margins, index, compute_dtype(features))
    index = index - first_class
    ranks = None
    if batches is not None:
        elsewhere = (index < 0) | (index >= len(class_shard))
        ranks = Ranks(group, len(batches.sizes), elsewhere)
    losses = classify(
        features, class_shard, index, ignored, scale, margins, rule, chunk_size, ranks
    )
    return losses if batches is None else batches.own(losses)


def _batches(
    features: Tensor, class_shard: Tensor, num_classes: int, first_class: int, group: Any
) -> Batches:
    """Return the batch sizes of all ranks, after a check that each class is on one of them."""
    numbers = [len(features), first_class, len(class_shard)]
    every = numbers_of_ranks(numbers, features.device, group)
    after = 0
    for first, rows in sorted((first, rows) for _, first, rows in every):
        if first != after:
            break
        after += rows
    if after != num_classes or sum(rows for *_, rows in every) != num_classes:
        rule = f'hold each of {num_classes} classes on one rank'
        got = ', '.join(f'{first}...{first + rows - 1}' for _, first, rows in every)
        step = 'Pass the rows of this rank, and the class of the first as first_class'
        raise ValueError(message(WHAT, 'class_shard', rule, got, step))
    return Batches([samples for samples, *_ in every], dist.get_rank(group))


def _check_counts(num_classes: Any, first_class: Any, rows: int) -> None:
    if type(num_classes) is not int or num_classes < rows:
        step = 'Pass the number of classes of all ranks'
        rule = f'be an integer of at least {rows}, the rows of class_shard'
        raise ValueError(message(WHAT, 'num_classes', rule, repr(num_classes), step))
    if type(first_class) is not int or not 0 <= first_class <= num_classes - rows:
        step = 'Pass the class of the first row of class_shard'
        rule = f'be within 0...{num_classes - rows}'
        raise ValueError(message(WHAT, 'first_class', rule, repr(first_class), step))
