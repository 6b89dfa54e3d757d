"""Cases of mmloss_plugins.losses.centernet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from mmloss_plugins.losses.centernet import PARTS
from tests.contract.case import (
    BASE_BAD_OPTIONS,
    BASE_CHANGES,
    BASE_NO_EFFECT,
    Case,
    Change,
    Index,
    Variant,
)
from tests.contract.trees import Tree, scatter, scattered

HEIGHT, WIDTH = 7, 6
CLASSES = 3


def cell_of(image: int, thing: int) -> int:
    """Return the cell of an object: those of an image differ, and so do those of two images."""
    return (5 * thing + 3 * image) % (HEIGHT * WIDTH)


def class_of(image: int, thing: int) -> int:
    return (image + thing) % CLASSES


def table(batch: int, units: int, entry: Callable[[int, int], int]) -> Tensor:
    """Return (B, N) of int64."""
    rows = [[entry(image, thing) for thing in range(units)] for image in range(batch)]
    return scatter(torch.tensor(rows, dtype=torch.int64).reshape(batch, units))


def make_objects(
    batch: int, units: int, seed: int, dtype: torch.dtype, channels: int = 2
) -> tuple[Tree, Tree]:
    """A map (B, 2, 7, 6) and N objects with positive values, as sizes are."""
    generator = torch.Generator().manual_seed(seed)
    pred = 2 * scattered((batch, channels, HEIGHT, WIDTH), generator)
    values = scatter(scattered((batch, units, 2), generator).abs() + 0.5)
    target = {
        'cell_index': table(batch, units, cell_of),
        'values': values.to(dtype),
        'mask': scatter(torch.ones(batch, units, dtype=torch.bool)),
    }
    return pred.to(dtype), target


def make_tuple(batch: int, units: int, seed: int, dtype: torch.dtype) -> tuple[Tree, Tree]:
    pred, target = make_objects(batch, units, seed, dtype)
    return pred, (target['cell_index'], target['values'])


def make_by_class(batch: int, units: int, seed: int, dtype: torch.dtype) -> tuple[Tree, Tree]:
    """A map (B, 2C, 7, 6) and objects with labels."""
    pred, target = make_objects(batch, units, seed, dtype, 2 * CLASSES)
    return pred, {**target, 'labels': table(batch, units, class_of)}


def one_coordinate(leaf: Tensor, index: Index) -> Tensor:
    """View the coordinate of one object, in the map or among the values."""
    image, thing, axis = index
    if leaf.dim() == 3:
        return leaf[index]
    row, column = divmod(cell_of(image, thing), WIDTH)
    channel = axis if leaf.shape[1] == 2 else 2 * class_of(image, thing) + axis
    return leaf[image, channel, row, column]


def with_parts(change: Callable[[Tensor], Any], *names: str) -> Callable[[Tree], Tree]:
    """Return a function that changes parts of a target, all if no name is given."""

    def changed(target: Tree) -> Tree:
        parts = target if isinstance(target, dict) else dict(zip(PARTS, target))
        parts = {
            name: change(part) if not names or name in names else part
            for name, part in parts.items()
        }
        return parts if isinstance(target, dict) else tuple(parts.values())

    return changed


def as_predicted() -> tuple[Mapping[str, Any], Tree, Tree]:
    pred, target = make_objects(5, 4, 0, torch.float64)
    for image in range(5):
        for thing in range(4):
            for axis in range(2):
                found = one_coordinate(pred, (image, thing, axis))
                found.copy_(target['values'][image, thing, axis])
    return {}, pred, target


def number_of_valid(target: Tree, weight: Tensor) -> Tensor:
    return (weight != 0).sum()


def number_of_objects(target: Tree, weight: Tensor) -> Tensor:
    return (weight != 0).any(-1).sum()


CASES: dict[str, Case] = {
    'RegL1Loss': Case(
        make=make_objects,
        shape=lambda batch, units: (batch, units, 2),
        variants={
            'author': Variant(mean_divisor=number_of_valid),
            'smooth per object': Variant(
                {'penalty': 'smooth_l1', 'mean_over': 'objects'}, mean_divisor=number_of_objects
            ),
            'normalized': Variant({'penalty': 'normalized'}, mean_divisor=number_of_valid),
            'size per class': Variant(
                {'class_specific': True}, mean_divisor=number_of_valid, make=make_by_class
            ),
            'tuple': Variant(mean_divisor=number_of_valid, make=make_tuple),
        },
        changes={
            **BASE_CHANGES,
            'mean_over': Change('all'),
            'penalty': Change('smooth_l1'),
        },
        no_effect={
            **BASE_NO_EFFECT,
            'class_specific': 'reads other channels, those of another head; a variant has it',
        },
        bad_options={**BASE_BAD_OPTIONS, 'penalty': {'penalty': 'l2'}},
        bad_targets={
            'batch': with_parts(lambda part: part[:-1]),
            'objects': with_parts(lambda part: part[:, 1:], 'cell_index'),
            'soft index': with_parts(torch.Tensor.float, 'cell_index'),
            'no index': with_parts(lambda part: None, 'cell_index'),
            'no values': with_parts(lambda part: None, 'values'),
            'axes': with_parts(lambda part: part.repeat(1, 1, 2), 'values'),
            'dense': with_parts(lambda part: part[..., None], 'values'),
            'no mapping': lambda target: torch.zeros(5, 4, 2),
        },
        limit_targets={
            'zero': with_parts(torch.zeros_like, 'values'),
            'largest': with_parts(lambda values: torch.full_like(values, 65504.0), 'values'),
        },
        zeros={'as predicted': as_predicted},
        select=one_coordinate,
    ),
}
