"""What the contract suite has to know about a registered loss; ``cases/`` holds one for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tests.contract.trees import Tree

Shape = tuple[int, ...]
Index = tuple[int, ...]


@dataclass(frozen=True)
class Variant:
    """One configuration of a loss.

    Attributes:
        options: arguments of the constructor.
        mean_factor: given the shape of the unreduced loss, the documented factor between
            ``reduction='mean'`` and MMDetection's mean.
        mean_divisor: given target and weight, what ``reduction='mean'`` divides by where that is
            not the number of elements, such as the number of positives.
        can_mean_over_valid: whether ``mean_over='valid'`` is allowed with ``options``.
        coupled: why one element of the loss depends on others (mining, a ratio over the batch);
            the laws on single elements leave such a variant out.
        surrogate: why the gradient is, by the paper, not that of the value; finite differences
            leave such a variant out, and its own tests compare the gradient with an oracle.
        per_rank: why the loss of a batch is not that of its parts (mining or a ratio over the
            batch); the law on several processes leaves such a variant out.
        state: why the loss has something in the checkpoint. It is built for evaluation, so that
            calls do not change what the next one gives.
        make: inputs of another kind than the case's, such as class labels instead of maps.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    mean_factor: Callable[[Shape], float] = lambda shape: 1.0
    mean_divisor: Callable[[Tree, Tensor], Tensor] | None = None
    can_mean_over_valid: bool = True
    coupled: str = ''
    per_rank: str = ''
    surrogate: str = ''
    state: str = ''
    make: Callable[[int, int, int, torch.dtype], tuple[Tree, Tree]] | None = None


@dataclass(frozen=True)
class Change:
    """A value of an argument that must give another loss than its default, given ``options``.

    ``make`` gives inputs on which the argument acts, where those of the case do not.
    """

    value: Any
    options: Mapping[str, Any] = field(default_factory=dict)
    make: Callable[[int, int, int, torch.dtype], tuple[Tree, Tree]] | None = None


def select(leaf: Tensor, index: Index) -> Tensor:
    """View what belongs to one element of the loss: ``leaf`` has the dimensions of the loss first.

    A case whose inputs are laid out otherwise passes its own.
    """
    return leaf[index]


@dataclass(frozen=True)
class Case:
    """What the laws need to know about a loss.

    Attributes:
        make: ``make(batch, units, seed, dtype)`` returns (pred, target), trees of tensors that are
            not contiguous, with sizes that differ (H != W). ``units`` is the number of keypoints,
            channels or classes. The dtype is that of floating-point tensors.
        shape: ``shape(batch, units)`` of the unreduced loss.
        variants: configurations on which every law is run; the first is the plain one.
        changes: for each argument of the constructor a value that changes the loss.
        no_effect: for each argument that never changes the loss, the reason.
        bad_options: arguments that the constructor must refuse, by a name for the test.
        bad_targets: functions that turn a target into one of a wrong shape.
        limit_targets: functions that turn a target into one at the border of its range.
        zeros: functions that return (options, pred, target) with loss zero and gradient zero.
        select: views what belongs to one element of the loss.
    """

    make: Callable[[int, int, int, torch.dtype], tuple[Tree, Tree]]
    shape: Callable[[int, int], Shape]
    variants: Mapping[str, Variant]
    changes: Mapping[str, Change]
    no_effect: Mapping[str, str]
    bad_options: Mapping[str, Mapping[str, Any]]
    bad_targets: Mapping[str, Callable[[Tree], Tree]]
    limit_targets: Mapping[str, Callable[[Tree], Tree]]
    zeros: Mapping[str, Callable[[], tuple[Mapping[str, Any], Tree, Tree]]]
    select: Callable[[Tensor, Index], Tensor] = select


# Arguments of BaseLoss: the same for every loss.
BASE_CHANGES = {
    'reduction': Change('sum'),
    'mean_over': Change('valid'),
    'loss_weight': Change(2.0),
    'use_target_weight': Change(False),
}
BASE_NO_EFFECT = {
    'loss_name': 'a name in messages; test_arguments.py looks for it there',
    'compile': 'the same value, faster; test_compile.py compares the two',
}
BASE_BAD_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    'unknown argument': {'loss_wieght': 2.0},
    'reduction': {'reduction': 'average'},
    'mean_over': {'mean_over': 'visible'},
}
