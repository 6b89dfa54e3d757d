"""SimCC: KLDiscretLoss forward and backward, and the codec's encode and decode."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.harness import Bar, Contender, Row, Step
from benchmarks.rows.hosts import mmpose_losses

SPLIT_RATIO = 2
VISIBLE = 0.85
SAMPLES = 16


class Sizes(NamedTuple):
    """Batch, keypoints and input size (width, height) in px."""

    batch: int
    keypoints: int
    input_size: tuple[int, int]

    def __str__(self) -> str:
        shapes = [(self.batch, self.keypoints, SPLIT_RATIO * size) for size in self.input_size]
        return ' + '.join(str(shape) for shape in shapes)


COCO = Sizes(64, 17, (192, 256))
WHOLEBODY = Sizes(256, 133, (192, 256))


def make_rows(device: torch.device, seed: int) -> list[Row]:
    """Return the rows of this family; half precision and the large batch on a GPU only."""
    if device.type != 'cuda':
        return [
            loss_row('kl_discret', COCO, torch.float32, device, seed),
            encode_row(COCO, seed),
            decode_row(COCO, seed),
        ]
    dtypes = (torch.float32, torch.float16, torch.bfloat16)
    sizes = {'kl_discret': COCO, 'kl_discret_wholebody': WHOLEBODY}
    return [
        loss_row(name, size, dtype, device, seed)
        for name, size in sizes.items()
        for dtype in dtypes
    ]


def loss_row(name: str, sizes: Sizes, dtype: torch.dtype, device: torch.device, seed: int) -> Row:
    """Return the row of the loss; half precision as under autocast: logits half, labels float32."""
    short = str(dtype).removeprefix('torch.')
    batch = LazyBatch(sizes, dtype, device, seed)
    # MMPose's value is the batch size times the authors'.
    mmpose = float(sizes.batch)
    return Row(
        name=f'{name}_{short}',
        title=f'KLDiscretLoss, {sizes}, {short}',
        device=device,
        contenders={
            'ours, eager': Contender('ours', lambda: batch.step(our_loss(False)), 1.0),
            'ours, compiled': Contender('ours', lambda: batch.step(our_loss(True)), 1.0),
            'MMPose, eager': Contender('peer', lambda: batch.step(mmpose_loss()), mmpose),
            'MMPose, compiled': Contender(
                'peer', lambda: batch.step(torch.compile(mmpose_loss())), mmpose
            ),
            "authors' loop over joints": Contender('peer', lambda: batch.step(PerJointKL()), 1.0),
            'floor: clones': Contender('floor', batch.floor),
        },
        bars=[
            Bar('ours, eager', 'MMPose, eager', 1.0),
            Bar('ours, eager', "authors' loop over joints", 8.0),
            Bar('ours, compiled', 'MMPose, eager', 5.0),
        ],
    )


def our_loss(compiled: bool) -> nn.Module:
    from mmloss_plugins.losses import KLDiscretLoss

    return KLDiscretLoss(compile=compiled)


def mmpose_loss() -> nn.Module:
    loss: nn.Module = mmpose_losses().KLDiscretLoss()
    return loss


class PerJointKL(nn.Module):
    """The SimCC authors' loss as they compute it: one term per joint and axis, 2 K in all.

    Written from its definition: KL divergence of the label from the softmax, mean over the bins,
    times the weight of the joint, mean over the batch; the sum of the terms is divided by K.
    """

    def forward(self, pred: Sequence[Tensor], target: Sequence[Tensor], weight: Tensor) -> Tensor:
        keypoints = weight.shape[1]
        terms = []
        for joint, (logits, labels) in itertools.product(range(keypoints), zip(pred, target)):
            log_p = F.log_softmax(logits[:, joint], dim=1)
            divergence = F.kl_div(log_p, labels[:, joint], reduction='none').mean(dim=1)
            terms.append((divergence * weight[:, joint]).mean())
        return sum(terms[1:], terms[0]) / keypoints


class LazyBatch:
    """Logits, labels and weights of one batch, made on first use and shared by the contenders."""

    def __init__(self, sizes: Sizes, dtype: torch.dtype, device: torch.device, seed: int) -> None:
        self.sizes, self.dtype, self.device, self.seed = sizes, dtype, device, seed
        self._tensors: tuple[list[Tensor], list[Tensor], Tensor] | None = None

    @property
    def tensors(self) -> tuple[list[Tensor], list[Tensor], Tensor]:
        if self._tensors is None:
            self._tensors = self._make()
        return self._tensors

    def step(self, loss: Callable[..., Tensor]) -> Step:
        """Return the step of a loss that is called as the heads call it."""
        pred, target, weight = self.tensors
        return Step(
            forward=self._under_autocast(lambda: loss(pred, target, weight)),
            backward=lambda value: value.backward(),
            reset=self._drop_gradients,
        )

    def floor(self) -> Step:
        """Return the step that reads and writes what any implementation has to, by clones.

        Forward: the logits and the labels; backward: as much as the gradient.
        """
        pred, target, _ = self.tensors
        logits = [axis.detach() for axis in pred]
        return Step(
            forward=lambda: clone_all([*logits, *target]),
            backward=lambda _: clone_all(logits),
        )

    def _make(self) -> tuple[list[Tensor], list[Tensor], Tensor]:
        rng = np.random.default_rng(self.seed)
        codec = our_codec(self.sizes)
        encoded = [codec.encode(*draw_keypoints(rng, self.sizes)) for _ in range(self.sizes.batch)]
        target = [self._stack(encoded, key) for key in ('keypoint_x_labels', 'keypoint_y_labels')]
        generator = torch.Generator().manual_seed(self.seed)
        pred = [
            (3 * torch.randn(labels.shape, generator=generator))
            .to(self.device, self.dtype)
            .requires_grad_()
            for labels in target
        ]
        return pred, target, self._stack(encoded, 'keypoint_weights')

    def _stack(self, encoded: Sequence[dict[str, Any]], key: str) -> Tensor:
        stacked = np.concatenate([sample[key] for sample in encoded])
        return torch.from_numpy(stacked).to(self.device)

    def _under_autocast(self, forward: Callable[[], Tensor]) -> Callable[[], Tensor]:
        if self.dtype == torch.float32:
            return forward

        def cast() -> Tensor:
            with torch.autocast(self.device.type, self.dtype):
                return forward()

        return cast

    def _drop_gradients(self) -> None:
        for axis in self.tensors[0]:
            axis.grad = None


def clone_all(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.clone() for tensor in tensors]


def encode_row(sizes: Sizes, seed: int) -> Row:
    """Return the row of ``encode``, one sample (1, K, 2) per call as in a data pipeline."""
    rng = np.random.default_rng(seed)
    points = [draw_keypoints(rng, sizes)[0] for _ in range(SAMPLES)]
    visible = np.ones((1, sizes.keypoints), dtype=np.float32)

    def step(codec: Any) -> Step:
        sample = itertools.cycle(points)
        return numpy_step(lambda: codec.encode(next(sample), visible))

    def floor() -> Step:
        labels = our_codec(sizes).encode(points[0], visible)
        return numpy_step(lambda: [array.copy() for array in labels.values()])

    return Row(
        name='encode',
        title=f'SimCCLabel.encode, (1, {sizes.keypoints}, 2), input {sizes.input_size}',
        device=torch.device('cpu'),
        contenders={
            'ours': Contender('ours', lambda: step(our_codec(sizes))),
            'MMPose': Contender('peer', lambda: step(mmpose_codec(sizes))),
            'floor: copies of the labels': Contender('floor', floor),
        },
        bars=[Bar('ours', 'MMPose', 1.0)],
    )


def decode_row(sizes: Sizes, seed: int) -> Row:
    """Return the row of ``decode``: logits of a trained head for one sample.

    MMPose's decode takes the largest bin and its raw value; ours also finds the position between
    the bins and a probability ('expectation'), or the bin and the probability ('argmax').
    """
    rng = np.random.default_rng(seed)

    def step(make: Callable[[], Any]) -> Step:
        samples = itertools.cycle(list(draw_logits(rng, sizes)))
        codec = make()
        return numpy_step(lambda: codec.decode(*next(samples)))

    def floor() -> Step:
        logits = next(draw_logits(rng, sizes))
        return numpy_step(lambda: [array.copy() for array in logits])

    bins = [(sizes.keypoints, SPLIT_RATIO * size) for size in sizes.input_size]
    return Row(
        name='decode',
        title=f'SimCCLabel.decode, {bins[0]} + {bins[1]}',
        device=torch.device('cpu'),
        contenders={
            'ours, expectation': Contender('ours', lambda: step(lambda: our_codec(sizes))),
            'ours, argmax': Contender(
                'ours', lambda: step(lambda: our_codec(sizes, decode_mode='argmax'))
            ),
            'MMPose, argmax': Contender('peer', lambda: step(lambda: mmpose_codec(sizes))),
            'floor: copies of the logits': Contender('floor', floor),
        },
    )


def our_codec(sizes: Sizes, **options: Any) -> Any:
    from mmloss_plugins.codecs import SimCCLabel

    return SimCCLabel(sizes.input_size, simcc_split_ratio=SPLIT_RATIO, **options)


def mmpose_codec(sizes: Sizes) -> Any:
    codecs = importlib.import_module('mmpose.codecs')
    return codecs.SimCCLabel(sizes.input_size, simcc_split_ratio=SPLIT_RATIO)


def numpy_step(forward: Callable[[], Any]) -> Step:
    return Step(forward=forward, counts_numpy=True)


def draw_keypoints(rng: np.random.Generator, sizes: Sizes) -> tuple[np.ndarray, np.ndarray]:
    """Return keypoints (1, K, 2) in px inside the image and visibilities (1, K), some of them 0."""
    shape = (1, sizes.keypoints)
    points = rng.uniform((0, 0), sizes.input_size, (*shape, 2)).astype(np.float32)
    return points, (rng.random(shape) < VISIBLE).astype(np.float32)


def draw_logits(rng: np.random.Generator, sizes: Sizes) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield logits (K, Wx) and (K, Wy): the log of a label, as a trained head has it, and noise."""
    codec = our_codec(sizes)
    for _ in range(SAMPLES):
        encoded = codec.encode(draw_keypoints(rng, sizes)[0])
        labels = encoded['keypoint_x_labels'][0], encoded['keypoint_y_labels'][0]
        x, y = (
            np.log(axis + 1e-6) + rng.normal(0, 0.3, axis.shape).astype(np.float32)
            for axis in labels
        )
        yield x, y
