"""Cases of mmloss_plugins.losses.simcc."""

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
