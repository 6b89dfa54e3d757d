"""The losses that stand in for a host's class at a usual size, with a weight as heads pass it."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.harness import Contender, Row, Step
from benchmarks.rows.hosts import mmpose_losses

Loss = Callable[..., Tensor]
Inputs = tuple[Tensor, Tensor, Tensor]
MAPS = (32, 17, 64, 48)
BOXES = 65536


@dataclass(frozen=True)
class Pair:
    """Ours and the host's loss on the same inputs.

    Attributes:
        ours: name of our class and its options.
        peer: title and maker of the other loss.
        make: prediction, target and weight from a generator.
        agree: whether the two give one value, which is checked before anything is timed.
    """

    ours: tuple[str, dict[str, Any]]
    peer: tuple[str, Callable[[], Loss]]
    make: Callable[[torch.Generator], Inputs]
    agree: bool = True


def mmpose(name: str, **options: Any) -> tuple[str, Callable[[], Loss]]:
    def build() -> Loss:
        losses = mmpose_losses()
        module = importlib.import_module(f'{losses.__name__}.heatmap_loss')
        return getattr(module if hasattr(module, name) else losses, name)(**options)

    return f'MMPose {name}', build


def mmdet(name: str, **options: Any) -> tuple[str, Callable[[], Loss]]:
    def build() -> Loss:
        losses = importlib.import_module('mmdet.models.losses')
        return getattr(losses, name)(**options)

    return f'MMDet {name}', build


def soft_cross_entropy(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Return PyTorch's cross-entropy of flattened maps, a mean over batch and keypoints."""
    label = target.flatten(2)
    label = label / label.sum(-1, keepdim=True)
    loss = F.cross_entropy(logits.flatten(0, 1).flatten(1), label.flatten(0, 1), reduction='none')
    return (loss.view_as(weight) * weight).mean()


def pixel_cross_entropy(logits: Tensor, classes: Tensor, weight: Tensor) -> Tensor:
    return (F.cross_entropy(logits, classes, reduction='none') * weight).mean()


def maps(generator: torch.Generator, shape: tuple[int, ...] = MAPS) -> Inputs:
    weight = (torch.rand(shape[:2], generator=generator) < 0.85).float()
    target = torch.rand(shape, generator=generator) ** 8
    return torch.randn(shape, generator=generator), target, weight


def disks_and_offsets(generator: torch.Generator) -> Inputs:
    pred, target, weight = maps(generator, (32, 51, 45, 33))
    target[:, ::3] = (target[:, ::3] > 0.9).float()
    return pred, target, weight[:, ::3]


def pixel_classes(generator: torch.Generator) -> Inputs:
    batch, channels, height, width = (32, 18, 64, 48)
    logits = torch.randn(batch, channels, height, width, generator=generator)
    classes = torch.randint(channels, (batch, height, width), generator=generator)
    return logits, classes, torch.ones(batch, height, width)


def coordinates(generator: torch.Generator) -> Inputs:
    pred, target = 20 * torch.rand(2, 256, 98, 2, generator=generator)
    return pred, target, (torch.rand(256, 98, 1, generator=generator) < 0.85).float()


def box_pairs(generator: torch.Generator) -> Inputs:
    low = 100 * torch.rand(2, BOXES, 2, generator=generator)
    pred, target = torch.cat([low, low + 50 * torch.rand(2, BOXES, 2, generator=generator)], -1)
    return pred, target, torch.ones(BOXES)


def coordinate_weights(generator: torch.Generator) -> Inputs:
    pred, target, _ = box_pairs(generator)
    return pred, target, torch.ones(BOXES, 4)


