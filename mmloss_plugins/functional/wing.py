"""Wing loss on coordinates and adaptive Wing loss on heatmaps."""

from __future__ import annotations

import torch
from torch import Tensor

from mmloss_plugins.errors import message
from mmloss_plugins.functional.closed_form import closed_form
from mmloss_plugins.functional.regression import (
    Scale,
    at_scale,
    check_not_negative,
    check_positive,
    difference,
)
from mmloss_plugins.functional.shapes import check_range, check_same_shape


def wing_loss(
    pred: Tensor,
    target: Tensor,
    scale: Scale,
    *,
    omega: float = 10.0,
    epsilon: float = 2.0,
    summed: bool = False,
) -> Tensor:
    r"""Penalise coordinates like L1, but with a steeper slope for errors below omega pixels.

    .. math::
        L = \omega \ln(1 + |d| / \epsilon) \ (|d| < \omega), \qquad |d| - C \ (\text{else}),
        \qquad d = s \, (x - t)

    with C = omega - omega ln(1 + omega / epsilon), equation 5 of the paper. Slope of a pixel:
    omega / epsilon at 0, omega / (epsilon + omega) just below omega, 1 above.

    Args:
        pred: x, coordinates of any shape, such as (N, K, D); any finite values.
        target: t, shape of ``pred``.
        scale: s, how many pixels of the network's input one unit of the coordinates is; a number
            or a tensor that broadcasts to ``pred``: (w, h) for coordinates in [0, 1], 1 for
            pixels. Without it, coordinates in [0, 1] never leave the logarithm, which then is
            nearly a multiple of L1.
        omega: width of the logarithmic part in pixels.
        epsilon: its curvature in pixels.
        summed: return the sum instead of the elements, which then are never stored.

    Returns:
        Shape of ``pred``, or a scalar for ``summed``; in pixels, float32 (float64 for float64
        ``pred``). Zero with gradient 0 where x equals t. The gradient of the coordinates is
        ``scale`` times that of the pixels.

    Raises:
        TypeError: ``pred`` or ``target`` is no tensor.
        ValueError: shapes differ, ``target`` requires a gradient, ``omega`` or ``epsilon`` is
            not positive.

    Differs from:
        ``mmpose.WingLoss``: element-wise here, knows the unit of its coordinates, weights outside.

    Reference:
        Feng et al., CVPR 2018, https://arxiv.org/abs/1711.06753, equation 5.

    Example:
        >>> import torch
        >>> wing_loss(torch.tensor([2.0, 0.5]), torch.zeros(2), scale=torch.tensor([1.0, 256.0]))
        tensor([  6.9315, 135.9176])
    """
    check_same_shape('wing_loss', pred, target)
    check_positive('wing_loss', 'omega', omega, 'The paper takes 10 pixels')
    check_positive('wing_loss', 'epsilon', epsilon, 'The paper takes 2 pixels')
    return at_scale(_wing, pred, target, scale, summed, omega=float(omega), epsilon=float(epsilon))


def adaptive_wing_loss(
    pred: Tensor,
    target: Tensor,
    *,
    alpha: float = 2.1,
    omega: float = 14.0,
    epsilon: float = 1.0,
    theta: float = 0.5,
    foreground_weight: float = 10.0,
    mask_threshold: float = 0.2,
    summed: bool = False,
) -> Tensor:
    r"""Penalise heatmap values like Wing on foreground and like MSE on background pixels.

    .. math::
        L = (1 + W m) \, \omega \ln(1 + |d / \epsilon|^{\alpha - t}) \ (|d| < \theta), \qquad
        (1 + W m) (A |d| - C) \ (\text{else}), \qquad d = x - t

    with A and C such that value and slope are continuous at theta (equations 3 and 4), and m = 1
    where the target, dilated by 3x3 pixels, reaches the threshold (equations 7 and 8).

    Args:
        pred: x, raw heatmaps (B, K, H, W), any finite values.
        target: t, shape of ``pred``, in [0, 1].
        alpha: exponent on background; above 2, so that alpha - t is above 1.
        omega: height of the logarithmic part.
        epsilon: its curvature.
        theta: distance at which the loss becomes linear.
        foreground_weight: W, extra weight of foreground and of hard background around it; 0
            switches the weight map off.
        mask_threshold: the dilated target from which on a pixel is foreground.
        summed: return the sum instead of the elements, which then are never stored.

    Returns:
        Shape of ``pred``, or a scalar for ``summed``; float32 (float64 for float64 ``pred``).
        Zero with gradient 0 where x equals t.

    Raises:
        TypeError: ``pred`` or ``target`` is no tensor.
        ValueError: shapes differ, there are not four dimensions, ``target`` requires a gradient,
            ``alpha`` is not above 2, ``omega``, ``epsilon`` or ``theta`` is not positive or
            ``foreground_weight`` is negative. With :func:`value_checks` also a target outside
            [0, 1].

    Differs from:
        ``mmpose.AdaptiveWingLoss``: element-wise, with the paper's weight map (equal to it at
        ``foreground_weight=0``), weights outside.

    Reference:
        Wang et al., ICCV 2019, https://arxiv.org/abs/1904.07399, equations 3, 4, 7 and 8.

    Example:
        >>> import torch
        >>> pred, target = torch.tensor([0.0, 0.5, 1.0]).view(1, 1, 1, 3), torch.zeros(1, 1, 1, 3)
        >>> adaptive_wing_loss(pred, target).flatten()
        tensor([0.0000, 2.9352, 8.4959])
    """
    check_same_shape('adaptive_wing_loss', pred, target)
    _check_maps(target)
    check_constants('adaptive_wing_loss', alpha, omega, epsilon, theta, foreground_weight)
    check_range('adaptive_wing_loss', target, 0, 1)
    constants = dict(
        alpha=float(alpha), omega=float(omega), epsilon=float(epsilon), theta=float(theta)
    )
    if foreground_weight == 0:
        return closed_form(_adaptive_wing, pred, target, summed=summed, **constants)
    near = foreground(target, mask_threshold)
    return closed_form(
        _adaptive_wing,
        pred,
        target,
        near,
        summed=summed,
        extra=float(foreground_weight),
        **constants,
    )


