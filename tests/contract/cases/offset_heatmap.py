"""Cases of mmloss_plugins.losses.offset_heatmap."""

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
from tests.contract.trees import Tree, scatter, scattered

HEIGHT, WIDTH = 7, 6


def make_offset_heatmap(
    batch: int, units: int, seed: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """K disks of several cells and 2K offsets, (B, 3K, 7, 6).

    Labels of offsets lie in (0, 1) px, so that the other order of channels is valid too.
    """
    generator = torch.Generator().manual_seed(seed)
    pred = 2 * scattered((batch, 3 * units, HEIGHT, WIDTH), generator)
    target = scatter(scattered((batch, 3 * units, HEIGHT, WIDTH), generator).sigmoid())
    target[:, :units] = (target[:, :units] > 0.5).to(target)
    return pred.to(dtype), target.to(dtype)


def one_keypoint(leaf: Tensor, index: Index) -> Tensor:
    """View the disk and the two offsets of one keypoint: (3, H, W)."""
    return leaf.unflatten(1, (3, -1))[index[0], :, index[1]]


def fill_disks(value: float) -> Any:
    def fill(target: Tree) -> Tree:
        filled = target.clone()
        filled[:, : target.shape[1] // 3] = value
        return filled

    return fill


def right_everywhere() -> tuple[Mapping[str, Any], Tree, Tree]:
    """Logits of 1,000 are probabilities of 1 and 0; offsets are only asked for in the disk."""
    pred, target = make_offset_heatmap(5, 4, 0, torch.float64)
    disk = target[:, :4]
    offsets = torch.where(disk.repeat(1, 2, 1, 1) == 1, target[:, 4:], pred[:, 4:])
    return {}, scatter(torch.cat([1000 * (2 * disk - 1), offsets], 1)), target


def empty_disk() -> tuple[Mapping[str, Any], Tree, Tree]:
    pred, target = make_offset_heatmap(5, 4, 0, torch.float64)
    return {'lambda_heatmap': 0.0}, pred, fill_disks(0)(target)


CASES: dict[str, Case] = {
    'OffsetHeatmapLoss': Case(
        make=make_offset_heatmap,
        shape=lambda batch, units: (batch, units),
        variants={
            'author': Variant(),
            'focal disk': Variant({'disk_loss': {'type': 'mmloss_plugins.SigmoidFocalLoss'}}),
        },
        changes={
            **BASE_CHANGES,
            'lambda_heatmap': Change(1.0),
            'lambda_offset': Change(2.0),
            'delta_px': Change(0.5),
            'order': Change('interleaved'),
            'disk_loss': Change({'type': 'mmloss_plugins.SigmoidFocalLoss'}),
        },
        no_effect=BASE_NO_EFFECT,
        bad_options={
            **BASE_BAD_OPTIONS,
            'lambda_heatmap': {'lambda_heatmap': -1.0},
            'lambda_offset': {'lambda_offset': float('nan')},
            'delta_px': {'delta_px': 0.0},
            'order': {'order': 'grouped_xy'},
            'disk_loss': {'disk_loss': {'type': 'mmengine.BaseDataPreprocessor'}},
        },
        bad_targets={
            'channels': lambda target: target[:, :-1],
            'batch': lambda target: target[:-1],
            'height': lambda target: target[:, :, 1:],
            'dimensions': lambda target: target[..., None],
        },
        limit_targets={
            'no disk': fill_disks(0),
            'disk everywhere': fill_disks(1),
            'soft disk': fill_disks(0.5),
        },
        zeros={'right everywhere': right_everywhere, 'empty disk': empty_disk},
        select=one_keypoint,
    ),
}
