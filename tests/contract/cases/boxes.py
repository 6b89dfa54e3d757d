"""Cases of mmloss_plugins.losses.boxes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from tests.contract.trees import Tree, map_floats, scatter

CONSTANT_ALPHA = 'the paper holds alpha constant in the gradient'


def make_boxes(batch: int, units: int, seed: int, dtype: torch.dtype) -> tuple[Tree, Tree]:
    """Boxes (N, 4) that overlap their targets."""
    generator = torch.Generator().manual_seed(seed)
    low, low_t, size, size_t = torch.rand(4, batch, 2, dtype=torch.float64, generator=generator)
    pred, target = (
        scatter(torch.cat([a, a + 2 + b], dim=1)) for a, b in ((low, size), (low_t, size_t))
    )
    return map_floats(lambda x: x.to(dtype), (pred, target))


def equal() -> tuple[Mapping[str, Any], Tree, Tree]:
    _, target = make_boxes(5, 4, 0, torch.float64)
    # eps is far below the area of these.
    return {'eps': 1e-7}, 1e4 * target, 1e4 * target


def point(target: Tensor) -> Tensor:
    return target[:, [0, 1, 0, 1]]


def line(target: Tensor) -> Tensor:
    return target[:, [0, 1, 2, 1]]


def box_case(variants: Mapping[str, Variant], changes: Mapping[str, Change]) -> Case:
    """Return the case of a loss whose constructor takes ``eps``."""
    return Case(
        make=make_boxes,
        shape=lambda batch, units: (batch,),
        variants=variants,
        changes={**BASE_CHANGES, **changes},
        no_effect=BASE_NO_EFFECT,
        bad_options={**BASE_BAD_OPTIONS, 'eps': {'eps': 0.0}},
        bad_targets=BAD_TARGETS,
        limit_targets={
            'points': point,
            'lines': line,
            'largest': lambda target: torch.full_like(target, 65504.0) * target.new([-1, -1, 1, 1]),
        },
        zeros={'equal': equal},
    )


BAD_TARGETS: Mapping[str, Callable[[Tree], Tree]] = {
    'coordinates': lambda target: target[:, :3],
    'batch': lambda target: target[:-1],
    'dimensions': lambda target: target[None],
}
MODES = {mode: Variant({'mode': mode}) for mode in ('log', 'linear')}

CASES: dict[str, Case] = {
    'IoULoss': box_case(MODES, {'mode': Change('linear'), 'eps': Change(0.9)}),
    'GIoULoss': box_case({'giou': Variant()}, {'eps': Change(0.5)}),
    'DIoULoss': box_case({'diou': Variant()}, {'eps': Change(0.5)}),
    'CIoULoss': box_case({'ciou': Variant(surrogate=CONSTANT_ALPHA)}, {'eps': Change(0.5)}),
}
