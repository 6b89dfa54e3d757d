"""Balanced BCE on a batch of DBNet: hard negative mining forward and backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.harness import Bar, Contender, Row, Step

SHAPE = (16, 1, 640, 640)
WORDS = 12  # per image, about 3 % of the pixels
WORD_HEIGHT, WORD_WIDTH = (8, 24), (24, 104)  # px


class Batch(NamedTuple):
    """Logits, targets and a mask of 0 and 1 that leaves some words out, as illegible ones are."""

    logits: Tensor
    target: Tensor
    mask: Tensor


def make_rows(device: torch.device, seed: int) -> list[Row]:
    """Return the row of this family."""
    batches: list[Batch] = []

    def batch() -> Batch:
        if not batches:
            batches.append(draw(seed, device))
        return batches[0]

    def step(loss: Callable[..., Tensor]) -> Step:
        logits, target, mask = batch()
        return Step(
            forward=lambda: loss(logits, target, mask=mask),
            backward=lambda value: value.backward(),
            reset=lambda: setattr(logits, 'grad', None),
        )

    def floor() -> Step:
        logits, target, mask = batch()
        given = [logits.detach(), target, mask]
        return Step(
            forward=lambda: [tensor.clone() for tensor in given],
            backward=lambda _: given[0].clone(),
        )

    return [
        Row(
            name='mining_float32',
            title=f'BalancedBCELoss, {SHAPE}, float32',
            device=device,
            contenders={
                'ours, eager': Contender('ours', lambda: step(our_loss()), 1.0),
                "MMOCR's formula, topk with a synced k": Contender(
                    'peer', lambda: step(mmocr_formula), 1.0
                ),
                'floor: clones': Contender('floor', floor),
            },
            bars=[Bar('ours, eager', "MMOCR's formula, topk with a synced k", 1.0)],
        )
    ]


def our_loss() -> nn.Module:
    from mmloss_plugins.losses import BalancedBCELoss

    return BalancedBCELoss()


def mmocr_formula(logits: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """MMOCR's masked balanced BCE, written from its definition.

    Its checks of the target's range are left out: two more passes and syncs.
    """
    positive = target * mask
    negative = (1 - target) * mask
    num_positives = int(positive.sum())
    num_negatives = min(int(negative.sum()), int(num_positives * 3.0))
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction='none')
    hardest, _ = torch.topk((loss * negative).view(-1), num_negatives)
    total = (loss * positive).sum() + hardest.sum()
    return total / (num_positives + num_negatives + 1e-6)


def draw(seed: int, device: torch.device) -> Batch:
    """Return boxes of text and logits that find them with noise."""
    generator = torch.Generator().manual_seed(seed)

    def between(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=generator))

    target, mask = torch.zeros(SHAPE), torch.ones(SHAPE)
    height, width = SHAPE[2:]
    for image, known in zip(target[:, 0], mask[:, 0]):
        for word in range(WORDS):
            h, w = between(*WORD_HEIGHT), between(*WORD_WIDTH)
            y, x = between(0, height - h), between(0, width - w)
            image[y : y + h, x : x + w] = 1
            known[y : y + h, x : x + w] = word > 0
    logits = 2 * torch.randn(SHAPE, generator=generator) + 5 * target - 4
    return Batch(logits.to(device).requires_grad_(), target.to(device), mask.to(device))
