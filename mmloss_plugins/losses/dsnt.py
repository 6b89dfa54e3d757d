"""Losses of DSNT: the distance of coordinates and the shape of heatmaps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmloss_plugins import functional as F
from mmloss_plugins.errors import check_choice, message
from mmloss_plugins.functional._gaussian import SigmaPx, check_sigma_px
from mmloss_plugins.functional.heatmap_regularizers import BASES, UNITS
from mmloss_plugins.functional.reduction import reduce_loss
from mmloss_plugins.functional.shapes import check_same_shape, refuse_gradient
from mmloss_plugins.losses.base import BaseLoss
from mmloss_plugins.registry import MODELS


@MODELS.register_module()
class EuclideanLoss(BaseLoss):
    """Distance of predicted and labelled points; see :func:`functional.euclidean_loss`.

    Takes coordinates (B, K, D) of any unit, and one weight per keypoint: (B, K), as MMPose's
    heatmap and DSNT heads pass it, or (B, K, 1), as its RegressionHead does. A weight (B, K, D)
    is refused: a distance has no axes. Unreduced shape (B, K).

    The default value is that of the author of DSNT, ``dsntnn.average_loss`` with the mask of the
    visible keypoints: the mean over the keypoints that count. A soft weight w counts as one
    keypoint in the divisor here and as w there, where ``avg_factor=weight.sum()`` is the same
    (the author divides by 1 where that is less). MMPose's ``MPJPELoss`` divides by all
    keypoints, ``mean_over='all'``.

    Args:
        mean_over: as in :class:`BaseLoss`, but 'valid' unless said otherwise.
        base_options: ``reduction``, ``loss_weight``, ``use_target_weight``, ``loss_name``,
            ``compile``; see :class:`BaseLoss`.
    """

    READS = 'coords'

    def __init__(self, *, mean_over: str = 'valid', **base_options: Any) -> None:
        super().__init__(mean_over=mean_over, **base_options)

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the distance of each keypoint.

        Args:
            pred: coordinates, (B, K, D).
            target: same shape and unit.

        Returns:
            Shape (B, K), float32.
        """
        return self.run(F.euclidean_loss, pred, target)

    def check_inputs(self, pred: Any, target: Any) -> None:
        check_same_shape(self.loss_name, pred, target)
        if pred.dim() < 2 or not pred.shape[-1]:
            rule = 'have the shape (B, K, D) of coordinates'
            step = 'Pass the coordinates, not the heatmaps'
            got = tuple(pred.shape)
            raise ValueError(message(self.loss_name, 'pred and target', rule, got, step))

    def loss_shape(self, pred: Tensor) -> torch.Size:
        return pred.shape[:-1]


