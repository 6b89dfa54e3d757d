"""Maps beside Gaussians that are a product of one vector per axis."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Union

import torch
from torch import Tensor

from mmloss_plugins.errors import message
from mmloss_plugins.functional._grid import check_maps, for_outer, outer, to_cells
from mmloss_plugins.functional.closed_form import CHUNK, compute_dtype, with_slope
from mmloss_plugins.functional.debug import is_compiling, value_checks_enabled
from mmloss_plugins.functional.shapes import refuse_gradient

SigmaPx = Union[float, Sequence[float]]
# Cells; each piece costs some 25 operators, and its temporaries may spill into a core's last cache.
PIECE = 2 * CHUNK
# equation(p, q) compares maps with Gaussians (or their logarithms), each (rows, *S) of one type,
# and returns the loss (rows,) and its derivative with respect to p. It may overwrite neither.
Comparison = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def compare(
    what: str,
    equation: Comparison,
    heatmap: Tensor,
    mean: Tensor,
    sigma_px: SigmaPx,
    log: bool = False,
) -> Tensor:
    """Check the input and compare maps with Gaussians at ``mean``, or their logarithms."""
    check_maps(what, heatmap)
    _check_mean(what, heatmap, mean)
    sigmas = sigma_per_axis(what, sigma_px, heatmap.dim() - 2)
    axes = _gaussians(mean.to(compute_dtype(heatmap)), heatmap.shape[2:], sigmas, log)
    combine = torch.add if log else torch.mul
    loss: Tensor = with_slope(_in_chunks, heatmap, equation, combine, axes)
    return loss


def _in_chunks(
    heatmap: Tensor, equation: Comparison, combine: Any, axes: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Compare maps with products (sums) of one vector per axis, in pieces that fit a cache."""
    dtype, (batch, keypoints, *sizes) = compute_dtype(heatmap), heatmap.shape
    maps = heatmap.reshape(-1 if heatmap.numel() else 0, *sizes)
    if is_compiling() or heatmap.device.type != 'cpu' or maps.numel() <= PIECE:
        loss, slope = equation(maps.to(dtype), outer(axes, combine))
        return loss.view(batch, keypoints), slope.view(heatmap.shape)
    slope = torch.empty_like(maps, dtype=dtype)
    loss = slope.new_empty(len(maps))
    step = max(1, PIECE // maps[0].numel())
    for start in range(0, len(maps), step):
        part = slice(start, start + step)
        gaussians = outer([axis[:, part] for axis in axes], combine)
        loss[part], slope[part] = equation(maps[part].to(dtype), gaussians)
    return loss.view(batch, keypoints), slope.view(heatmap.shape)


def _gaussians(
    mean: Tensor, sizes: torch.Size, sigmas: tuple[float, ...], log: bool
) -> Sequence[Tensor]:
    """Return the Gaussian along x, y, ... over the cells, each (size, B K) with sum 1.

    With c the cell next to the mean, (i - mean)^2 - (c - mean)^2 = (i - c)(i + c - 2 mean): never
    negative, 0 at c, and exact even where the mean is far outside of the map.
    """
    columns = mean.flatten(0, 1).t().contiguous()
    kinds = list(zip(reversed(sizes), sigmas))
    if kinds == kinds[:1] * len(kinds):
        return for_outer(_along_axes(columns, *kinds[0], log).unbind())
    pairs = zip(columns, kinds)
    return for_outer([_along_axes(column, *kind, log) for column, kind in pairs])


def _along_axes(mean: Tensor, size: int, sigma: float, log: bool) -> Tensor:
    """Return the Gaussians at ``mean`` (..., rows) along axes of one kind, (..., size, rows)."""
    cells = torch.arange(size, dtype=mean.dtype, device=mean.device).unsqueeze(-1)
    at = to_cells(mean, size).unsqueeze(-2)
    nearest = at.round().clamp_(0, size - 1)
    exponent = (nearest - cells).mul_(cells + torch.sub(nearest, at, alpha=2))
    exponent.mul_(0.5 / sigma**2)
    shape = exponent.exp()
    total = shape.sum(-2, keepdim=True)
    return exponent.sub_(total.log_()) if log else shape.div_(total)


def check_sigma_px(what: str, sigma_px: Any) -> None:
    """Refuse a ``sigma_px`` that is not positive; for constructors, which do not know D.

    Raises:
        TypeError: neither a number nor a sequence of numbers.
        ValueError: one of them is not positive and finite.
    """
    several = isinstance(sigma_px, Sequence) and not isinstance(sigma_px, str)
    for sigma in sigma_px if several else (sigma_px,):
        if isinstance(sigma, bool) or not isinstance(sigma, (int, float)):
            rule, step = 'be a number or one per axis', 'Give the sigma in cells of the map'
            raise TypeError(message(what, 'sigma_px', rule, repr(sigma_px), step))
        if not 0 < sigma < math.inf:
            step = 'It is the standard deviation in cells of the map, 1 in the paper'
            raise ValueError(message(what, 'sigma_px', 'be > 0 and finite', sigma_px, step))


def sigma_per_axis(what: str, sigma_px: SigmaPx, dims: int) -> tuple[float, ...]:
    """Return the checked sigma of x, y, ..."""
    check_sigma_px(what, sigma_px)
    if not isinstance(sigma_px, Sequence):
        return (sigma_px,) * dims
    if len(sigma_px) != dims:
        rule = f'be a number or have one for each of the {dims} axes (x, y, ...) of the map'
        raise ValueError(message(what, 'sigma_px', rule, sigma_px, 'Pass one number for all axes'))
    return tuple(sigma_px)


def _check_mean(what: str, heatmap: Tensor, mean: Any) -> None:
    if not isinstance(mean, Tensor):
        rule, step = 'be a tensor', 'Pass the encoded keypoints'
        raise TypeError(message(what, 'mean', rule, type(mean).__name__, step))
    expected = (*heatmap.shape[:2], heatmap.dim() - 2)
    if mean.shape != expected:
        rule = f'have the shape (B, K, D) = {expected} of heatmap {tuple(heatmap.shape)}'
        step = 'Give head and codec the same number of keypoints, one coordinate per axis of a map'
        raise ValueError(message(what, 'mean', rule, tuple(mean.shape), step))
    refuse_gradient(what, mean, 'mean')
    if not value_checks_enabled():
        return
    bad = ~(mean.abs() <= 1)
    if bad.any():
        index = tuple(bad.nonzero()[0].tolist())
        got = f'{mean[index].item():g} at index {index}'
        step = 'Pixels? Encode the keypoints with DSNTLabel, -1 and 1 are the edges of the image'
        raise ValueError(message(what, 'mean', 'be finite and within [-1, 1]', got, step))
