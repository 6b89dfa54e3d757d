"""Cases of mmloss_plugins.losses.dsnt."""

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
from tests.contract.trees import Tree, scatter, scattered

MAP = (7, 6)  # H, W
SOLID = (3, 7, 6)
WIDE = (3, 14)  # rows of 12 cells and more take another path through the same sums
Made = tuple[Mapping[str, Any], Tree, Tree]


def coordinates(batch: int, units: int, axes: int, generator: torch.Generator) -> Tensor:
    """Points within the map, at least half a cell from its border."""
    return scatter(scattered((batch, units, axes), generator).tanh() * 0.8)


def make_points(axes: int) -> Callable[[int, int, int, torch.dtype], tuple[Tree, Tree]]:
    """Return a function that makes predicted and labelled points (B, K, D)."""

    def make(batch: int, units: int, seed: int, dtype: torch.dtype) -> tuple[Tree, Tree]:
        generator = torch.Generator().manual_seed(seed)
        pred = coordinates(batch, units, axes, generator)
        return pred.to(dtype), coordinates(batch, units, axes, generator).to(dtype)

    return make


def make_maps(size: tuple[int, ...]) -> Callable[[int, int, int, torch.dtype], tuple[Tree, Tree]]:
    """Return a function that makes normalised maps (B, K, *size) and points (B, K, D)."""

    def make(batch: int, units: int, seed: int, dtype: torch.dtype) -> tuple[Tree, Tree]:
        generator = torch.Generator().manual_seed(seed)
        logits = scattered((batch, units, *size), generator)
        maps = logits.flatten(2).softmax(-1).view(logits.shape)
        target = coordinates(batch, units, len(size), generator)
        return scatter(maps).to(dtype), target.to(dtype)

    return make


def same_points() -> Made:
    _, target = make_points(2)(5, 4, 0, torch.float64)
    return {}, target.clone(), target


def gaussians() -> Made:
    """exp(-d^2 / 2) over its sum, with distances in cells: a cell is 2 / size wide."""
    _, target = make_maps(MAP)(5, 4, 0, torch.float64)
    height, width = MAP
    x = (2 * torch.arange(width) + 1.0).double() / width - 1
    y = (2 * torch.arange(height) + 1.0).double() / height - 1
    from_x = (x - target[..., :1]) * width / 2
    from_y = (y - target[..., 1:]) * height / 2
    maps = torch.exp(-0.5 * (from_x[..., None, :] ** 2 + from_y[..., :, None] ** 2))
    return {}, scatter(maps / maps.sum((2, 3), keepdim=True)), target


def four_cells() -> Made:
    """A quarter each at four cells two apart: variance 1 px^2 along both axes."""
    _, target = make_maps(MAP)(5, 4, 0, torch.float64)
    maps = torch.zeros(5, 4, *MAP, dtype=torch.float64)
    for row in (2, 4):
        for column in (1, 3):
            maps[:, :, row, column] = 0.25
    return {}, scatter(maps), target


def filled(value: float) -> Callable[[Tree], Tree]:
    return lambda target: torch.full_like(target, value)


WRONG_POINTS = {
    'batch': lambda target: target[:-1],
    'keypoints': lambda target: target[:, :-1],
    'axes': lambda target: target.repeat(1, 1, 2),
    'dimensions': lambda target: target[..., None],
}
LIMITS = {
    'centre': filled(0.0),
    'top left': filled(-1.0),
    'bottom right': filled(1.0),
}


def regularizer(
    variants: Mapping[str, Variant],
    changes: Mapping[str, Change],
    bad_options: Mapping[str, Mapping[str, Any]],
    zeros: Mapping[str, Callable[[], Made]],
) -> Case:
    """Return the case of a loss on maps."""
    return Case(
        make=make_maps(MAP),
        shape=lambda batch, units: (batch, units),
        variants={
            'author': Variant(mean_divisor=number_of_valid),
            'sigma per axis': Variant({'sigma_px': [0.7, 1.5]}, mean_divisor=number_of_valid),
            'solid': Variant(make=make_maps(SOLID), mean_divisor=number_of_valid),
            'wide': Variant(make=make_maps(WIDE), mean_divisor=number_of_valid),
            **variants,
        },
        changes={**CHANGES, 'sigma_px': Change(2.0), **changes},
        no_effect=BASE_NO_EFFECT,
        bad_options={
            **BASE_BAD_OPTIONS,
            'zero sigma_px': {'sigma_px': 0.0},
            'negative sigma_px': {'sigma_px': [1.0, -1.0]},
            'NaN as sigma_px': {'sigma_px': float('nan')},
            'no sigma_px': {'sigma_px': []},
            'a word as sigma_px': {'sigma_px': '1'},
            **bad_options,
        },
        bad_targets={
            **WRONG_POINTS,
            'maps': lambda target: torch.rand(*target.shape[:2], *MAP),
        },
        limit_targets=LIMITS,
        zeros=zeros,
    )


def number_of_valid(target: Tree, weight: Tensor) -> Tensor:
    return (weight != 0).sum()


CHANGES = {**BASE_CHANGES, 'mean_over': Change('all')}

CASES: dict[str, Case] = {
    'EuclideanLoss': Case(
        make=make_points(2),
        shape=lambda batch, units: (batch, units),
        variants={
            'author': Variant(mean_divisor=number_of_valid),
            'solid': Variant(make=make_points(3), mean_divisor=number_of_valid),
            'all': Variant({'mean_over': 'all'}),
        },
        changes=CHANGES,
        no_effect=BASE_NO_EFFECT,
        bad_options=BASE_BAD_OPTIONS,
        bad_targets=WRONG_POINTS,
        limit_targets={**LIMITS, 'far off': filled(65504.0)},
        zeros={'same points': same_points},
    ),
    'HeatmapJSLoss': regularizer(
        variants={
            'bits': Variant({'base': 2}, mean_divisor=number_of_valid),
            'line': Variant(make=make_maps((7,)), mean_divisor=number_of_valid),
        },
        changes={'base': Change(2)},
        bad_options={'base': {'base': 10}},
        zeros={'Gaussian around the label': gaussians},
    ),
    'HeatmapKLLoss': regularizer(
        variants={},
        changes={},
        bad_options={},
        zeros={'Gaussian around the label': gaussians},
    ),
    'HeatmapMSERegLoss': regularizer(
        variants={},
        changes={},
        bad_options={},
        zeros={'Gaussian around the label': gaussians},
    ),
    'HeatmapVarianceLoss': regularizer(
        variants={'normalised': Variant({'unit': 'normalized'}, mean_divisor=number_of_valid)},
        changes={'unit': Change('normalized')},
        bad_options={'unit': {'unit': 'pixels'}},
        zeros={'four cells': four_cells},
    ),
}
