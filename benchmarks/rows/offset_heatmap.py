"""G-RMI: the codec's encode beside MMPose's combined targets, and Hough voting beside loops."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.harness import Bar, Contender, Row, Step

INPUT_SIZE, HEATMAP_SIZE, STRIDE, RADIUS_PX = (257, 353), (33, 45), 8, 25.0
BATCH, KEYPOINTS = 32, 17
SAMPLES = 16
VISIBLE = 0.85


def make_rows(device: torch.device, seed: int) -> list[Row]:
    """Return the rows of this family: encode on a CPU only, decode where the maps are."""
    vote = vote_row(device, seed)
    return [vote] if device.type == 'cuda' else [encode_row(seed), vote]


def encode_row(seed: int) -> Row:
    """Return the row of ``encode``, one sample (1, K, 2) per call as in a data pipeline."""
    rng = np.random.default_rng(seed)
    shape = (SAMPLES, 1, KEYPOINTS)
    points = rng.uniform((0, 0), INPUT_SIZE, (*shape, 2)).astype(np.float32)
    visible = (rng.random(shape) < VISIBLE).astype(np.float32)

    def step(codec: Any) -> Step:
        sample = itertools.cycle(list(zip(points, visible)))
        return Step(forward=lambda: codec.encode(*next(sample)), counts_numpy=True)

    def floor() -> Step:
        maps = our_codec().encode(points[0], visible[0])['heatmaps']
        return Step(forward=maps.copy, counts_numpy=True)

    return Row(
        name='encode',
        title=f'OffsetHeatmap.encode, (1, {KEYPOINTS}, 2), input {INPUT_SIZE}, map {HEATMAP_SIZE}',
        device=torch.device('cpu'),
        contenders={
            'ours': Contender('ours', lambda: step(our_codec())),
            'MMPose, UDP combined': Contender('peer', lambda: step(mmpose_codec())),
            'floor: copy of the maps': Contender('floor', floor),
        },
        bars=[Bar('ours', 'MMPose, UDP combined', 1.0)],
    )


def vote_row(device: torch.device, seed: int) -> Row:
    """Return the row of decoding a batch of maps by Hough voting, from logits to px.

    Contenders with a factor are checked for the same mean position before they are timed.
    """
    maps = draw_maps(device, seed)

    def ours(factor: float | None = 1.0, **options: Any) -> Contender:
        codec = our_codec(**options)
        return Contender('ours', lambda: decode_step(codec.batch_decode, maps), factor)

    contenders = {
        'ours, votes from 1 %': ours(),
        'ours, all votes': ours(min_vote=0.0),
        'ours, argmax + offset': ours(factor=None, decode_mode='argmax'),
        'loop over keypoints, torch': Contender('peer', lambda: decode_step(torch_loop, maps), 1.0),
    }
    bars = [Bar('ours, votes from 1 %', 'loop over keypoints, torch', 10.0)]
    if device.type == 'cpu':
        arrays = maps.numpy()
        contenders.update(
            {
                'loop over keypoints, NumPy': Contender(
                    'peer', lambda: decode_step(numpy_loop, arrays, counts_numpy=True), 1.0
                ),
                'MMPose, UDP combined, argmax + offset': Contender(
                    'peer', lambda: mmpose_decode_step(arrays)
                ),
            }
        )
        bars.append(Bar('ours, votes from 1 %', 'loop over keypoints, NumPy', 10.0))
    contenders['floor: clone of the maps'] = Contender('floor', lambda: Step(forward=maps.clone))
    shape = (BATCH, KEYPOINTS, *HEATMAP_SIZE[::-1])
    return Row('hough', f'OffsetHeatmap.batch_decode, {shape}', device, contenders, bars)


def decode_step(
    decode: Callable[[Any], tuple[Any, Any]], maps: Any, counts_numpy: bool = False
) -> Step:
    """Return the step of a decoder, which hands over the mean of its positions."""
    return Step(
        forward=lambda: float(np.mean(np.asarray(decode(maps)[0]))), counts_numpy=counts_numpy
    )


def mmpose_decode_step(arrays: np.ndarray) -> Step:
    """Return the step of MMPose's codec, one sample at a time, on maps of its order and units."""
    disks, x, y = np.split(arrays, 3, axis=1)
    radius = RADIUS_PX / STRIDE
    mixed = np.stack((disks, x / STRIDE / radius, y / STRIDE / radius), 2)
    mixed = np.ascontiguousarray(mixed.reshape(arrays.shape))
    codec = mmpose_codec()
    return Step(forward=lambda: [codec.decode(sample) for sample in mixed], counts_numpy=True)


def our_codec(**options: Any) -> Any:
    from mmloss_plugins.codecs import OffsetHeatmap

    return OffsetHeatmap(INPUT_SIZE, HEATMAP_SIZE, RADIUS_PX, **options)


def mmpose_codec() -> Any:
    codecs = importlib.import_module('mmpose.codecs')
    factor = RADIUS_PX / STRIDE / max(HEATMAP_SIZE)
    return codecs.UDPHeatmap(
        INPUT_SIZE, HEATMAP_SIZE, heatmap_type='combined', radius_factor=factor
    )


