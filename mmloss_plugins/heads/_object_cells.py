"""Branches of a head in the cells of objects alone: all that a loss of offsets and sizes reads."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d


def at_cells(branch: nn.Sequential, feature: Tensor, cells: Tensor) -> Tensor:
    """Return what a branch gives in the cells (B, N) of a map, as a map (B, channels, 1, N)."""
    first = branch[0]
    return branch[1:](conv2d(_tiles(feature, cells), first.weight, first.bias, stride=3))


def _tiles(feature: Tensor, cells: Tensor) -> Tensor:
    """Return the 3x3 cells around each of (B, N), side by side: (B, C, 3, 3N), 0 outside."""
    channels, height, width = feature.shape[1:]
    around = torch.arange(-1, 2, device=cells.device)
    row = ((cells // width).unsqueeze(-1) + around).transpose(1, 2).repeat_interleave(3, 2)
    column = ((cells % width).unsqueeze(-1) + around).flatten(1).unsqueeze(1)
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    index = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
    found = feature.flatten(2).gather(2, index.flatten(1).unsqueeze(1).expand(-1, channels, -1))
    return torch.where(inside.unsqueeze(1), found.unflatten(2, index.shape[1:]), 0)


def numbered(cell_index: Tensor) -> Tensor:
    """Return the cells (B, N) of a map (B, channels, 1, N) that holds those of ``cell_index``."""
    return torch.arange(cell_index.shape[1], device=cell_index.device).expand_as(cell_index)
