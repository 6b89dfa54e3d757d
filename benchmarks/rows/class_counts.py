"""Forms of ArcFace's loss over the number of classes: from which size on each pays."""

from __future__ import annotations

import functools
import importlib

import torch
from torch import Tensor

from benchmarks.harness import Contender, Row
from benchmarks.rows.recognition import CHUNKED, LazyScene, Sizes, chunked, our_logits, ours

BATCH, DIMS, CLASSES = 128, (128, 512), (1_000, 10_000, 100_000)
SHARE = 0.1
LOGITS, ONE_PIECE = 'logits, then cross_entropy', 'ours, in one piece'
SAMPLED = 'ours, 10 % of the classes'
SPARSE = f'{SAMPLED}, sparse gradient'


def make_rows(device: torch.device, seed: int) -> list[Row]:
    """Return a row for each number of classes and length of an embedding."""
    return [
        row_of(Sizes(BATCH, dims, classes), device, seed) for dims in DIMS for classes in CLASSES
    ]


def row_of(sizes: Sizes, device: torch.device, seed: int) -> Row:
    """Return the row of all forms; what is sampled computes another loss."""
    scene = LazyScene(sizes, device, seed)
    return Row(
        name=f'{sizes.dims}d_{sizes.classes}',
        title=(
            f'ArcFace and cross-entropy, features ({sizes.batch}, {sizes.dims}), '
            f'{sizes.classes:,} classes, float32; memory with the gradient of the weights'
        ),
        device=device,
        contenders={
            LOGITS: Contender('peer', functools.partial(scene.step, our_logits), 1.0),
            ONE_PIECE: Contender('ours', functools.partial(scene.step, ours), 1.0),
            CHUNKED: Contender('ours', functools.partial(scene.step, chunked), 1.0),
            SAMPLED: Contender('ours', functools.partial(scene.step, sampled)),
            SPARSE: Contender('ours', functools.partial(scene.step, sampled_sparse)),
        },
    )


def sampled(
    features: Tensor, weights: Tensor, target: Tensor, *, sparse_grad: bool = False
) -> Tensor:
    functional = importlib.import_module('mmloss_plugins.functional')
    classes, position = functional.sample_classes(target, len(weights), sample_rate=SHARE)
    rows = torch.nn.functional.embedding(classes, weights, sparse=sparse_grad)
    return ours(features, rows, position)


def sampled_sparse(features: Tensor, weights: Tensor, target: Tensor) -> Tensor:
    return sampled(features, weights, target, sparse_grad=True)
