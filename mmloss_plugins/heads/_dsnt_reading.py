"""What the DSNT heads read from normalised heatmaps beside their means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mmloss_plugins import functional as F
from mmloss_plugins.functional._grid import cell_centres
from mmloss_plugins.heads.heatmap import mean_share

# Below this share of mass above the background the map says nothing about a peak.
LEAST_EXCESS = 1e-3


class Reading(NamedTuple):
    """What one pass through the network found, as seen in the image that is not mirrored.

    ``means`` are (B, K, 2) in (-1, 1), ``heatmaps`` (B, K, H, W). A point at x of the image lies
    at ``x - shift`` of the maps.
    """

    means: Tensor
    heatmaps: Tensor
    shift: float = 0.0

    @property
    def half_cell(self) -> Tensor:
        """Half the size (x, y) of a cell in (-1, 1): its centre in the first cell."""
        height, width = self.heatmaps.shape[-2:]
        # Filled on the device: new_tensor would wait for a copy from the host.
        return torch.stack([self.means.new_full((), 1 / size) for size in (width, height)])

    def mirrored(self, flip_indices: Sequence[int], shift: float) -> Reading:
        """Return what was found in a mirrored image as seen in the image."""
        x, y = self.means[:, flip_indices].unbind(-1)
        maps = self.heatmaps.flip(-1)[:, flip_indices]
        return Reading(torch.stack([shift - x, y], -1), maps, shift)


def average(tensors: Sequence[Tensor]) -> Tensor:
    """Return the average of one or two passes."""
    return tensors[0] if len(tensors) == 1 else torch.stack(list(tensors)).mean(0)


def masses(passes: Sequence[Reading], means: Tensor, radius_px: float) -> Tensor:
    """Return the probability mass near ``means`` in the average of the maps, (B, K)."""
    found = []
    for each in passes:
        places = means - means.new_tensor([each.shift, 0.0])
        found.append(mass_within(each.heatmaps, places, radius_px))
    return average(found)


def covariances(passes: Sequence[Reading], means: Tensor) -> Tensor:
    """Return those of the mixture of the maps, (B, K, 2, 2) in square cells, x first."""
    found = []
    for each in passes:
        away = (each.means - means) / (2 * each.half_cell)
        inside = F.heatmap_covariance(each.heatmaps)
        found.append(inside + away.unsqueeze(-1) * away.unsqueeze(-2))
    return average(found)


def debiased(means: Tensor, logits: Tensor, beta: float) -> Tensor:
    """Take the share of the background out of the means of softmax maps (Gu et al., 2021).

    Every cell of a background at 0 adds exp(0) = 1 to ``C = sum exp(beta x)`` and pulls the mean
    towards the middle of the map. With the middle at 0::

        C / (C - HW) * (mean - HW / C * middle) = mean / (1 - HW / C)

    Args:
        means: (B, K, 2) in (-1, 1).
        logits: (B, K, H, W), what the softmax got.
        beta: factor of the softmax.

    Returns:
        (B, K, 2) within [-1, 1]. A map whose C exceeds HW by less than a thousandth, or whose
        mean would leave the map, has no peak above a background at 0: its mean comes back as it
        is.
    """
    logits = logits.flatten(2).to(means.dtype) * beta
    top = logits.detach().amax(-1, keepdim=True)
    log_mean = (logits - top).exp().mean(-1, keepdim=True).log() + top
    # Clamped before exp: the gradient of exp at inf is 0 * inf = NaN.
    excess = 1 - (-log_mean).clamp(max=0).exp()
    found = excess > LEAST_EXCESS
    corrected = means / torch.where(found, excess, 1.0)
    return torch.where((corrected.abs() <= 1).all(-1, keepdim=True), corrected, means)


def mass_within(heatmaps: Tensor, means: Tensor, radius_px: float) -> Tensor:
    """Return the mass of the cells whose centres lie within a radius of a point.

    Args:
        heatmaps: normalised, (B, K, H, W).
        means: (B, K, 2) in (-1, 1).
        radius_px: in cells of the map.

    Returns:
        (B, K) in [0, 1].
    """
    height, width = heatmaps.shape[-2:]
    dx = (cell_centres(width, heatmaps) - means[..., 0, None]) * (width / 2)
    dy = (cell_centres(height, heatmaps) - means[..., 1, None]) * (height / 2)
    near = dx.square().unsqueeze(-2) + dy.square().unsqueeze(-1) <= radius_px**2
    return (heatmaps * near).flatten(2).sum(-1).clamp(max=1)


@torch.no_grad()
def coordinate_pck(pred: Tensor, target: Tensor, weight: Tensor, thr: float) -> Tensor:
    """Return the share of keypoints whose prediction lies near the target.

    Args:
        pred: coordinates, (B, K, D).
        target: same shape and unit.
        weight: (B, K); keypoints of weight 0 do not count.
        thr: smallest distance that is a miss.

    Returns:
        0-d float32: mean over keypoints of the share of samples, as MMPose's
        ``keypoint_pck_accuracy``, without its host-device sync; 0 where nothing counts.
    """
    return mean_share(torch.linalg.vector_norm(pred - target, dim=-1) < thr, weight > 0)
