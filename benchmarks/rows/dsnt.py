"""DSNT from logits to loss: softmax, mean, distance and JS regulariser, forward and backward."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.harness import Bar, Contender, Row, Step

SHAPES = {
    'map64': (64, 17, 64, 64),
    'map7': (64, 17, 7, 7),
    'solid32': (8, 17, 32, 32, 32),
}
SIGMA_PX = 1.0
# Times dsntnn: (eager, compiled).
BARS = {'map64': (2.0, 2.5), 'map7': (2.0, 2.5), 'solid32': (3.0, 3.0)}
Loss = Callable[[Tensor], Tensor]


def make_rows(device: torch.device, seed: int) -> list[Row]:
    """Return the rows of this family; MMPose's head knows flat maps alone."""
    return [dsnt_row(name, device, seed) for name in SHAPES]


def dsnt_row(name: str, device: torch.device, seed: int) -> Row:
    """Return the row of one shape of maps."""
    batch = LazyBatch(SHAPES[name], device, seed)
    contenders = {
        'ours, eager': Contender('ours', lambda: batch.step(batch.ours), 1.0),
        'ours, compiled': Contender('ours', lambda: batch.step(torch.compile(batch.ours)), 1.0),
        'dsntnn, eager': Contender('peer', lambda: batch.step(batch.dsntnn()), 1.0),
        'dsntnn, compiled': Contender(
            'peer', lambda: batch.step(torch.compile(batch.dsntnn())), 1.0
        ),
    }
    if len(SHAPES[name]) == 4:
        contenders['MMPose, eager'] = Contender('peer', lambda: batch.step(batch.mmpose()))
    contenders['floor: clone of the logits'] = Contender('floor', batch.floor)
    eager, compiled = BARS[name]
    bars = (
        Bar('ours, eager', 'dsntnn, eager', eager),
        Bar('ours, compiled', 'dsntnn, eager', compiled),
    )
    return Row(
        name=name,
        title=f'DSNT with JS from logits, {SHAPES[name]}',
        device=device,
        contenders=contenders,
        bars=bars if device.type == 'cpu' else (),
    )


class LazyBatch:
    """Logits and labels of one batch, made on first use and shared by the contenders."""

    def __init__(self, shape: tuple[int, ...], device: torch.device, seed: int) -> None:
        self.shape, self.device, self.seed = shape, device, seed

    @functools.cached_property
    def tensors(self) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(self.seed)
        logits = 3 * torch.randn(self.shape, generator=generator)
        points = (*self.shape[:2], len(self.shape) - 2)
        target = 1.6 * torch.rand(points, generator=generator) - 0.8
        return logits.to(self.device).requires_grad_(), target.to(self.device)

    def ours(self, logits: Tensor) -> Tensor:
        functional = importlib.import_module('mmloss_plugins.functional')
        target = self.tensors[1]
        heatmap = functional.normalize_heatmap(logits)
        distance = functional.euclidean_loss(functional.dsnt(heatmap), target)
        loss: Tensor = distance + functional.heatmap_js(heatmap, target, sigma_px=SIGMA_PX)
        return loss.mean()

    def dsntnn(self) -> Loss:
        """Return the author's losses as their README composes them."""
        dsntnn, target = importlib.import_module('dsntnn'), self.tensors[1]

        def loss(logits: Tensor) -> Tensor:
            heatmap = dsntnn.flat_softmax(logits)
            distance = dsntnn.euclidean_losses(dsntnn.dsnt(heatmap), target)
            shape = dsntnn.js_reg_losses(heatmap, target, SIGMA_PX)
            value: Tensor = dsntnn.average_loss(distance + shape)
            return value

        return loss

    def mmpose(self) -> Loss:
        """Return MMPose's head without layers and its default losses; the Gaussians are given.

        Its coordinates are in [0, 1) and its JS is a sum over keypoints: another value.
        """
        heads = importlib.import_module('mmpose.models.heads')
        dsntnn = importlib.import_module('dsntnn')
        keypoints, height, width = self.shape[1:]
        head = heads.DSNTHead(
            keypoints, (width, height), keypoints, deconv_out_channels=None, final_layer=None
        ).to(self.device)
        gaussians = dsntnn.make_gauss(self.tensors[1], (height, width), SIGMA_PX)
        target = (self.tensors[1] + 1) / 2
        weight = torch.ones(self.shape[:2], device=self.device)

        def loss(logits: Tensor) -> Tensor:
            values = head.loss_module(list(head.forward((logits,))), [target, gaussians], weight)
            total: Tensor = values[0] + values[1]
            return total

        return loss

    def step(self, loss: Loss) -> Step:
        logits = self.tensors[0]

        def drop_gradient() -> None:
            logits.grad = None

        return Step(
            forward=lambda: loss(logits),
            backward=lambda value: value.backward(),
            reset=drop_gradient,
        )

    def floor(self) -> Step:
        return Step(forward=self.tensors[0].detach().clone)