PAIRS = {
    'heatmap_mse': Pair(
        ('HeatmapMSELoss', {'scale': 'mmpose'}),
        mmpose('KeypointMSELoss', use_target_weight=True),
        maps,
    ),
    'spatial_softmax': Pair(
        ('SpatialSoftmaxCELoss', {}),
        ('torch cross_entropy', lambda: soft_cross_entropy),
        maps,
    ),
    'pixel_softmax': Pair(
        ('PixelSoftmaxCELoss', {}),
        ('torch cross_entropy', lambda: pixel_cross_entropy),
        pixel_classes,
    ),
    'adaptive_wing': Pair(
        ('AdaptiveWingLoss', {'foreground_weight': 0.0}),
        mmpose('AdaptiveWingLoss'),
        functools.partial(maps, shape=(8, 98, 64, 64)),
        agree=False,  # MMPose weights inside the logarithm
    ),
    'offset_heatmap': Pair(
        ('OffsetHeatmapLoss', {'order': 'interleaved'}),
        mmpose('CombinedTargetMSELoss', use_target_weight=True),
        disks_and_offsets,
        agree=False,  # another loss: squares on the whole map
    ),
    'wing': Pair(
        ('WingLoss', {'scale': 1}),
        mmpose('WingLoss', use_target_weight=True),
        coordinates,
    ),
    'l1': Pair(('L1Loss', {}), mmdet('L1Loss'), coordinate_weights),
    'smooth_l1': Pair(('SmoothL1Loss', {}), mmdet('SmoothL1Loss'), coordinate_weights),
    'mse': Pair(('MSELoss', {}), mmdet('MSELoss'), coordinate_weights),
    'iou': Pair(('IoULoss', {'mode': 'linear'}), mmdet('IoULoss', mode='linear'), box_pairs),
    'giou': Pair(('GIoULoss', {}), mmdet('GIoULoss'), box_pairs),
    'diou': Pair(('DIoULoss', {}), mmdet('DIoULoss'), box_pairs),
    'ciou': Pair(
        ('CIoULoss', {}),
        mmdet('CIoULoss'),
        box_pairs,
        agree=False,  # MMDet leaves the term of the shape out below an IoU of .5
    ),
    'dice': Pair(
        ('DiceLoss', {'ratio_over': 'sample', 'power': 2}),
        mmdet('DiceLoss'),
        lambda generator: (*maps(generator, (16, 1, 256, 256))[:2], torch.ones(16)),
        agree=False,  # other smoothing
    ),
}


def make_rows(device: torch.device, seed: int) -> list[Row]:
    """Return one row for each pair, float32, ours eager against the other eager."""
    return [pair_row(name, pair, device, seed) for name, pair in PAIRS.items()]


def pair_row(name: str, pair: Pair, device: torch.device, seed: int) -> Row:
    """Return the row of one pair."""
    batch = LazyBatch(pair, device, seed)
    cls, options = pair.ours
    title, build = pair.peer
    factor = 1.0 if pair.agree else None
    return Row(
        name=name,
        title=f'{cls} against {title}',
        device=device,
        contenders={
            'ours, eager': Contender('ours', lambda: batch.step(our_loss(cls, options)), factor),
            title: Contender('peer', lambda: batch.step(build()), factor),
            'floor: clone of the prediction': Contender('floor', batch.floor),
        },
    )


def our_loss(name: str, options: dict[str, Any]) -> Loss:
    losses = importlib.import_module('mmloss_plugins.losses')
    loss: Loss = getattr(losses, name)(**options)
    return loss


class LazyBatch:
    """Inputs of one pair, made on first use and shared by the contenders."""

    def __init__(self, pair: Pair, device: torch.device, seed: int) -> None:
        self.pair, self.device, self.seed = pair, device, seed

    @functools.cached_property
    def tensors(self) -> Inputs:
        made = self.pair.make(torch.Generator().manual_seed(self.seed))
        pred, target, weight = (tensor.to(self.device) for tensor in made)
        return pred.requires_grad_(), target, weight

    def step(self, loss: Loss) -> Step:
        pred, target, weight = self.tensors

        def drop_gradient() -> None:
            pred.grad = None

        return Step(
            forward=lambda: loss(pred, target, weight),
            backward=lambda value: value.backward(),
            reset=drop_gradient,
        )

    def floor(self) -> Step:
        pred = self.tensors[0].detach()
        return Step(forward=pred.clone)
