"""L1, squared and smooth L1 distance of coordinates and boxes."""

from __future__ import annotations

from typing import Any, Union

from torch import Tensor

from mmloss_plugins.errors import message
from mmloss_plugins.functional.closed_form import Equation, closed_form
from mmloss_plugins.functional.shapes import check_same_shape

Scale = Union[float, Tensor]


def l1_loss(pred: Tensor, target: Tensor, scale: Scale = 1.0, *, summed: bool = False) -> Tensor:
    r"""Penalise the distance from the target in proportion to its size.

    .. math::
        L = |d|, \qquad d = s \, (x - t)

    Args:
        pred: x, any shape, any finite values: coordinates (N, K, D), boxes (N, 4).
        target: t, shape of ``pred``.
        scale: s, how many units of the loss one unit of ``pred`` is, such as pixels per unit for
            coordinates in [0, 1]; a number or a tensor that broadcasts to ``pred``.
        summed: return the sum instead of the elements, which then are never stored.

    Returns:
        Shape of ``pred``, or a scalar for ``summed``; float32 (float64 for float64 ``pred``).
        Zero with gradient 0 where x equals t.

    Raises:
        TypeError: ``pred`` or ``target`` is no tensor.
        ValueError: shapes differ or ``target`` requires a gradient.

    Differs from:
        ``torch.nn.functional.l1_loss``: computed in float32, keeps one tensor for backward.

    Reference:
        Girshick, Fast R-CNN, https://arxiv.org/abs/1504.08083, section 2.3.

    Example:
        >>> import torch
        >>> l1_loss(torch.tensor([0.25, 0.5]), torch.tensor([0.5, 0.5]), scale=256.0)
        tensor([64.,  0.])
    """
    check_same_shape('l1_loss', pred, target)
    return at_scale(_l1, pred, target, scale, summed)


def mse_loss(pred: Tensor, target: Tensor, scale: Scale = 1.0, *, summed: bool = False) -> Tensor:
    r"""Penalise the distance from the target by its square, so that outliers rule the gradient.

    .. math::
        L = d^2, \qquad d = s \, (x - t)

    Args:
        pred: x, any shape, any finite values.
        target: t, shape of ``pred``.
        scale: s, how many units of the loss one unit of ``pred`` is; a number or a tensor that
            broadcasts to ``pred``. Value and gradient grow with its square.
        summed: return the sum instead of the elements, which then are never stored.

    Returns:
        Shape of ``pred``, or a scalar for ``summed``; float32 (float64 for float64 ``pred``).
        Zero where x equals t.

    Raises:
        TypeError: ``pred`` or ``target`` is no tensor.
        ValueError: shapes differ or ``target`` requires a gradient.

    Differs from:
        HRNet's ``JointsMSELoss``, which is half of it. Equals ``torch.nn.functional.mse_loss``.

    Reference:
        Toshev and Szegedy, DeepPose, https://arxiv.org/abs/1312.4659, equation 3.

    Example:
        >>> import torch
        >>> mse_loss(torch.tensor([3.0, 1.0]), torch.tensor([1.0, 1.0]))
        tensor([4., 0.])
    """
    check_same_shape('mse_loss', pred, target)
    return at_scale(_mse, pred, target, scale, summed)


def smooth_l1_loss(
    pred: Tensor,
    target: Tensor,
    scale: Scale = 1.0,
    *,
    beta: float = 1.0,
    summed: bool = False,
) -> Tensor:
    r"""Penalise small distances by their square and large ones in proportion.

    .. math::
        L = \frac{d^2}{2 \beta} \ (|d| < \beta), \qquad |d| - \frac{\beta}{2} \ (\text{else}),
        \qquad d = s \, (x - t)

    Args:
        pred: x, any shape, any finite values.
        target: t, shape of ``pred``.
        scale: s, how many units of the loss one unit of ``pred`` is; a number or a tensor that
            broadcasts to ``pred``.
        beta: where the square ends, in units of the loss; 0 is L1.
        summed: return the sum instead of the elements, which then are never stored.

    Returns:
        Shape of ``pred``, or a scalar for ``summed``; float32 (float64 for float64 ``pred``).
        Zero where x equals t.

    Raises:
        TypeError: ``pred`` or ``target`` is no tensor.
        ValueError: shapes differ, ``target`` requires a gradient or ``beta`` is negative.

    Differs from:
        ``mmdet.SmoothL1Loss``, which refuses ``beta=0``; ``mmpose.SmoothL1Loss`` has no beta.

    Reference:
        Girshick, Fast R-CNN, https://arxiv.org/abs/1504.08083, equation 3.

    Example:
        >>> import torch
        >>> smooth_l1_loss(torch.tensor([0.5, 3.0]), torch.zeros(2))
        tensor([0.1250, 2.5000])
    """
    check_same_shape('smooth_l1_loss', pred, target)
    check_not_negative('smooth_l1_loss', 'beta', beta, '0 is L1')
    if beta == 0:
        return at_scale(_l1, pred, target, scale, summed)
    return at_scale(_smooth_l1, pred, target, scale, summed, beta=float(beta))


def at_scale(
    equation: Equation,
    pred: Tensor,
    target: Tensor,
    scale: Scale,
    summed: bool,
    **options: Any,
) -> Tensor:
    """Evaluate ``equation(x, t, scale, ...)`` in closed form; a tensor is cut into chunks too."""
    if isinstance(scale, Tensor):
        return closed_form(equation, pred, target, scale, summed=summed, **options)
    return closed_form(equation, pred, target, summed=summed, scale=float(scale), **options)


def difference(x: Tensor, t: Tensor, scale: Scale) -> Tensor:
    """Return scale * (x - t) as a new tensor."""
    d = x - t
    return d if isinstance(scale, float) and scale == 1 else d.mul_(scale)


def check_not_negative(what: str, argument: str, value: float, step: str) -> None:
    """Refuse a negative number or NaN.

    Raises:
        ValueError: names the argument and the value.
    """
    if not value >= 0:
        raise ValueError(message(what, argument, 'be zero or positive', value, step))


def check_positive(what: str, argument: str, value: float, step: str) -> None:
    """Refuse anything but a positive number.

    Raises:
        ValueError: names the argument and the value.
    """
    if not value > 0:
        raise ValueError(message(what, argument, 'be positive', value, step))


def _l1(x: Tensor, t: Tensor, scale: Scale) -> tuple[Tensor, Tensor]:
    d = difference(x, t, scale)
    return d.abs(), d.sign_().mul_(scale)


def _mse(x: Tensor, t: Tensor, scale: Scale) -> tuple[Tensor, Tensor]:
    d = difference(x, t, scale)
    return d * d, d.mul_(scale).mul_(2)


def _smooth_l1(x: Tensor, t: Tensor, scale: Scale, beta: float) -> tuple[Tensor, Tensor]:
    d = difference(x, t, scale)
    size = d.abs()
    # With q = min(|d|, beta) both branches are q (|d| - q / 2) / beta.
    q = size.clamp(max=beta)
    loss = size.sub_(q / 2).mul_(q).div_(beta)
    return loss, d.clamp_(-beta, beta).div_(beta).mul_(scale)
