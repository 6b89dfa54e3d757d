"""ExtremeNet: decoding of the five maps and suppression of ghost boxes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.harness import Bar, Contender, Row, Step

CLASSES, SIZE, TOP_K, NUM_DETS = 80, 128, 40, 1000
OBJECTS = 30
SCORE_THR = CENTER_THR = 0.1
SCORE = 4  # column of the score
BACKGROUND = 0.005
BOXES = 300
PRODUCT = 'product of all groups'
LOOPS = 'loop over all pairs'
Maps = tuple[Tensor, Tensor, Tensor]


def make_rows(device: torch.device, seed: int) -> list[Row]:
    """Return the rows of this family."""
    cases = {
        'decode_random': (draw_noise, 0.0),
        'decode_random_aggregated': (draw_noise, 0.1),
        'decode_objects': (draw_objects, 0.1),
    }
    rows = [decode_row(name, *case, device, seed) for name, case in cases.items()]
    return [*rows, ghost_row(device, seed)]


def decode_row(
    name: str,
    draw: Callable[[torch.Generator], Tensor],
    aggr_weight: float,
    device: torch.device,
    seed: int,
) -> Row:
    """Return the row of one kind of maps."""

    @functools.cache
    def maps() -> Maps:
        generator = torch.Generator().manual_seed(seed)
        probs = draw(generator)
        offsets = torch.rand(4, 1, 2, SIZE, SIZE, generator=generator)
        return probs[:4].to(device), probs[4].to(device), offsets.to(device)

    def step(decode: Callable[..., Tensor]) -> Step:
        extremes, center, offsets = maps()

        def forward() -> Tensor:
            found = decode(extremes, center, offsets, aggr_weight=aggr_weight)
            return found[..., SCORE].clamp(min=0).sum()

        return Step(forward=forward)

    def floor() -> Step:
        extremes, center, _ = maps()
        return Step(forward=lambda: (extremes.amax((-2, -1)), center.amax((-2, -1))))

    shape = (1, CLASSES, SIZE, SIZE)
    kind = 'random' if draw is draw_noise else f'{OBJECTS} objects'
    return Row(
        name=name,
        title=f'extreme_decode, {shape}, K = {TOP_K}, {kind}, aggregation {aggr_weight:g}',
        device=device,
        contenders={
            'ours': Contender('ours', lambda: step(our_decode()), 1.0),
            PRODUCT: Contender('peer', lambda: step(product_of_four), 1.0),
            'floor: the maximum of each map': Contender('floor', floor),
        },
        bars=[Bar('ours', PRODUCT, 5.0)] if device.type == 'cpu' else (),
    )


def our_decode() -> Callable[..., Tensor]:
    from mmloss_plugins.functional import extreme_decode

    return functools.partial(extreme_decode, top_k=TOP_K, num_dets=NUM_DETS)


def draw_noise(generator: torch.Generator) -> Tensor:
    """Return probabilities (5, 1, C, H, W), uniform."""
    return torch.rand(5, 1, CLASSES, SIZE, SIZE, generator=generator)


def draw_objects(
    generator: torch.Generator,
    shape: tuple[int, int, int, int] = (1, CLASSES, SIZE, SIZE),
    objects: int = OBJECTS,
    background: float = BACKGROUND,
) -> Tensor:
    """Return maps (5, B, C, H, W) as of a trained head: a Gaussian per point, low background."""
    batch, classes, height, width = shape
    maps = torch.rand(5, *shape, generator=generator) * background
    for image in range(batch):
        for _ in range(objects):
            label = int(torch.randint(classes, (), generator=generator))
            points = draw_points(generator, width, height)
            peaks = 0.3 + 0.6 * torch.rand(5, generator=generator)
            sigma = 1 + 2 * torch.rand((), generator=generator)
            for side, (x, y) in enumerate(points):
                bell = peaks[side] * _bell(height, y, sigma).view(-1, 1) * _bell(width, x, sigma)
                maps[side, image, label] = torch.maximum(maps[side, image, label], bell)
    return maps


def draw_points(generator: torch.Generator, width: int, height: int) -> Tensor:
    """Return the cells (5, 2) of top, left, bottom and right point and centre of an object."""
    size = torch.tensor((width, height))
    extent = (0.05 + 0.4 * torch.rand(2, generator=generator)) * size
    low = torch.rand(2, generator=generator) * (size - 1 - extent)
    high = low + extent
    at = low + torch.rand(4, 2, generator=generator) * extent
    at[0, 1], at[1, 0], at[2, 1], at[3, 0] = low[1], low[0], high[1], high[0]
    return torch.cat((at, (low + high)[None] / 2)).floor()


def _bell(size: int, middle: Tensor, sigma: Tensor) -> Tensor:
    return torch.exp(-((torch.arange(size) - middle) ** 2) / (2 * sigma**2))


def product_of_four(
    extremes: Tensor,
    center: Tensor,
    offsets: Tensor,
    *,
    aggr_weight: float,
    top_k: int = TOP_K,
    num_dets: int = NUM_DETS,
) -> Tensor:
    """Decode as the authors do: form all products of four peaks, test them, take the best.

    Written from the description: an edge is aggregated cell by cell, a failed test takes 1 off
    the score, and the tests are on tensors of K^4 elements.

    Args:
        extremes: (4, B, C, H, W), probabilities.
        center: (B, C, H, W).
        offsets: (4, B, 2, H, W).
        aggr_weight: of the aggregation.
        top_k: K.
        num_dets: number of rows.

    Returns:
        (B, num_dets, 14) as ``extreme_decode``, the end of it filled with groups that failed.
    """
    batch, _, height, width = center.shape
    lists = []
    for side, probs in enumerate(extremes):
        if aggr_weight:
            probs = probs + aggr_weight * walk_along_edges(probs, -1 if side % 2 == 0 else -2)
        peaks = probs * (F.max_pool2d(probs, 3, 1, 1) == probs)
        shape = [batch, 1, 1, 1, 1]
        shape[1 + side] = top_k
        every = (batch, *[top_k] * 4)
        lists.append([x.view(shape).expand(every) for x in best_peaks(peaks.clamp(max=1), top_k)])
    (ts, tc, ty, tx), (ls, lc, ly, lx), (bs, bc, by, bx), (rs, rc, ry, rx) = lists
    middle_x, middle_y = (lx + rx) // 2, (ty + by) // 2
    index = (tc * height + middle_y) * width + middle_x
    cs = center.flatten(1).gather(1, index.flatten(1)).view_as(ts)
    score = (ts + ls + bs + rs + 2 * cs) / 6
    low = (ts < SCORE_THR) | (ls < SCORE_THR) | (bs < SCORE_THR) | (rs < SCORE_THR)
    for failed in (
        (tc != lc) | (tc != bc) | (tc != rc),
        (ty > ly) | (ty > by) | (ty > ry),
        (lx > tx) | (lx > bx) | (lx > rx),
        (by < ty) | (by < ly) | (by < ry),
        (rx < tx) | (rx < lx) | (rx < bx),
        low | (cs < CENTER_THR),
    ):
        score = score - failed.to(score.dtype)
    best, chosen = score.flatten(1).topk(num_dets)
    places = []
    for side, (_, _, y, x) in enumerate(lists):
        cell = (y * width + x).flatten(1).gather(1, chosen)
        move = offsets[side].flatten(2).gather(2, cell.unsqueeze(1).expand(-1, 2, -1))
        places += [cell % width + move[:, 0], cell // width + move[:, 1]]
    label = tc.flatten(1).gather(1, chosen)
    box = [places[2], places[1], places[6], places[5]]
    return torch.stack([*box, best, *places, label], -1)


def best_peaks(peaks: Tensor, top_k: int) -> tuple[Tensor, ...]:
    """Return score, class, row and column of the largest values, each (B, K)."""
    width = peaks.shape[-1]
    score, cell = peaks.flatten(2).topk(top_k)
    score, chosen = score.flatten(1).topk(top_k)
    cell = cell.flatten(1).gather(1, chosen)
    return score, chosen // top_k, cell // width, cell % width


def walk_along_edges(probs: Tensor, axis: int) -> Tensor:
    """Return the sums over the cells that climb up to each one on both sides, one by one."""
    lines = probs.movedim(axis, 0).contiguous()
    total = torch.zeros_like(lines)
    for order in (range(len(lines)), range(len(lines) - 1, -1, -1)):
        climbed, previous = torch.zeros_like(lines[0]), None
        for cell in order:
            if previous is not None:
                climbed = (climbed + lines[previous]) * (lines[cell] >= lines[previous])
            total[cell] += climbed
            previous = cell
    return total.movedim(0, axis)


def ghost_row(device: torch.device, seed: int) -> Row:
    """Return the row of ghost suppression, the boxes of one image after soft-NMS."""

    @functools.cache
    def boxes() -> tuple[Tensor, Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        low = torch.rand(BOXES, 2, generator=generator) * 400
        size = 10 + torch.rand(BOXES, 2, generator=generator) ** 2 * 300
        scores = torch.rand(BOXES, generator=generator).sort(descending=True).values
        labels = torch.randint(3, (BOXES,), generator=generator)
        return torch.cat((low, low + size), 1).to(device), scores.to(device), labels.to(device)

    def ours() -> Step:
        from mmloss_plugins.functional import suppress_ghosts

        options: dict[str, Any] = dict(include_self=True, order='sequential')
        return Step(forward=lambda: suppress_ghosts(*boxes(), **options).sum())

    return Row(
        name='ghosts',
        title=f'suppress_ghosts, {BOXES} boxes',
        device=device,
        contenders={
            'ours': Contender('ours', ours, 1.0),
            LOOPS: Contender(
                'peer', lambda: Step(forward=lambda: loop_ghosts(*boxes()).sum()), 1.0
            ),
        },
    )


def loop_ghosts(boxes: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
    """Weaken ghosts one after another, as the authors' test code does."""
    corners, weakened = boxes.tolist(), scores.tolist()
    classes = labels.tolist()
    for i, (x1, y1, x2, y2) in enumerate(corners):
        if weakened[i] <= 0.2:
            continue
        mass = 0.0
        for j, (a1, b1, a2, b2) in enumerate(corners):
            inside = a1 >= x1 and b1 >= y1 and a2 <= x2 and b2 <= y2
            if inside and classes[i] == classes[j]:
                mass += weakened[j]
        if mass > 3 * weakened[i]:
            weakened[i] /= 2
    return scores.new_tensor(weakened)
