"""Cases of mmloss_plugins.losses.balanced_bce."""

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

HEIGHT, WIDTH = 6, 7


def make_maps(batch: int, units: int, seed: int, dtype: torch.dtype) -> tuple[Tree, Tree]:
    """Logits and targets (B, K, 6, 7): a tenth of ones, a fifth soft, the first sample all 0."""
    generator = torch.Generator().manual_seed(seed)
    shape = batch, units, HEIGHT, WIDTH
    pred = 2 * scattered(shape, generator) - 1
    draw = torch.rand(shape, dtype=torch.float64, generator=generator)
    target = torch.where(draw > 0.9, 1.0, torch.where(draw > 0.7, draw, 0.0))
    target[:1] = 0
    target[1:, :, HEIGHT // 2, WIDTH // 2] = 1
    return map_floats(lambda x: x.to(dtype), (pred, scatter(target)))


def saturated() -> tuple[Mapping[str, Any], Tree, Tree]:
    _, target = make_maps(5, 4, 0, torch.float64)
    target = (target == 1).double()
    return {}, 800 * target - 400, target


def without_positives() -> tuple[Mapping[str, Any], Tree, Tree]:
    pred, target = make_maps(5, 4, 0, torch.float64)
    return {'fallback_negatives': 0}, pred, torch.zeros_like(target)


MINING = 'which negatives count depends on all of them'

CASES: dict[str, Case] = {
    'BalancedBCELoss': Case(
        make=make_maps,
        shape=lambda batch, units: (batch, units, HEIGHT, WIDTH),
        variants={
            'sample': Variant({'mine_over': 'sample', 'mean_over': 'all'}, coupled=MINING),
            'batch': Variant({'mean_over': 'all'}, coupled=MINING, per_rank=MINING),
            'thresholds': Variant(
                {
                    'mine_over': 'sample',
                    'mean_over': 'all',
                    'negative_ratio': 1.5,
                    'fallback_negatives': 5,
                    'pos_threshold': 0.8,
                    'neg_threshold': 0.75,
                },
                coupled=MINING,
            ),
        },
        changes={
            **BASE_CHANGES,
            'negative_ratio': Change(2.0),
            'mine_over': Change('batch'),
            'fallback_negatives': Change(3),
            'pos_threshold': Change(0.8),
            'neg_threshold': Change(0.75),
        },
        no_effect=BASE_NO_EFFECT,
        bad_options={
            **BASE_BAD_OPTIONS,
            'negative_ratio': {'negative_ratio': -1.0},
            'mine_over': {'mine_over': 'image'},
            'a word as a number': {'fallback_negatives': 'none'},
            'fallback_negatives': {'fallback_negatives': -1},
            'crossed thresholds': {'pos_threshold': 0.3, 'neg_threshold': 0.5},
            'pos_threshold': {'pos_threshold': 1.5},
        },
        bad_targets={
            'maps': lambda target: target[:, :-1],
            'size': lambda target: target[..., :-1],
            'batch': lambda target: target[:-1],
        },
        limit_targets={
            'no positives': torch.zeros_like,
            'no negatives': torch.ones_like,
            'neither': lambda target: torch.full_like(target, 0.5),
        },
        zeros={'saturated': saturated, 'no positives, no fallback': without_positives},
    ),
}
