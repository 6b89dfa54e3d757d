"""From disks and offsets to positions, for a batch at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from mmloss_plugins import functional as F

from ._offset_grid import Grid


def vote_positions(
    probs: Tensor, offsets: Tensor, grid: Grid, radius_px: float, min_vote: float
) -> tuple[Tensor, Tensor]:
    """Return positions in px, (B, K, 2), and the fused activation there, (B, K).

    Args:
        probs: probabilities of the disks, (B, K, H, W).
        offsets: from the cell centres to the keypoints, (B, K, 2, H, W), px.
        grid: of the cells.
        radius_px: of the disks.
        min_vote: as in :func:`functional.hough_vote`.
    """
    width, height = grid.step.tolist()
    fused = F.hough_vote(probs, offsets, cell_size=(width, height), min_vote=min_vote)
    cells, votes = F.vote_peaks(fused)
    positions = cells * _on(probs, grid.step) + _on(probs, grid.origin)
    expected = cells_in_disk(positions, grid, radius_px)
    return positions, (votes / expected.clamp(min=1)).clamp(max=1)


def cells_in_disk(positions: Tensor, grid: Grid, radius_px: float) -> Tensor:
    """Return how many cells of the map lie within ``radius_px`` of ``positions``, (B, K).

    Inside the map about pi R^2 px of area, as in the paper; near a border fewer. Counted chord by
    chord, one for each row of cells.
    """
    rows = torch.arange(int(grid.size[1]), device=positions.device)
    distance = rows * grid.step[1] + grid.origin[1] - positions[..., 1:]
    chord = (radius_px**2 - distance.square()).clamp(min=0).sqrt()
    middle = positions[..., :1] - grid.origin[0]
    last = ((middle + chord) / grid.step[0]).floor().clamp(max=int(grid.size[0]) - 1)
    first = ((middle - chord) / grid.step[0]).ceil().clamp(min=0)
    cells = (last - first + 1).clamp(min=0) * (distance.abs() <= radius_px)
    return cells.sum(-1)


def peak_positions(probs: Tensor, offsets: Tensor | None, grid: Grid) -> tuple[Tensor, Tensor]:
    """Return the most probable cell, plus its offset if given, in px, and its probability."""
    flat = probs.flatten(-2)
    # argmax and not max, which CUDA computes at half the speed where the index is needed too.
    index = flat.argmax(-1, keepdim=True)
    columns = probs.shape[-1]
    y = torch.div(index, columns, rounding_mode='floor')
    cells = torch.cat((index.remainder(columns), y), -1)
    positions = cells * _on(probs, grid.step) + _on(probs, grid.origin)
    if offsets is not None:
        at_peak = index.unsqueeze(-2).expand(-1, -1, 2, -1)
        positions = positions + offsets.flatten(-2).gather(-1, at_peak).squeeze(-1)
    return positions, flat.gather(-1, index).squeeze(-1)


def limit(positions: Tensor, grid: Grid) -> Tensor:
    """Move positions outside the image to its border; NaN stays."""
    return positions.clamp(_on(positions, grid.low), _on(positions, grid.high))


def _on(like: Tensor, values: object) -> Tensor:
    return torch.as_tensor(values, dtype=like.dtype, device=like.device)
