"""What HeatmapCollapseHook reads of one call of a loss on heatmaps."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

ACTIVATIONS = ('auto', 'none', 'sigmoid', 'softmax', 'spatial_softmax')
# Losses on heatmaps, here and in the hosts, with what turns their prediction into responses;
# where one name stands for both kinds, the loss itself says it, see activation_of.
LOSSES = {
    'AdaptiveWingLoss': 'none',
    'BalancedBCELoss': 'sigmoid',
    'DiceLoss': 'sigmoid',
    'FocalHeatmapLoss': 'none',
    'GaussianFocalLoss': 'none',
    'HeatmapMSELoss': 'none',
    'JSDiscretLoss': 'none',
    'KeypointMSELoss': 'none',
    'KeypointOHKMMSELoss': 'none',
    'SigmoidFocalLoss': 'sigmoid',
    'SpatialSoftmaxCELoss': 'spatial_softmax',
}
# Their positives are the pixels equal to 1, unless the loss has a pos_threshold.
PEAKS_ALONE = ('FocalHeatmapLoss', 'GaussianFocalLoss')
WEIGHTS = ('weight', 'weights', 'target_weight', 'target_weights')
VALUES = ('peak', 'mean', 'positives', 'contrast')


@dataclass
class Reading:
    """One map of an iteration; ``values`` as :func:`measure` returns them."""

    loss: str
    values: Tensor
    kept: tuple[Tensor, Tensor]  # alive, so that no other map can have their addresses


def arguments_of(loss: nn.Module, args: tuple, kwargs: dict) -> tuple[Any, Any, Tensor | None]:
    """Return (pred, target, weight) of a call, whatever the loss calls them."""
    given = inspect.signature(loss.forward).bind(*args, **kwargs).arguments
    weights = [given[name] for name in WEIGHTS if given.get(name) is not None]
    pred, target = list(given.values())[:2]
    return pred, target, weights[0] if weights else None


def heatmap_of(pred: Any, target: Any) -> Tensor | None:
    """Return the target if it and the prediction are maps (B, K, H, W); else None."""
    heatmap = target[0] if isinstance(target, (tuple, list)) and target else target
    if not isinstance(pred, Tensor) or not isinstance(heatmap, Tensor):
        return None
    return heatmap if pred.dim() == 4 and pred.shape == heatmap.shape and pred.numel() else None


def activation_of(loss: nn.Module) -> str:
    """Return what turns the prediction that a loss gets into responses."""
    if hasattr(loss, 'from_logits'):
        return 'sigmoid' if loss.from_logits else 'none'
    if hasattr(loss, 'activated'):
        return 'none' if loss.activated else 'sigmoid'
    if getattr(loss, 'activation', None) in ACTIVATIONS:
        return str(loss.activation)
    return next((LOSSES[name] for name in names_of(loss) if name in LOSSES), 'none')


def positives_of(loss: nn.Module, pred: Tensor, target: Any, heatmap: Tensor) -> Tensor:
    """Return which pixels a loss calls positive, boolean, shape of ``heatmap``."""
    if hasattr(loss, 'positives'):
        return loss.positives(pred, target)
    if hasattr(loss, 'pos_threshold'):
        return heatmap >= loss.pos_threshold
    if any(name in PEAKS_ALONE for name in names_of(loss)):
        return heatmap == 1
    return heatmap > 0


def names_of(loss: nn.Module) -> list[str]:
    return [cls.__name__ for cls in type(loss).__mro__]


def respond(
    pred: Tensor, heatmap: Tensor, activation: str, beta: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return the responses and the target on their scale, float32 (B, K, H, W)."""
    pred, heatmap = pred.float(), heatmap.float()
    if activation == 'sigmoid':
        return pred.sigmoid(), heatmap
    if activation == 'softmax':
        return pred.softmax(1), heatmap
    if activation == 'spatial_softmax':
        total = heatmap.sum((2, 3), keepdim=True)
        maps = (pred.flatten(2) * beta).softmax(2).view(pred.shape)
        return maps, heatmap / total.clamp(min=torch.finfo(torch.float32).tiny)
    return pred, heatmap


def measure(responses: Tensor, heatmap: Tensor, positives: Tensor, weight: Tensor | None) -> Tensor:
    """Return ``VALUES`` over the maps of visible keypoints, then the number of these maps.

    Args:
        responses: (B, K, H, W).
        heatmap: target on the scale of ``responses``, same shape.
        positives: boolean, same shape.
        weight: (B,), (B, K), (B, K, 1, 1) or (B, K, H, W); a map with any weight above 0 is
            visible. None: a map with any target above 0.
    """
    shown = heatmap if weight is None else weight.reshape(weight.shape + (1,) * (4 - weight.dim()))
    visible = (shown > 0).flatten(2).any(2).expand(heatmap.shape[:2])
    count = visible.sum()

    def over_visible(values: Tensor) -> Tensor:
        # Not a product: a map without weight may hold NaN.
        return torch.where(visible, values, 0).sum() / count

    maps, labels = responses.flatten(2), heatmap.flatten(2)
    peak, mean = over_visible(maps.amax(2)), over_visible(maps.mean(2))
    rise = over_visible(labels.amax(2) - labels.mean(2))
    found = (positives.flatten(2) & visible[..., None]).sum()
    contrast = (peak - mean) / rise.clamp(min=1e-6)
    return torch.stack([peak, mean, found.float(), contrast, count.float()])