def foreground(target: Tensor, threshold: float) -> Tensor:
    """Return where ``target`` (B, K, H, W), dilated by 3x3 pixels, reaches ``threshold``."""
    # The threshold first: dilating the values would spread the NaN of an ignored pixel.
    return _dilate(_dilate(target.detach() >= threshold, dim=2), dim=3)


def check_constants(
    what: str, alpha: float, omega: float, epsilon: float, theta: float, foreground_weight: float
) -> None:
    """Refuse constants for which the adaptive Wing loss has no finite gradient.

    Raises:
        ValueError: names the constant.
    """
    if not alpha > 2:
        rule, step = 'be above 2', 'Below, the slope at a target of 1 is infinite; the paper: 2.1'
        raise ValueError(message(what, 'alpha', rule, alpha, step))
    check_positive(what, 'omega', omega, 'The paper takes 14')
    check_positive(what, 'epsilon', epsilon, 'The paper takes 1')
    check_positive(what, 'theta', theta, 'The paper takes 0.5')
    check_not_negative(what, 'foreground_weight', foreground_weight, 'The paper takes 10')


def _dilate(mask: Tensor, dim: int) -> Tensor:
    """Return ``mask`` or its neighbours along ``dim``; a max pool is ten times slower on a CPU."""
    size = mask.shape[dim]
    if size < 2:
        return mask
    wide = mask.clone()
    wide.narrow(dim, 1, size - 1).logical_or_(mask.narrow(dim, 0, size - 1))
    wide.narrow(dim, 0, size - 1).logical_or_(mask.narrow(dim, 1, size - 1))
    return wide


def _check_maps(target: Tensor) -> None:
    if target.dim() == 4:
        return
    rule, step = 'be heatmaps (B, K, H, W)', 'Encode keypoints as heatmaps, or use wing_loss'
    raise ValueError(message('adaptive_wing_loss', 'target', rule, tuple(target.shape), step))


def _wing(
    x: Tensor, t: Tensor, scale: Scale, omega: float, epsilon: float
) -> tuple[Tensor, Tensor]:
    d = difference(x, t, scale)
    size = d.abs()
    bend = size.clamp(max=omega)
    # Beyond omega the logarithm stands still and size - bend goes on.
    loss = torch.log1p(bend / epsilon).mul_(omega).add_(size).sub_(bend)
    slope = torch.where(size < omega, omega / (epsilon + bend), 1)
    return loss, slope.mul_(d.sign_()).mul_(scale)


def _adaptive_wing(
    x: Tensor,
    t: Tensor,
    near: Tensor | None = None,
    *,
    alpha: float,
    omega: float,
    epsilon: float,
    theta: float,
    extra: float = 0.0,
) -> tuple[Tensor, Tensor]:
    d = x - t
    size = d.abs()
    bend = size.clamp(max=theta)
    # d/dz ln(1 + z^p) = p z^(p-1) / (1 + z^p), at z = bend / epsilon: below theta the slope of
    # the logarithm, beyond it A. z^(p-1) alone needs a power, and p - 1 > 0 makes it 0 at z = 0.
    p = alpha - t
    z = bend / epsilon
    below = torch.pow(z, p - 1)
    power = z.mul_(below)
    slope = p.mul_(below).div_(power + 1).mul_(omega / epsilon)
    loss = power.log1p_().mul_(omega).add_(size.sub_(bend).mul_(slope))
    slope.mul_(d.sign_())
    if near is None:
        return loss, slope
    factor = near * extra + 1
    return loss.mul_(factor), slope.mul_(factor)