class HeatmapRegularizer(BaseLoss):
    """What the losses on the shape of a heatmap share: not registered.

    They take normalised heatmaps (B, K, *S) with one to three spatial dimensions, such as
    :func:`functional.normalize_heatmap` returns, and as the target the coordinates (B, K, D), x
    first, cell centres in (-1, 1). Weights are (B, K) or (B, K, 1). Unreduced shape (B, K).

    The default value is the author's, the mean over the keypoints that count; for soft weights
    see :class:`EuclideanLoss`. In a :class:`MultiLoss` they read ``'heatmaps'``.

    Args:
        sigma_px: standard deviation that a map should have, in cells of the map; one number, or
            one per axis, x first, for maps whose cells are not square in the image.
        mean_over: as in :class:`BaseLoss`, but 'valid' unless said otherwise.

    Raises:
        ValueError: ``sigma_px`` is not positive, or holds another number of values than the map
            has axes.
        TypeError: ``sigma_px`` is no number.
    """

    READS = 'heatmaps'

    def __init__(
        self, sigma_px: SigmaPx = 1.0, *, mean_over: str = 'valid', **base_options: Any
    ) -> None:
        super().__init__(mean_over=mean_over, **base_options)
        # torch.compile keeps one function per value, and a list of a config has no hash.
        self.sigma_px = tuple(sigma_px) if isinstance(sigma_px, (list, tuple)) else sigma_px
        check_sigma_px(self.loss_name, self.sigma_px)
        if self.sigma_px == ():
            rule, step = 'hold one value per axis', 'The paper uses sigma_px=1'
            raise ValueError(message(self.loss_name, 'sigma_px', rule, 'none', step))

    @torch.no_grad()
    def diagnostics(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        mask: Tensor | None = None,
        **_: Any,
    ) -> dict[str, Tensor]:
        """Return ``heatmap_std_px``, the standard deviation of the maps that count, in cells.

        Root of the variance averaged over maps and axes, to be compared with ``sigma_px``: far
        above it the maps are split into blobs or flat. A flat map of 7 cells has 2.0, of 14 cells
        4.0, of 28 cells 8.1. 0-d tensor, no sync.
        """
        weight = weight if self.use_target_weight else None
        variance = F.heatmap_variance(pred.float()).mean(-1).clamp(min=0)
        count = torch.ones_like(variance)
        weight = None if weight is None else weight != 0
        total, count = (
            reduce_loss(part, weight, mask, reduction='sum', what=self.loss_name)
            for part in (variance, count)
        )
        return {'heatmap_std_px': (total / count.clamp(min=1)).sqrt()}

    def check_inputs(self, pred: Any, target: Any) -> None:
        for name, tensor in (('pred', pred), ('target', target)):
            if not isinstance(tensor, Tensor):
                rule, step = 'be a tensor', 'Pass normalised heatmaps and coordinates'
                raise TypeError(message(self.loss_name, name, rule, type(tensor).__name__, step))
        axes = pred.dim() - 2
        if not 1 <= axes <= 3 or 0 in pred.shape[2:]:
            rule = 'have the shape (B, K, *S) of heatmaps with one to three axes'
            step = 'Pass the heatmaps, not the coordinates'
            raise ValueError(message(self.loss_name, 'pred', rule, tuple(pred.shape), step))
        wanted = (*pred.shape[:2], axes)
        if target.shape != wanted:
            rule = f'have the shape {wanted} for heatmaps {tuple(pred.shape)}'
            step = 'Pass the coordinates (x, y, ...) of DSNTLabel: the loss makes the Gaussian'
            raise ValueError(message(self.loss_name, 'target', rule, tuple(target.shape), step))
        refuse_gradient(self.loss_name, target)
        if isinstance(self.sigma_px, tuple) and len(self.sigma_px) != axes:
            rule, step = f'hold one value per axis of the map, {axes}', 'Give one number for all'
            raise ValueError(message(self.loss_name, 'sigma_px', rule, self.sigma_px, step))

    def loss_shape(self, pred: Tensor) -> torch.Size:
        return pred.shape[:2]

    def extra_repr(self) -> str:
        return f'{super().extra_repr()}, sigma_px={self.sigma_px}'


