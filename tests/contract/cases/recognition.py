"""Cases of mmloss_plugins.losses.center and mmloss_plugins.losses.label_smoothing."""

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

CLASSES, DIMS = 3, 15
CENTERS = {'num_classes': CLASSES, 'feat_dim': DIMS}
STATE = 'the centres are learnt, and training goes on with them after a resume'


def labels_of(batch: int, classes: int) -> Tensor:
    return scatter(torch.arange(batch) % classes)


def make_features(batch: int, units: int, seed: int, dtype: torch.dtype) -> tuple[Tree, Tree]:
    """Features (B, 15) of three classes."""
    generator = torch.Generator().manual_seed(seed)
    return 2 * scattered((batch, DIMS), generator).to(dtype), labels_of(batch, CLASSES)


def make_logits(batch: int, units: int, seed: int, dtype: torch.dtype) -> tuple[Tree, Tree]:
    """Logits (B, C)."""
    generator = torch.Generator().manual_seed(seed)
    return 2 * scattered((batch, units), generator).to(dtype), labels_of(batch, units)


def at_the_centre() -> tuple[Mapping[str, Any], Tree, Tree]:
    _, target = make_features(5, 4, 0, torch.float64)
    return {}, torch.zeros(5, DIMS, dtype=torch.float64), target


def certain() -> tuple[Mapping[str, Any], Tree, Tree]:
    _, target = make_logits(5, 4, 0, torch.float64)
    return {'smoothing': 0.0}, 60 * torch.eye(4, dtype=torch.float64)[target], target


def all_of(label: int) -> Callable[[Tensor], Tensor]:
    return lambda target: torch.full_like(target, label)


BAD_LABELS: dict[str, Callable[[Tensor], Tree]] = {
    'batch': lambda target: target[:-1],
    'one-hot': torch.nn.functional.one_hot,
    'soft': lambda target: target.float(),
    'dimensions': lambda target: target[:, None],
    'list': lambda target: target.tolist(),
}

CASES: dict[str, Case] = {
    'CenterLoss': Case(
        make=make_features,
        shape=lambda batch, units: (batch,),
        variants={
            'parameter': Variant(CENTERS, state=STATE),
            'moving average': Variant({**CENTERS, 'update': 'moving_average'}, state=STATE),
            'frobenius': Variant(
                {**CENTERS, 'distance': 'frobenius'},
                state=STATE,
                coupled='one norm of all samples that count',
                per_rank='the norm is that of the batch of a rank',
            ),
        },
        changes={
            **BASE_CHANGES,
            'distance': Change('frobenius', CENTERS),
            'init_std': Change(10.0, CENTERS),
            'ignore_index': Change(1, CENTERS),
            **{name: Change(change.value, CENTERS) for name, change in BASE_CHANGES.items()},
        },
        no_effect={
            **BASE_NO_EFFECT,
            'num_classes': 'the number of centres; those of classes without a sample do not count',
            'feat_dim': 'the size of the features, another one is refused',
            'update': 'says how the centres move after the loss is computed',
            'rate': 'says how far the centres move after the loss is computed',
        },
        bad_options={
            **BASE_BAD_OPTIONS,
            'num_classes': {'num_classes': 0},
            'feat_dim': {'feat_dim': 2.0},
            'update': {'update': 'momentum'},
            'rate': {'rate': 0.0},
            'distance': {'distance': 'l1'},
            'init_std': {'init_std': -1.0},
        },
        bad_targets=BAD_LABELS,
        limit_targets={'first': all_of(0), 'last': all_of(CLASSES - 1), 'none': all_of(-1)},
        zeros={'at the centre': at_the_centre},
    ),
    'LabelSmoothLoss': Case(
        make=make_logits,
        shape=lambda batch, units: (batch,),
        variants={
            'others': Variant(),
            'all': Variant({'spread': 'all', 'smoothing': 0.2}),
            'plain': Variant({'smoothing': 0.0}),
        },
        changes={
            **BASE_CHANGES,
            'smoothing': Change(0.3),
            'spread': Change('all'),
            'class_weight': Change([0.5, 2.0, 1.0, 0.0]),
            'ignore_index': Change(3),
        },
        no_effect=BASE_NO_EFFECT,
        bad_options={
            **BASE_BAD_OPTIONS,
            'smoothing': {'smoothing': 1.0},
            'no number': {'smoothing': None},
            'spread': {'spread': 'uniform'},
            'class_weight': {'class_weight': [1.0, -1.0]},
        },
        bad_targets=BAD_LABELS,
        limit_targets={'first': all_of(0), 'second': all_of(1), 'ignored': all_of(-100)},
        zeros={'certain and right': certain},
    ),
}
