"""ArcFace and its cross-entropy, forward and backward, with many classes."""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.harness import Bar, Contender, Limit, Row, Step

SCALE, MARGIN = 64.0, 0.5
CHUNK = 4096
OURS, CHUNKED = 'ours', f'ours, chunks of {CHUNK} classes'
SOURCE = "source's formula"
INSIGHTFACE, METRIC_LEARNING = "insightface's formula", 'pytorch-metric-learning'
FLOOR = 'floor: the three matrix products'


class Sizes(NamedTuple):
    """Batch, length of an embedding, classes."""

    batch: int
    dims: int
    classes: int

    @property
    def weight_bytes(self) -> int:
        """Of the class weights in float32, and of their gradient."""
        return 4 * self.classes * self.dims


FACES, MILLION = Sizes(256, 512, 100_000), Sizes(128, 128, 1_000_000)
GIBIBYTE = 2**30


def make_rows(device: torch.device, seed: int) -> list[Row]:
    """Return the rows of this family."""
    return [arcface_row(FACES, device, seed), million_row(MILLION, device, seed)]


def arcface_row(sizes: Sizes, device: torch.device, seed: int) -> Row:
    """Return the row of all formulas."""
    scene = LazyScene(sizes, device, seed)
    return Row(
        name='arcface',
        title=title(sizes),
        device=device,
        contenders={
            OURS: Contender('ours', functools.partial(scene.step, ours), 1.0),
            CHUNKED: Contender('ours', functools.partial(scene.step, chunked), 1.0),
            'ours, logits': Contender('ours', functools.partial(scene.step, our_logits), 1.0),
            SOURCE: Contender('peer', functools.partial(scene.step, source), 1.0),
            INSIGHTFACE: Contender('peer', functools.partial(scene.step, insightface), 1.0),
            METRIC_LEARNING: Contender('peer', scene.metric_learning, 1.0),
            FLOOR: Contender('floor', scene.products),
        },
        bars=[
            Bar(OURS, SOURCE, 2.5),
            Bar(OURS, FLOOR, 1 / 1.5),
            Bar(CHUNKED, SOURCE, 8.0, of='memory'),
            Bar(CHUNKED, OURS, 1 / 1.3),
            *(
                Bar(OURS, peer, 1.0, of)
                for peer in (INSIGHTFACE, METRIC_LEARNING)
                for of in ('total', 'memory')
            ),
        ],
        result_bytes=sizes.weight_bytes,
    )


def million_row(sizes: Sizes, device: torch.device, seed: int) -> Row:
    """Return the row of more classes than fit as logits in most formulas."""
    scene = LazyScene(sizes, device, seed)
    return Row(
        name='million',
        title=title(sizes),
        device=device,
        contenders={
            CHUNKED: Contender('ours', functools.partial(scene.step, chunked), 1.0),
            FLOOR: Contender('floor', scene.products),
        },
        limits=[
            Limit(
                CHUNKED,
                '4 GiB with weights and gradient',
                4 * GIBIBYTE,
                sizes.weight_bytes + 4 * sizes.batch * sizes.dims,
            )
        ],
        result_bytes=sizes.weight_bytes,
    )


def title(sizes: Sizes) -> str:
    batch, dims, classes = sizes
    return (
        f'ArcFace and cross-entropy, features ({batch}, {dims}), {classes:,} classes, float32; '
        'memory beside the gradient of the weights'
    )


def ours(features: Tensor, weights: Tensor, target: Tensor, **options: Any) -> Tensor:
    functional = importlib.import_module('mmloss_plugins.functional')
    loss: Tensor = functional.margin_cross_entropy(features, weights, target, **options)
    return loss.mean()


def chunked(features: Tensor, weights: Tensor, target: Tensor) -> Tensor:
    return ours(features, weights, target, chunk_size=CHUNK)


def our_logits(features: Tensor, weights: Tensor, target: Tensor) -> Tensor:
    functional = importlib.import_module('mmloss_plugins.functional')
    return F.cross_entropy(functional.arcface_logits(features, weights, target), target)


def source(features: Tensor, weights: Tensor, target: Tensor) -> Tensor:
    """The formula of the write-up, which knows no rule beyond pi; here no angle is."""
    cosine = F.linear(F.normalize(features), F.normalize(weights)).clamp(-1, 1)
    floor = torch.full(cosine.shape, 1e-7, device=cosine.device)
    sine = torch.sqrt(torch.max(1.0 - torch.pow(cosine, 2), floor))
    phi = cosine * math.cos(MARGIN) - sine * math.sin(MARGIN)
    one_hot = torch.zeros_like(cosine).scatter_(1, target.view(-1, 1), 1)
    output = (one_hot * phi) + ((1.0 - one_hot) * cosine)
    return F.cross_entropy(output * SCALE, target)


def insightface(features: Tensor, weights: Tensor, target: Tensor) -> Tensor:
    """Arc cosine and cosine of all entries, without a gradient of their own."""
    logits = F.linear(F.normalize(features), F.normalize(weights)).clamp(-1, 1)
    index = torch.arange(len(target), device=target.device)
    with torch.no_grad():
        own = logits[index, target].arccos()
        logits.data.arccos_()
        logits.data[index, target] = own + MARGIN
        logits.data.cos_()
    return F.cross_entropy(logits * SCALE, target)


class LazyScene:
    """Features, weights and classes, made on first use and shared by the contenders."""

    def __init__(self, sizes: Sizes, device: torch.device, seed: int) -> None:
        self.sizes, self.device, self.seed = sizes, device, seed

    @functools.cached_property
    def leaves(self) -> tuple[Tensor, Tensor]:
        """Features, and weights as they are initialised; both require a gradient."""
        batch, dims, classes = self.sizes
        generator = torch.Generator().manual_seed(self.seed)
        features = torch.randn(batch, dims, generator=generator)
        weights = 0.01 * torch.randn(classes, dims, generator=generator)
        return (
            features.to(self.device).requires_grad_(),
            weights.to(self.device).requires_grad_(),
        )

    @functools.cached_property
    def target(self) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        found = torch.randint(self.sizes.classes, (self.sizes.batch,), generator=generator)
        return found.to(self.device)

    def step(self, loss: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Step:
        features, weights = self.leaves

        def drop_gradients() -> None:
            features.grad = weights.grad = None

        return Step(
            forward=lambda: loss(features, weights, self.target),
            backward=lambda value: value.backward(),
            reset=drop_gradients,
        )

    def metric_learning(self) -> Step:
        losses = importlib.import_module('pytorch_metric_learning.losses')
        features, weights = self.leaves
        _, dims, classes = self.sizes
        peer = losses.ArcFaceLoss(
            num_classes=classes, embedding_size=dims, margin=math.degrees(MARGIN), scale=SCALE
        )
        peer.W = torch.nn.Parameter(weights.detach().t().contiguous())

        def drop_gradients() -> None:
            features.grad = peer.W.grad = None

        return Step(
            forward=lambda: peer(features, self.target),
            backward=lambda value: value.backward(),
            reset=drop_gradients,
        )

    def products(self) -> Step:
        """Logits; from a gradient of their size those of features and weights."""
        features, weights = (leaf.detach() for leaf in self.leaves)
        return Step(
            forward=lambda: torch.mm(features, weights.t()),
            backward=lambda grad: (torch.mm(grad, weights), torch.mm(grad.t(), features)),
        )