@MODELS.register_module()
class HeatmapJSLoss(HeatmapRegularizer):
    """Jensen-Shannon divergence of heatmaps from Gaussians; see :func:`functional.heatmap_js`.

    The regulariser that the paper recommends, with factor 1 and a sigma of 1 px.

    MMPose's ``JSDiscretLoss`` sums over the keypoints and divides by the batch size, which is the
    number of keypoints K times ``mean_over='all'`` here: a lambda of 1 there is ``loss_weight=K``
    here. It takes Gaussians around the rounded cell, cut off at 3 sigma, instead of coordinates,
    and its gradient is NaN where a weight is 0.

    Args:
        sigma_px: standard deviation of the Gaussian in cells of the map; one number, or one per
            axis, x first.
        base: of the logarithm. 'e' (author, MMPose): at most ln 2 = 0.693 per map; 2: at most 1.
        base_options: ``reduction``, ``mean_over`` ('valid' by default), ``loss_weight``,
            ``use_target_weight``, ``loss_name``, ``compile``; see :class:`BaseLoss`.
    """

    def __init__(self, sigma_px: SigmaPx = 1.0, base: str | int = 'e', **base_options: Any) -> None:
        super().__init__(sigma_px, **base_options)
        if base not in BASES:
            rule, step = "be 'e' or 2", "'e' is the author's, 2 bounds the loss by 1"
            raise ValueError(message(self.loss_name, 'base', rule, repr(base), step))
        self.base = base

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the divergence of each map.

        Args:
            pred: normalised heatmaps, (B, K, *S).
            target: coordinates in (-1, 1), (B, K, D).

        Returns:
            Shape (B, K), float32, in [0, ln 2] or, for base 2, [0, 1].
        """
        return self.run(F.heatmap_js, pred, target, sigma_px=self.sigma_px, base=self.base)


@MODELS.register_module()
class HeatmapKLLoss(HeatmapRegularizer):
    """Kullback-Leibler divergence of heatmaps from Gaussians; see :func:`functional.heatmap_kl`.

    KL(heatmap || Gaussian), as the author has it: it grows with the square of the distance of
    stray mass in sigmas, so that a map far from its label dominates a batch. Where that hurts,
    take :class:`HeatmapJSLoss`, which is bounded.

    Args:
        sigma_px: standard deviation of the Gaussian in cells of the map; one number, or one per
            axis, x first.
        base_options: ``reduction``, ``mean_over`` ('valid' by default), ``loss_weight``,
            ``use_target_weight``, ``loss_name``, ``compile``; see :class:`BaseLoss`.
    """

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the divergence of each map; arguments as in :class:`HeatmapJSLoss`."""
        return self.run(F.heatmap_kl, pred, target, sigma_px=self.sigma_px)


@MODELS.register_module()
class HeatmapMSERegLoss(HeatmapRegularizer):
    """Squared error of heatmaps against Gaussians of mass 1; see
    :func:`functional.heatmap_mse_reg`.

    Summed over the pixels of a map, not averaged: below 2, whatever the size of the map.

    Args:
        sigma_px: standard deviation of the Gaussian in cells of the map; one number, or one per
            axis, x first.
        base_options: ``reduction``, ``mean_over`` ('valid' by default), ``loss_weight``,
            ``use_target_weight``, ``loss_name``, ``compile``; see :class:`BaseLoss`.
    """

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the squared error of each map; arguments as in :class:`HeatmapJSLoss`."""
        return self.run(F.heatmap_mse_reg, pred, target, sigma_px=self.sigma_px)


@MODELS.register_module()
class HeatmapVarianceLoss(HeatmapRegularizer):
    """Squared error of a heatmap's variance; see :func:`functional.heatmap_variance_loss`.

    Only the spread is asked for, not the shape: by itself it lets a map split into blobs. The
    target is read for its shape alone.

    Beware of the factor. The paper's lambda of 100 belongs to ``unit='normalized'``, where a map
    is 2 wide whatever its size; dsntnn's ``variance_reg_losses`` has ``unit='px'``. The same
    strength in px is ``100 * (size / 2) ** -4``:

    ========== ======== ======== ======= =======
    map        7        14       28      56
    lambda, px 0.67     0.042    2.6e-3  1.6e-4
    ========== ======== ======== ======= =======

    Args:
        sigma_px: standard deviation that a map should have, in cells of the map in either unit;
            one number, or one per axis, x first.
        unit: of the variances that are compared: 'px', cells of the map, or 'normalized', the
            (-1, 1) of the coordinates, per axis.
        base_options: ``reduction``, ``mean_over`` ('valid' by default), ``loss_weight``,
            ``use_target_weight``, ``loss_name``, ``compile``; see :class:`BaseLoss`.
    """

    def __init__(self, sigma_px: SigmaPx = 1.0, unit: str = 'px', **base_options: Any) -> None:
        super().__init__(sigma_px, **base_options)
        check_choice(self.loss_name, 'unit', unit, UNITS)
        self.unit = unit

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the squared error of each map's variance, summed over the axes.

        Args:
            pred: normalised heatmaps, (B, K, *S).
            target: not read.

        Returns:
            Shape (B, K), float32, in px^4 or, for ``unit='normalized'``, without a unit.
        """
        return self.run(F.heatmap_variance_loss, pred, sigma_px=self.sigma_px, unit=self.unit)
