"""Cases of mmloss_plugins.losses.regression."""

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
    Variant,
)
from tests.contract.trees import Tree, map_floats, scattered


def make_coordinates(batch: int, units: int, seed: int, dtype: torch.dtype) -> tuple[Tree, Tree]:
    """Coordinates (N, K, 2) around the origin."""
    generator = torch.Generator().manual_seed(seed)
    pred, target = (scattered((batch, units, 2), generator) for _ in range(2))
    return map_floats(lambda x: x.to(dtype), (2 * pred, target))


def equal() -> tuple[Mapping[str, Any], Tree, Tree]:
    _, target = make_coordinates(5, 4, 0, torch.float64)
    return {'scale': (7.0, 3.0)}, target.clone(), target


def shape_of_coordinates(batch: int, units: int) -> tuple[int, ...]:
    return (batch, units, 2)


PIXELS = Variant({'scale': (48.0, 64.0)})
COORDINATE_BAD_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    **BASE_BAD_OPTIONS,
    'scale': {'scale': 0.0},
    'scale per coordinate': {'scale': (64.0, -1.0)},
    'named scale': {'scale': 'mmpose'},
}
COORDINATE_FIELDS: dict[str, Any] = dict(
    make=make_coordinates,
    shape=shape_of_coordinates,
    bad_targets={
        'keypoints': lambda target: target[:, :-1],
        'batch': lambda target: target[:-1],
        'dimensions': lambda target: target[..., None],
    },
    limit_targets={
        'zero': torch.zeros_like,
        'largest': lambda target: torch.full_like(target, 65504.0),
        'smallest': lambda target: torch.full_like(target, -65504.0),
    },
    zeros={'equal': equal},
)

CASES: dict[str, Case] = {
    'L1Loss': Case(
        variants={'units': Variant(), 'pixels': PIXELS},
        changes={**BASE_CHANGES, 'scale': Change(2.0)},
        no_effect=BASE_NO_EFFECT,
        bad_options=COORDINATE_BAD_OPTIONS,
        **COORDINATE_FIELDS,
    ),
    'MSELoss': Case(
        variants={'units': Variant(), 'pixels': PIXELS},
        changes={**BASE_CHANGES, 'scale': Change(2.0)},
        no_effect=BASE_NO_EFFECT,
        bad_options=COORDINATE_BAD_OPTIONS,
        **COORDINATE_FIELDS,
    ),
    'SmoothL1Loss': Case(
        variants={
            'units': Variant(),
            'pixels': Variant({'scale': (48.0, 64.0), 'beta': 5.0}),
        },
        changes={**BASE_CHANGES, 'scale': Change(2.0), 'beta': Change(0.5)},
        no_effect=BASE_NO_EFFECT,
        bad_options={**COORDINATE_BAD_OPTIONS, 'beta': {'beta': -1.0}},
        **COORDINATE_FIELDS,
    ),
}
