"""Focal losses: GaussianFocalLoss and SigmoidFocalLoss, forward and backward."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness import Bar, Contender, Row, Step

SHAPE = (8, 80, 128, 128)
OBJECTS = 128  # centres in a batch, one element in 82,000
Loss = Callable[[Tensor, Tensor], Tensor]


def make_rows(device: torch.device, seed: int) -> list[Row]:
    """Return the rows of this family; half precision on a GPU only."""
    dtypes = [torch.float32]
    if device.type == 'cuda':
        dtypes += [torch.float16, torch.bfloat16]
    return [
        focal_row(name, dtype, device, seed)
        for name in ('GaussianFocalLoss', 'SigmoidFocalLoss')
        for dtype in dtypes
    ]


def focal_row(name: str, dtype: torch.dtype, device: torch.device, seed: int) -> Row:
    """Return the row of one loss, called with ``avg_factor`` as MMDetection's heads call it."""
    short = str(dtype).removeprefix('torch.')
    batch = LazyBatch(name == 'SigmoidFocalLoss', dtype, device, seed)
    # In half precision MMDetection's value is another one, or NaN.
    peer = 1.0 if dtype == torch.float32 else None
    return Row(
        name=f'{name.removesuffix("FocalLoss").lower()}_{short}',
        title=f'{name}, {SHAPE}, {short}',
        device=device,
        contenders={
            'ours, eager': Contender('ours', lambda: batch.step(our_loss(name)), 1.0),
            'ours, compiled': Contender(
                'ours', lambda: batch.step(our_loss(name, compile=True)), 1.0
            ),
            'MMDet, eager': Contender('peer', lambda: batch.step(mmdet_loss(name)), peer),
            'MMDet, compiled': Contender(
                'peer', lambda: batch.step(torch.compile(mmdet_loss(name))), peer
            ),
            'floor: clone of the logits': Contender('floor', batch.floor),
        },
        bars=bars() if device.type == 'cpu' else (),
    )


def bars() -> list[Bar]:
    """Return the bars: 10 times as fast as MMDetection and at most 7 clones."""
    ours = ('ours, eager', 'ours, compiled')
    floor = 'floor: clone of the logits'
    return [
        *(Bar(name, 'MMDet, eager', 10.0) for name in ours),
        *(Bar(name, floor, 1 / 7) for name in ours),
    ]


def our_loss(name: str, **options: Any) -> Loss:
    losses = importlib.import_module('mmloss_plugins.losses')
    return functools.partial(getattr(losses, name)(**options), avg_factor=OBJECTS)


def mmdet_loss(name: str) -> Loss:
    """Return MMDetection's loss of logits; its heads apply the sigmoid of the Gaussian one."""
    losses = importlib.import_module('mmdet.models.losses')
    on_logits = name == 'SigmoidFocalLoss'
    loss = losses.FocalLoss() if on_logits else losses.GaussianFocalLoss()

    def of_logits(logits: Tensor, target: Tensor) -> Tensor:
        pred = logits if on_logits else logits.sigmoid()
        value: Tensor = loss(pred, target, avg_factor=OBJECTS)
        return value

    return of_logits


class LazyBatch:
    """Logits and targets of one batch, made on first use and shared by the contenders."""

    def __init__(self, hard: bool, dtype: torch.dtype, device: torch.device, seed: int) -> None:
        self.hard, self.dtype, self.device, self.seed = hard, dtype, device, seed

    @functools.cached_property
    def tensors(self) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(self.seed)
        logits = 2 * torch.randn(SHAPE, generator=generator) - 2
        # Most of a heatmap is far from every centre.
        target = torch.rand(SHAPE, generator=generator) ** 8
        target.view(-1)[:: target.numel() // OBJECTS] = 1
        if self.hard:
            target = target.floor()
        return logits.to(self.device, self.dtype).requires_grad_(), target.to(self.device)

    def step(self, loss: Loss) -> Step:
        logits, target = self.tensors

        def drop_gradient() -> None:
            logits.grad = None

        return Step(
            forward=lambda: loss(logits, target),
            backward=lambda value: value.backward(),
            reset=drop_gradient,
        )

    def floor(self) -> Step:
        logits = self.tensors[0].detach()
        return Step(forward=logits.clone)
