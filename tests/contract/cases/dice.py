"""Cases of mmloss_plugins.losses.dice.

The laws run on ratios over samples. A ratio over the batch is a single element, which no law can
switch off beside others: ``test_losses/test_dice.py`` has its tests.
"""

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
from tests.contract.trees import Tree, map_floats, scatter, scattered

IGNORED = 255


def make_maps(batch: int, units: int, seed: int, dtype: torch.dtype) -> tuple[Tree, Tree]:
    """Logits and soft targets (B, C, 6, 7)."""
    generator = torch.Generator().manual_seed(seed)
    shape = batch, units, 6, 7
    pred, target = 2 * scattered(shape, generator), scattered(shape, generator).sigmoid()
    return map_floats(lambda x: x.to(dtype), (pred, scatter(target)))


def make_labels(batch: int, units: int, seed: int, dtype: torch.dtype) -> tuple[Tree, Tree]:
    """Logits (B, C, 6, 7) and class labels (B, 6, 7), some of them to be ignored."""
    pred, _ = make_maps(batch, units, seed, dtype)
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, units, (batch, 6, 7), generator=generator)
    labels[:, 2:4, 3] = IGNORED
    return pred, scatter(labels)


def make_plain_labels(batch: int, units: int, seed: int, dtype: torch.dtype) -> tuple[Tree, Tree]:
    pred, labels = make_labels(batch, units, seed, dtype)
    return pred, labels.clamp(max=units - 1)


def perfect() -> tuple[Mapping[str, Any], Tree, Tree]:
    _, target = make_maps(5, 4, 0, torch.float64)
    target = target.round()
    return {}, 800 * target - 400, target


def empty() -> tuple[Mapping[str, Any], Tree, Tree]:
    pred, target = make_maps(5, 4, 0, torch.float64)
    return {}, pred - 800, torch.zeros_like(target)


CASES: dict[str, Case] = {
    'DiceLoss': Case(
        make=make_maps,
        shape=lambda batch, units: (batch,),
        variants={
            'sample': Variant({'ratio_over': 'sample'}),
            'squares': Variant(
                {
                    'ratio_over': 'sample',
                    'power': 2,
                    'smooth_numerator': 0,
                    'smooth_denominator': 2e-3,
                }
            ),
            'labels': Variant(
                {'ratio_over': 'sample', 'activation': 'softmax', 'ignore_index': IGNORED},
                make=make_labels,
            ),
        },
        changes={
            **BASE_CHANGES,
            'activation': Change('softmax'),
            'ratio_over': Change('channel'),
            'power': Change(2),
            'smooth_numerator': Change(0.5),
            'smooth_denominator': Change(0.5),
            'ignore_index': Change(1, {'activation': 'softmax'}, make=make_plain_labels),
        },
        no_effect=BASE_NO_EFFECT,
        bad_options={
            **BASE_BAD_OPTIONS,
            'activation': {'activation': 'tanh'},
            'ratio_over': {'ratio_over': 'image'},
            'power': {'power': 3},
            'smooth_numerator': {'smooth_numerator': -1.0},
            'smooth_denominator': {'smooth_denominator': 0.0},
        },
        bad_targets={
            'channels': lambda target: target[:, :-1],
            'size': lambda target: target[..., :-1],
            'batch': lambda target: target[:-1],
        },
        limit_targets={'empty': torch.zeros_like, 'full': torch.ones_like},
        zeros={'perfect prediction': perfect, 'empty and predicted so': empty},
    ),
}
