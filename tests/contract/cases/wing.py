"""Cases of mmloss_plugins.losses.wing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from tests.contract.case import (
    BASE_BAD_OPTIONS,
    BASE_CHANGES,
    BASE_NO_EFFECT,
    Case,
    Change,
    Shape,
    Variant,
)
from tests.contract.cases.regression import COORDINATE_BAD_OPTIONS, COORDINATE_FIELDS
from tests.contract.trees import Tree, map_floats, scatter, scattered


def per_sample(shape: Shape) -> float:
    return shape[1] * shape[2]


def make_maps(batch: int, units: int, seed: int, dtype: torch.dtype) -> tuple[Tree, Tree]:
    """Raw maps and targets in [0, 1], (B, K, 6, 7)."""
    generator = torch.Generator().manual_seed(seed)
    pred = scattered((batch, units, 6, 7), generator)
    target = scatter(scattered((batch, units, 6, 7), generator).sigmoid() ** 4)
    return map_floats(lambda x: x.to(dtype), (pred, target))


def equal_maps() -> tuple[Mapping[str, Any], Tree, Tree]:
    _, target = make_maps(5, 4, 0, torch.float64)
    return {}, target.clone(), target


CASES: dict[str, Case] = {
    'WingLoss': Case(
        variants={
            'logarithm': Variant({'scale': 1.0}, mean_factor=per_sample),
            'pixels': Variant({'scale': (4.0, 6.0), 'mean_over': 'all'}),
        },
        changes={
            **BASE_CHANGES,
            'scale': Change(2.0),
            'omega': Change(1.0),
            'epsilon': Change(1.0),
        },
        no_effect=BASE_NO_EFFECT,
        bad_options={
            **COORDINATE_BAD_OPTIONS,
            'omega': {'omega': 0.0, 'scale': 1.0},
            'epsilon': {'epsilon': -2.0, 'scale': 1.0},
        },
        **COORDINATE_FIELDS,
    ),
    'AdaptiveWingLoss': Case(
        make=make_maps,
        shape=lambda batch, units: (batch, units, 6, 7),
        variants={
            'without weight map': Variant({'foreground_weight': 0.0}),
            'author': Variant(coupled='the weight map reads the target of neighbouring pixels'),
        },
        changes={
            **BASE_CHANGES,
            'alpha': Change(2.5),
            'omega': Change(10.0),
            'epsilon': Change(2.0),
            'theta': Change(0.25),
            'foreground_weight': Change(1.0),
            'mask_threshold': Change(0.6, {'foreground_weight': 5.0}),
        },
        no_effect=BASE_NO_EFFECT,
        bad_options={
            **BASE_BAD_OPTIONS,
            'alpha': {'alpha': 2.0},
            'omega': {'omega': 0.0},
            'epsilon': {'epsilon': 0.0},
            'theta': {'theta': -0.5},
            'foreground_weight': {'foreground_weight': -1.0},
            'mask_threshold': {'mask_threshold': 0.0},
        },
        bad_targets={
            'keypoints': lambda target: target[:, :-1],
            'width': lambda target: target[..., :-1],
        },
        limit_targets={'zero': torch.zeros_like, 'one': torch.ones_like},
        zeros={'equal': equal_maps},
    ),
}