def draw_maps(device: torch.device, seed: int) -> Tensor:
    """Return logits and offsets (B, 3K, H, W) as of a trained head: soft disks, noisy offsets."""
    generator = torch.Generator().manual_seed(seed)
    width, height = HEATMAP_SIZE
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing='ij')
    cells = torch.stack((x, y)) * float(STRIDE)
    points = torch.rand(BATCH, KEYPOINTS, 2, generator=generator) * (torch.tensor(INPUT_SIZE) - 1)
    offsets = points[..., None, None] - cells
    distance = offsets.square().sum(2).sqrt()
    # A slope of a few px at the rim, and -7 (1 in 1,000) far from it.
    logits = ((RADIUS_PX - distance) / 4).clamp(min=-7, max=5)
    logits += 0.3 * torch.randn(logits.shape, generator=generator)
    offsets = offsets + torch.randn(offsets.shape, generator=generator)
    return torch.cat((logits, offsets[:, :, 0], offsets[:, :, 1]), 1).to(device)


def torch_loop(maps: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The paper's sum over the cells, one keypoint at a time, in operators on its map."""
    keypoints = maps.shape[1] // 3
    results = [
        torch_vote(sample[k], sample[keypoints + k], sample[2 * keypoints + k])
        for sample in maps
        for k in range(keypoints)
    ]
    results = torch.stack(results).cpu().numpy()
    return results[:, :2], results[:, 2]


def torch_vote(logits: Tensor, offset_x: Tensor, offset_y: Tensor) -> Tensor:
    """Return x, y in px and the score of one keypoint from maps (H, W)."""
    height, width = logits.shape
    rows = torch.arange(height, device=logits.device).view(-1, 1)
    x = torch.arange(width, device=logits.device) + 1 + offset_x / STRIDE
    y = rows + 1 + offset_y / STRIDE
    inside = (x >= 0) & (x < width + 1) & (y >= 0) & (y < height + 1)
    x, y, h = x[inside], y[inside], logits.sigmoid()[inside]
    left, top = x.long(), y.long()
    x, y = x - left, y - top
    score = torch.zeros((height + 2) * (width + 2), device=logits.device)
    start = top * (width + 2) + left
    score.index_add_(0, start, h * (1 - x) * (1 - y))
    score.index_add_(0, start + 1, h * x * (1 - y))
    score.index_add_(0, start + width + 2, h * (1 - x) * y)
    score.index_add_(0, start + width + 3, h * x * y)
    score = score.view(height + 2, width + 2)
    peak = score.argmax()
    row = (peak // (width + 2)).clamp(1, height)
    column = (peak % (width + 2)).clamp(1, width)
    around = torch.arange(-1, 2, device=logits.device)
    window = score[(row + around).view(-1, 1), column + around]
    total = window.sum()
    found_x = column - 1 + (window.sum(0) * around).sum() / total
    found_y = row - 1 + (window.sum(1) * around).sum() / total
    area = np.pi * (RADIUS_PX / STRIDE) ** 2
    return torch.stack((found_x * STRIDE, found_y * STRIDE, total / area))


def numpy_loop(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same in NumPy, with ``bincount``, its fastest way to add up at indices."""
    keypoints = maps.shape[1] // 3
    results = np.array(
        [
            numpy_vote(sample[k], sample[keypoints + k], sample[2 * keypoints + k])
            for sample in maps
            for k in range(keypoints)
        ]
    )
    return results[:, :2], results[:, 2]


def numpy_vote(
    logits: np.ndarray, offset_x: np.ndarray, offset_y: np.ndarray
) -> tuple[float, float, float]:
    """Return x, y in px and the score of one keypoint from maps (H, W)."""
    height, width = logits.shape
    x = np.arange(width, dtype=np.float32) + 1 + offset_x / STRIDE
    y = np.arange(height, dtype=np.float32)[:, None] + 1 + offset_y / STRIDE
    inside = (x >= 0) & (x < width + 1) & (y >= 0) & (y < height + 1)
    h = (1 / (1 + np.exp(-logits)))[inside]
    x, y = x[inside], y[inside]
    left, top = x.astype(int), y.astype(int)
    x, y = x - left, y - top
    start, size = top * (width + 2) + left, (height + 2) * (width + 2)
    score = np.bincount(start, h * (1 - x) * (1 - y), size)
    score += np.bincount(start + 1, h * x * (1 - y), size)
    score += np.bincount(start + width + 2, h * (1 - x) * y, size)
    score += np.bincount(start + width + 3, h * x * y, size)
    row, column = divmod(int(score.argmax()), width + 2)
    row, column = min(max(row, 1), height), min(max(column, 1), width)
    window = score.reshape(height + 2, width + 2)[row - 1 : row + 2, column - 1 : column + 2]
    total, around = window.sum(), np.arange(-1, 2)
    found_x = column - 1 + window.sum(0) @ around / total
    found_y = row - 1 + window.sum(1) @ around / total
    area = np.pi * (RADIUS_PX / STRIDE) ** 2
    return found_x * STRIDE, found_y * STRIDE, total / area
