"""Cases of mmloss_plugins.losses.focal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tests.contract.case import (
    BASE_BAD_OPTIONS,
    BASE_CHANGES,
    BASE_NO_EFFECT,
    Case,
    Change,
    Variant,
)
from tests.contract.trees import Tree, map_floats, scatter, scattered

SIZE = (3, 7)


def make_maps(batch: int, units: int, seed: int, dtype: torch.dtype) -> tuple[Tree, Tree]:
    """Logits (B, K, 3, 7) and targets in [0, 1], a fourth of which is 0 and another fourth 1."""
    generator = torch.Generator().manual_seed(seed)
    pred = 2 * scattered((batch, units, *SIZE), generator)
    target = (2 * scattered((batch, units, *SIZE), generator).sigmoid() - 0.5).clamp(0, 1)
    return map_floats(lambda x: x.to(dtype), (pred, scatter(target)))


def make_labels(batch: int, units: int, seed: int, dtype: torch.dtype) -> tuple[Tree, Tree]:
    """The same logits with class labels (B, 3, 7), C for background."""
    pred, _ = make_maps(batch, units, seed, dtype)
    generator = torch.Generator().manual_seed(seed)
    return pred, scatter(torch.randint(units + 1, (batch, *SIZE), generator=generator))


def make_centres(batch: int, units: int, seed: int, dtype: torch.dtype) -> tuple[Tree, Tree]:
    """Heatmaps and a mask of the positives, which the heatmap does not tell."""
    pred, heatmap = make_maps(batch, units, seed, dtype)
    return pred, (heatmap * 0.9, scatter(heatmap > 0.8))


def make_hard(batch: int, units: int, seed: int, dtype: torch.dtype) -> tuple[Tree, Tree]:
    pred, target = make_maps(batch, units, seed, dtype)
    return pred, (target > 0.5).to(dtype)


def make_probabilities(batch: int, units: int, seed: int, dtype: torch.dtype) -> tuple[Tree, Tree]:
    pred, target = make_maps(batch, units, seed, dtype)
    return pred.sigmoid(), target


def number_of_positives(target: Tensor, weight: Tensor) -> Tensor:
    return ((target == 1) & (weight != 0)).sum()


def certain(scale: float) -> tuple[Tree, Tree]:
    _, target = make_hard(5, 4, 0, torch.float64)
    return scale * (2 * target - 1), target


def certain_labels() -> tuple[Mapping[str, Any], Tree, Tree]:
    return {}, *certain(60.0)


def next_to_a_centre() -> tuple[Mapping[str, Any], Tree, Tree]:
    """Elements with target 1 that are not positive have no loss, whatever is predicted."""
    pred, target = make_maps(5, 4, 0, torch.float64)
    ones = torch.ones_like(target)
    return {}, pred, (ones, torch.zeros_like(ones, dtype=torch.bool))


def bad_maps() -> dict[str, Any]:
    def to_each(change):
        return lambda target: (
            tuple(change(part) for part in target) if isinstance(target, tuple) else change(target)
        )

    return {
        'width': to_each(lambda target: target[..., :-1]),
        'keypoints': to_each(lambda target: target[:, :-1]),
        'batch': to_each(lambda target: target[:-1]),
        'dimensions': to_each(lambda target: target[..., None]),
    }


LIMITS = {
    'nothing': lambda target: map_floats(torch.zeros_like, target),
    'everything': lambda target: map_floats(torch.ones_like, target),
    'hard': lambda target: map_floats(torch.round, target),
}

CASES: dict[str, Case] = {
    'SigmoidFocalLoss': Case(
        make=make_maps,
        shape=lambda batch, units: (batch, units, *SIZE),
        variants={
            'maps': Variant(),
            'gamma': Variant({'gamma': 0.5, 'alpha': None, 'mean_over': 'all'}),
            'labels': Variant({'alpha': 0.75, 'gamma': 3.0}, make=make_labels),
        },
        changes={
            **BASE_CHANGES,
            'alpha': Change(0.75),
            'gamma': Change(1.0),
            'ignore_index': Change(0, make=make_hard),
            'activated': Change(True, make=make_probabilities),
        },
        no_effect={
            **BASE_NO_EFFECT,
            'use_sigmoid': 'False is refused; MMDetection reads it in the config',
        },
        bad_options={
            **BASE_BAD_OPTIONS,
            'alpha': {'alpha': 2.0},
            'alpha of a class': {'alpha': [0.5, -1.0]},
            'gamma': {'gamma': -1.0},
            'use_sigmoid': {'use_sigmoid': False},
        },
        bad_targets=bad_maps(),
        limit_targets=LIMITS,
        zeros={'certain and right': certain_labels},
    ),
    'GaussianFocalLoss': Case(
        make=make_maps,
        shape=lambda batch, units: (batch, units, *SIZE),
        variants={
            'author': Variant(mean_divisor=number_of_positives),
            'threshold': Variant(
                {
                    'alpha': 0.5,
                    'beta': 2.5,
                    'pos_threshold': 0.7,
                    'pos_weight': 0.25,
                    'neg_weight': 0.75,
                    'mean_over': 'all',
                }
            ),
            'centres': Variant({'mean_over': 'all', 'gamma': 0.0}, make=make_centres),
        },
        changes={
            **BASE_CHANGES,
            'alpha': Change(1.0),
            'beta': Change(2.0),
            'gamma': Change(2.0),
            'pos_threshold': Change(0.7),
            'pos_weight': Change(0.5),
            'neg_weight': Change(0.5),
            'from_logits': Change(False, make=make_probabilities),
        },
        no_effect=BASE_NO_EFFECT,
        bad_options={
            **BASE_BAD_OPTIONS,
            'alpha': {'alpha': -1.0},
            'beta': {'beta': -1.0},
            'beta and gamma': {'beta': 4.0, 'gamma': 4.0},
            'pos_threshold': {'pos_threshold': 1.5},
            'pos_weight': {'pos_weight': -1.0},
            'neg_weight': {'neg_weight': 'half'},
        },
        bad_targets=bad_maps(),
        limit_targets=LIMITS,
        zeros={
            'certain and right': certain_labels,
            'nothing but cells at a centre': next_to_a_centre,
        },
    ),
}
