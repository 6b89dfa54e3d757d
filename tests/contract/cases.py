"""The case table: what the contract suite has to know about each registered loss.

To add a loss, write a ``make_*`` function and a :class:`Case` below; the README of tests explains
the fields. Every law then runs on every variant of the case.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tests.contract.trees import Tree, map_floats, scatter, scattered

Shape = tuple[int, ...]
Index = tuple[int, ...]


@dataclass(frozen=True)
class Variant:
    """One configuration of a loss.

    Attributes:
        options: arguments of the constructor.
        mean_factor: given the shape of the unreduced loss, the documented factor between
            ``reduction='mean'`` and MMDetection's mean.
        can_mean_over_valid: whether ``mean_over='valid'`` is allowed with ``options``.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    mean_factor: Callable[[Shape], float] = lambda shape: 1.0
    can_mean_over_valid: bool = True


@dataclass(frozen=True)
class Change:
    """A value of an argument that must give another loss than its default, given ``options``."""

    value: Any
    options: Mapping[str, Any] = field(default_factory=dict)


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


def make_simcc(batch: int, units: int, seed: int, dtype: torch.dtype) -> tuple[Tree, Tree]:
    """Logits and normalised labels per axis, (B, K, 6) and (B, K, 9)."""
    generator = torch.Generator().manual_seed(seed)
    pred = tuple(2 * scattered((batch, units, bins), generator) for bins in (6, 9))
    label = tuple(
        scatter(scattered((batch, units, bins), generator).softmax(-1)) for bins in (6, 9)
    )
    return map_floats(lambda x: x.to(dtype), (pred, label))


def one_hot(label: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(label.argmax(-1), label.shape[-1]).to(label.dtype)


def simcc_perfect() -> tuple[Mapping[str, Any], Tree, Tree]:
    _, label = make_simcc(5, 4, 0, torch.float64)
    # softmax(2 x) = t for x = log(t) / 2, and a constant drops out of a softmax.
    return {'beta': 2.0}, tuple(axis.log() / 2 + 5 for axis in label), label


def simcc_without_mass() -> tuple[Mapping[str, Any], Tree, Tree]:
    pred, label = make_simcc(5, 4, 0, torch.float64)
    return {}, pred, map_floats(torch.zeros_like, label)


CASES: dict[str, Case] = {
    'KLDiscretLoss': Case(
        make=make_simcc,
        shape=lambda batch, units: (batch, units),
        variants={
            'author': Variant(),
            'true_kl': Variant({'bin_reduction': 'sum', 'beta': 2.0}),
            'rtmpose': Variant({'beta': 10.0, 'label_softmax': True}),
            'mmpose': Variant(
                {'scale': 'mmpose'}, mean_factor=lambda shape: shape[0], can_mean_over_valid=False
            ),
            'mask_weight': Variant({'mask': [1], 'mask_weight': 0.5}),
        },
        changes={
            **BASE_CHANGES,
            'beta': Change(2.0),
            'label_softmax': Change(True),
            'label_beta': Change(5.0, {'label_softmax': True}),
            'mask': Change([0], {'mask_weight': 0.5}),
            'mask_weight': Change(0.5, {'mask': [0]}),
            'bin_reduction': Change('sum'),
            'scale': Change('mmpose'),
        },
        no_effect=BASE_NO_EFFECT,
        bad_options={
            **BASE_BAD_OPTIONS,
            'beta': {'beta': 0.0},
            'label_beta': {'label_beta': -1.0},
            'bin_reduction': {'bin_reduction': 'max'},
            'scale': {'scale': 'author_s'},
            'two divisors': {'scale': 'mmpose', 'mean_over': 'valid'},
        },
        bad_targets={
            'bins': lambda target: tuple(axis[..., :-1] for axis in target),
            'keypoints': lambda target: tuple(axis[:, :-1] for axis in target),
            'batch': lambda target: tuple(axis[:-1] for axis in target),
            'axes': lambda target: target[:1],
            'dimensions': lambda target: tuple(axis[..., None] for axis in target),
        },
        limit_targets={
            'one-hot': lambda target: map_floats(one_hot, target),
            'zero mass': lambda target: map_floats(torch.zeros_like, target),
            'not normalised': lambda target: map_floats(torch.ones_like, target),
        },
        zeros={'perfect prediction': simcc_perfect, 'zero mass': simcc_without_mass},
    ),
}
