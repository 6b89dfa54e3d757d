"""Cases of mmloss_plugins.losses.heatmap."""

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
    Index,
    Variant,
)
from tests.contract.trees import Tree, map_floats, scatter, scattered

HEIGHT, WIDTH = 6, 8


def make_maps(batch: int, units: int, seed: int, dtype: torch.dtype) -> tuple[Tree, Tree]:
    """Logits and targets in [0, 1], (B, K, 6, 8)."""
    generator = torch.Generator().manual_seed(seed)
    pred = 2 * scattered((batch, units, HEIGHT, WIDTH), generator)
    target = scatter(scattered((batch, units, HEIGHT, WIDTH), generator).sigmoid())
    return pred.to(dtype), target.to(dtype)


def make_maps_one_empty(batch: int, units: int, seed: int, dtype: torch.dtype) -> tuple[Tree, Tree]:
    """The same with one map that is zero everywhere."""
    pred, target = make_maps(batch, units, seed, dtype)
    target[:1, 1] = 0
    return pred, target


def make_pixel_classes(batch: int, units: int, seed: int, dtype: torch.dtype) -> tuple[Tree, Tree]:
    """Logits of K - 1 keypoints and background, (B, K, 6, 8), and a class map (B, 6, 8)."""
    generator = torch.Generator().manual_seed(seed)
    pred = 2 * scattered((batch, units, HEIGHT, WIDTH), generator)
    shape = (batch, HEIGHT, WIDTH)
    return pred.to(dtype), scatter(torch.randint(0, units, shape, generator=generator))


def make_pixel_heatmaps(batch: int, units: int, seed: int, dtype: torch.dtype) -> tuple[Tree, Tree]:
    """Logits (B, K, 6, 8) and heatmaps of K - 1 keypoints."""
    pred, _ = make_pixel_classes(batch, units, seed, dtype)
    return pred, make_maps(batch, units - 1, seed, dtype)[1]


def select_pixel(leaf: Tensor, index: Index) -> Tensor:
    """View all channels of a pixel."""
    batch, *pixel = index
    return leaf[(batch, slice(None), *pixel)]


def one_hot(target: Tensor) -> Tensor:
    flat = target.flatten(2)
    hot = torch.nn.functional.one_hot(flat.argmax(-1), flat.shape[-1])
    return hot.reshape(target.shape).to(target.dtype)


def mse_perfect() -> tuple[Mapping[str, Any], Tree, Tree]:
    _, target = make_maps(5, 4, 0, torch.float64)
    return {}, target.clone(), target


def mse_empty_channels() -> tuple[Mapping[str, Any], Tree, Tree]:
    pred, target = make_maps(5, 4, 0, torch.float64)
    return {'skip_empty_channel': True}, pred, torch.zeros_like(target)


def spatial_perfect() -> tuple[Mapping[str, Any], Tree, Tree]:
    _, target = make_maps(5, 4, 0, torch.float64)
    return {'label': 'one_hot'}, 1e4 * one_hot(target) - 50, target


def spatial_empty() -> tuple[Mapping[str, Any], Tree, Tree]:
    pred, target = make_maps(5, 4, 0, torch.float64)
    return {}, pred, torch.zeros_like(target)


def pixel_perfect() -> tuple[Mapping[str, Any], Tree, Tree]:
    _, target = make_pixel_classes(5, 4, 0, torch.float64)
    hot = torch.nn.functional.one_hot(target, 4).movedim(-1, 1)
    return {}, 1e4 * hot.double() - 50, target


def pixel_ignored() -> tuple[Mapping[str, Any], Tree, Tree]:
    pred, target = make_pixel_classes(5, 4, 0, torch.float64)
    return {}, pred, torch.full_like(target, 255)


MAPS = {
    'height': lambda target: target[:, :, :-1],
    'width': lambda target: target[..., :-1],
    'keypoints': lambda target: target[:, :-1],
    'batch': lambda target: target[:-1],
    'dimensions': lambda target: target[..., None],
}
LIMITS = {
    'one-hot': one_hot,
    'empty': torch.zeros_like,
    'full': torch.ones_like,
}

CASES: dict[str, Case] = {
    'HeatmapMSELoss': Case(
        make=make_maps,
        shape=lambda batch, units: (batch, units, HEIGHT, WIDTH),
        variants={
            'author': Variant(),
            'mmpose': Variant({'scale': 'mmpose'}),
            'foreground': Variant({'foreground_weight': 5.0, 'skip_empty_channel': True}),
        },
        changes={
            **BASE_CHANGES,
            'skip_empty_channel': Change(True, make=make_maps_one_empty),
            'scale': Change('mmpose'),
            'foreground_weight': Change(4.0),
        },
        no_effect=BASE_NO_EFFECT,
        bad_options={
            **BASE_BAD_OPTIONS,
            'scale': {'scale': 'mmdet'},
            'foreground_weight': {'foreground_weight': 0.0},
        },
        bad_targets=MAPS,
        limit_targets=LIMITS,
        zeros={'perfect prediction': mse_perfect, 'empty channels skipped': mse_empty_channels},
    ),
    'SpatialSoftmaxCELoss': Case(
        make=make_maps,
        shape=lambda batch, units: (batch, units),
        variants={
            'soft': Variant(),
            'one_hot': Variant({'label': 'one_hot', 'beta': 2.0}),
        },
        changes={**BASE_CHANGES, 'beta': Change(2.0), 'label': Change('one_hot')},
        no_effect=BASE_NO_EFFECT,
        bad_options={
            **BASE_BAD_OPTIONS,
            'beta': {'beta': 0.0},
            'label': {'label': 'hard'},
        },
        bad_targets=MAPS,
        limit_targets=LIMITS,
        zeros={'peak at the keypoint': spatial_perfect, 'empty target': spatial_empty},
    ),
    'PixelSoftmaxCELoss': Case(
        make=make_pixel_classes,
        shape=lambda batch, units: (batch, HEIGHT, WIDTH),
        select=select_pixel,
        variants={
            'classes': Variant(),
            'heatmaps': Variant({'pos_threshold': 0.7}, make=make_pixel_heatmaps),
        },
        changes={
            **BASE_CHANGES,
            'pos_threshold': Change(0.7, make=make_pixel_heatmaps),
            'class_weight': Change([1.0, 2.0, 3.0, 0.1]),
            'ignore_index': Change(2),
        },
        no_effect=BASE_NO_EFFECT,
        bad_options={
            **BASE_BAD_OPTIONS,
            'pos_threshold': {'pos_threshold': 0.0},
            'class_weight': {'class_weight': [1.0, -1.0]},
        },
        bad_targets={
            'height': lambda target: target[..., :-1, :],
            'width': lambda target: target[..., :-1],
            'batch': lambda target: target[:-1],
            'dimensions': lambda target: target[..., None],
            'as many maps as channels': lambda target: torch.zeros(5, 4, HEIGHT, WIDTH),
        },
        limit_targets={
            'keypoint 0': torch.zeros_like,
            'keypoint 1': torch.ones_like,
            'near one': lambda target: map_floats(lambda leaf: leaf.round(), target),
        },
        zeros={'right and sure': pixel_perfect, 'all ignored': pixel_ignored},
    ),
}
