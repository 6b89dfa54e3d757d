"""IoU, GIoU, DIoU and CIoU losses of aligned boxes.

The equations are those of ``torchvision.ops``, whose functions select by a boolean mask: that waits
for the device and does not compile to one graph. Here each loss returns its gradient as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mmloss_plugins.errors import check_choice, message
from mmloss_plugins.functional.closed_form import compute_dtype, with_slope
from mmloss_plugins.functional.debug import value_checks_enabled
from mmloss_plugins.functional.shapes import check_same_shape

IOU_MODES = ('linear', 'square', 'log')


def iou_loss(pred: Tensor, target: Tensor, *, mode: str = 'log', eps: float = 1e-6) -> Tensor:
    r"""Penalise a box for what it does not share with its target.

    .. math::
        IoU = \frac{|A \cap B|}{|A \cup B|}, \qquad
        L = 1 - IoU, \quad 1 - IoU^2, \quad -\ln IoU

    Disjoint boxes have loss 1, 1 or ``-log(eps)`` and no gradient: nothing says in which direction
    the target lies. The other losses of this module add a term for that.

    Args:
        pred: predicted boxes (N, 4) as (x1, y1, x2, y2), any finite values and unit; where x2 < x1
            or y2 < y1 the box is empty.
        target: target boxes (N, 4), x1 <= x2 and y1 <= y2.
        mode: 'linear', 'square' or 'log'.
        eps: smallest IoU inside the logarithm.

    Returns:
        Shape (N,), float32 (float64 for float64 ``pred``). Zero where the boxes are equal and have
        an area; two empty boxes have IoU 0.

    Raises:
        TypeError: ``pred`` or ``target`` is no tensor.
        ValueError: shapes differ or are not (N, 4), ``target`` requires a gradient, ``mode`` is
            unknown. With :func:`value_checks` also a target that is NaN or inside out.

    Differs from:
        ``mmpose.IoULoss``: eps 1e-16 there, 36.8 for disjoint boxes. MMDetection's 1e-6 is used.

    Reference:
        Yu et al., UnitBox, https://arxiv.org/abs/1608.01471, section 3.1.

    Example:
        >>> import torch
        >>> pred = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
        >>> iou_loss(pred, torch.tensor([[0.0, 0.0, 2.0, 1.0]]), mode='linear')
        tensor([0.5000])
    """
    check_boxes('iou_loss', pred, target)
    check_choice('iou_loss', 'mode', mode, IOU_MODES)
    return _rowwise(
        {'linear': _iou, 'square': _iou_square, 'log': _iou_log}[mode], pred, target, eps
    )


def giou_loss(pred: Tensor, target: Tensor, *, eps: float = 1e-7) -> Tensor:
    r"""Penalise a box like IoU, and for the part of the enclosing box C that neither covers.

    .. math::
        L = 1 - IoU + \frac{|C| - |A \cup B|}{|C|}

    Args:
        pred: predicted boxes (N, 4) as (x1, y1, x2, y2), any finite values and unit; where x2 < x1
            or y2 < y1 the box is empty.
        target: target boxes (N, 4), x1 <= x2 and y1 <= y2.
        eps: added to each denominator, in the square of the boxes' unit.

    Returns:
        Shape (N,) in [0, 2], float32 (float64 for float64 ``pred``). Zero where the boxes are equal
        and much larger than eps.

    Raises:
        TypeError: ``pred`` or ``target`` is no tensor.
        ValueError: shapes differ or are not (N, 4), ``target`` requires a gradient. With
            :func:`value_checks` also a target that is NaN or inside out.

    Differs from:
        ``torchvision.ops.generalized_box_iou_loss``: no sync; a box that is inside out is empty.

    Reference:
        Rezatofighi et al., CVPR 2019, https://arxiv.org/abs/1902.09630, algorithm 2.

    Example:
        >>> import torch
        >>> pred = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
        >>> giou_loss(pred, torch.tensor([[2.0, 0.0, 3.0, 1.0]]))  # 1 - 0 + (3 - 2) / 3
        tensor([1.3333])
    """
    check_boxes('giou_loss', pred, target)
    return _rowwise(_giou, pred, target, eps)


def diou_loss(pred: Tensor, target: Tensor, *, eps: float = 1e-7) -> Tensor:
    r"""Penalise a box like IoU, and for the distance of its centre.

    .. math::
        L = 1 - IoU + \frac{\rho^2}{c^2}

    with the distance rho of the centres and the diagonal c of the enclosing box.

    Args:
        pred: predicted boxes (N, 4) as (x1, y1, x2, y2), any finite values and unit; where x2 < x1
            or y2 < y1 the box is empty.
        target: target boxes (N, 4), x1 <= x2 and y1 <= y2.
        eps: added to each denominator, in the square of the boxes' unit.

    Returns:
        Shape (N,), float32 (float64 for float64 ``pred``); in [0, 2] for boxes that are not inside
        out. Zero where the boxes are equal and much larger than eps.

    Raises:
        TypeError: ``pred`` or ``target`` is no tensor.
        ValueError: shapes differ or are not (N, 4), ``target`` requires a gradient. With
            :func:`value_checks` also a target that is NaN or inside out.

    Differs from:
        ``torchvision.ops.distance_box_iou_loss``: no sync; a box that is inside out is empty.

    Reference:
        Zheng et al., AAAI 2020, https://arxiv.org/abs/1911.08287, equation 7.

    Example:
        >>> import torch
        >>> pred = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
        >>> diou_loss(pred, torch.tensor([[2.0, 0.0, 3.0, 1.0]]))  # 1 - 0 + 4 / (9 + 1)
        tensor([1.4000])
    """
    check_boxes('diou_loss', pred, target)
    return _rowwise(_diou, pred, target, eps)


def ciou_loss(pred: Tensor, target: Tensor, *, eps: float = 1e-7) -> Tensor:
    r"""Penalise a box like DIoU, and for its aspect ratio.

    .. math::
        L = 1 - IoU + \frac{\rho^2}{c^2} + \alpha v, \qquad
        v = \frac{4}{\pi^2} \left(\arctan \frac{w_t}{h_t} - \arctan \frac{w}{h}\right)^2, \qquad
        \alpha = \frac{v}{1 - IoU + v}

    where alpha counts as a constant in the gradient.

    Args:
        pred: predicted boxes (N, 4) as (x1, y1, x2, y2), any finite values and unit; where x2 < x1
            or y2 < y1 the box is empty.
        target: target boxes (N, 4), x1 <= x2 and y1 <= y2.
        eps: added to each denominator, in the square of the boxes' unit.

    Returns:
        Shape (N,), float32 (float64 for float64 ``pred``). Zero where the boxes are equal and much
        larger than eps.

    Raises:
        TypeError: ``pred`` or ``target`` is no tensor.
        ValueError: shapes differ or are not (N, 4), ``target`` requires a gradient. With
            :func:`value_checks` also a target that is NaN or inside out.

    Differs from:
        ``torchvision.ops.complete_box_iou_loss``: no sync, no NaN at a box without height;
        ``mmdet.CIoULoss``, where alpha is 0 at IoU <= 0.5.

    Reference:
        Zheng et al., AAAI 2020, https://arxiv.org/abs/1911.08287, equations 8 to 11.

    Example:
        >>> import torch
        >>> pred = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
        >>> ciou_loss(pred, torch.tensor([[2.0, 0.0, 3.0, 1.0]]))  # both are square: DIoU
        tensor([1.4000])
    """
    check_boxes('ciou_loss', pred, target)
    return _rowwise(_ciou, pred, target, eps)


def check_boxes(what: str, pred: Tensor, target: Tensor) -> None:
    """Refuse anything but two tensors (N, 4); under :func:`value_checks` also bad target values.

    Raises:
        TypeError: one of them is no tensor.
        ValueError: shapes, a target that requires a gradient, is NaN or inside out.
    """
    check_same_shape(what, pred, target)
    if target.dim() != 2 or target.shape[1] != 4:
        rule, step = 'be boxes (N, 4)', 'Decode to (x1, y1, x2, y2) and flatten the batch'
        raise ValueError(message(what, 'pred and target', rule, tuple(target.shape), step))
    if not value_checks_enabled():
        return
    bad = ~(target[:, :2] <= target[:, 2:]).all(dim=1)
    if bad.any():
        row = int(bad.nonzero()[0])
        rule, step = 'have x1 <= x2 and y1 <= y2', 'Pass (x1, y1, x2, y2), not (cx, cy, w, h)'
        raise ValueError(
            message(what, 'target', rule, f'{target[row].tolist()} in row {row}', step)
        )


@dataclass
class Pair:
    """Aligned boxes by what the losses are made of; each (N, 2) with x and y, or (N,).

    Attributes:
        size: of the predicted box, zero where it is inside out.
        size_target: of the target.
        inner: size of the intersection, zero where disjoint.
        outer: size of the smallest box around both.
        offset: from the centre of the target to that of the prediction.
        union: area.
        iou: intersection over ``union + eps``.
        eps: added to denominators.
    """

    size: Tensor
    size_target: Tensor
    inner: Tensor
    outer: Tensor
    offset: Tensor
    union: Tensor
    iou: Tensor
    eps: float


@dataclass
class Slopes:
    """The derivatives of a loss with respect to parts of a :class:`Pair`, each (N, 2)."""

    size: Tensor
    inner: Tensor
    outer: Tensor
    offset: Tensor


Equation = Callable[[Pair], tuple[Tensor, Slopes]]


def measure(pred: Tensor, target: Tensor, eps: float) -> Pair:
    """Return the sizes, areas and distances of aligned boxes (N, 4)."""
    low, high, low_t, high_t = pred[:, :2], pred[:, 2:], target[:, :2], target[:, 2:]
    size, size_target = ((b - a).clamp(min=0) for a, b in ((low, high), (low_t, high_t)))
    inner = (torch.minimum(high, high_t) - torch.maximum(low, low_t)).clamp(min=0)
    overlap = inner.prod(dim=1)
    union = size.prod(dim=1) + size_target.prod(dim=1) - overlap
    return Pair(
        size=size,
        size_target=size_target,
        inner=inner,
        outer=torch.maximum(high, high_t) - torch.minimum(low, low_t),
        offset=(low + high - low_t - high_t) / 2,
        union=union,
        iou=overlap / (union + eps),
        eps=eps,
    )


def _iou(pair: Pair) -> tuple[Tensor, Slopes]:
    # IoU = I / (A + A_t - I): the overlap counts in the numerator and, negative, below.
    below = (pair.union + pair.eps)[:, None]
    iou = pair.iou[:, None]
    none = torch.zeros_like(pair.size)
    slopes = Slopes(
        size=pair.size.flip(1) * iou / below,
        inner=-pair.inner.flip(1) * (1 + iou) / below,
        outer=none,
        offset=none,
    )
    return 1 - pair.iou, slopes


def _iou_square(pair: Pair) -> tuple[Tensor, Slopes]:
    _, slopes = _iou(pair)
    return 1 - pair.iou**2, _times(slopes, 2 * pair.iou)


def _iou_log(pair: Pair) -> tuple[Tensor, Slopes]:
    _, slopes = _iou(pair)
    above = pair.iou.clamp(min=pair.eps)
    factor = torch.where(pair.iou < pair.eps, 0, 1 / above)
    return -above.log(), _times(slopes, factor)


def _giou(pair: Pair) -> tuple[Tensor, Slopes]:
    loss, slopes = _iou(pair)
    area = pair.outer.prod(dim=1)
    below = area + pair.eps
    empty = (area - pair.union) / below
    slopes.size = slopes.size - pair.size.flip(1) / below[:, None]
    slopes.inner = slopes.inner + pair.inner.flip(1) / below[:, None]
    slopes.outer = pair.outer.flip(1) * ((1 - empty) / below)[:, None]
    return loss + empty, slopes


def _diou(pair: Pair) -> tuple[Tensor, Slopes]:
    loss, slopes = _iou(pair)
    below = pair.outer.square().sum(dim=1) + pair.eps
    far = pair.offset.square().sum(dim=1) / below
    slopes.outer = -2 * pair.outer * (far / below)[:, None]
    slopes.offset = 2 * pair.offset / below[:, None]
    return loss + far, slopes


def _ciou(pair: Pair) -> tuple[Tensor, Slopes]:
    loss, slopes = _diou(pair)
    # Not w / h, which is inf or NaN without a height.
    angle, angle_target = (torch.atan2(*size.unbind(1)) for size in (pair.size, pair.size_target))
    turn = (angle_target - angle) * (2 / math.pi)
    v = turn.square()
    alpha = v / (1 - pair.iou + v + pair.eps)
    square = pair.size.square().sum(dim=1).clamp(min=torch.finfo(v.dtype).tiny)
    factor = alpha * turn * (4 / math.pi) / square
    slopes.size = slopes.size + torch.stack([-factor, factor], dim=1) * pair.size.flip(1)
    return loss + alpha * v, slopes


def _times(slopes: Slopes, factor: Tensor) -> Slopes:
    factor = factor[:, None]
    return Slopes(
        slopes.size * factor, slopes.inner * factor, slopes.outer * factor, slopes.offset * factor
    )


def _assemble(slopes: Slopes, pair: Pair, pred: Tensor, target: Tensor) -> Tensor:
    """Return the derivative with respect to ``pred``, (N, 4)."""
    low, high, low_t, high_t = pred[:, :2], pred[:, 2:], target[:, :2], target[:, 2:]
    size = slopes.size * (pair.size > 0)
    inner = slopes.inner * (pair.inner > 0)
    centre = slopes.offset / 2
    by_low = centre - size - inner * _step(low - low_t) - slopes.outer * _step(low_t - low)
    by_high = centre + size + inner * _step(high_t - high) + slopes.outer * _step(high - high_t)
    return torch.cat([by_low, by_high], dim=1)


def _step(x: Tensor) -> Tensor:
    """Return 0, 1/2 or 1: at a tie both boxes bound the intersection, as in PyTorch's maximum."""
    return (x.sign() + 1) / 2


def _rowwise(equation: Equation, pred: Tensor, target: Tensor, eps: float) -> Tensor:
    """Return a loss (N,) of boxes (N, 4), which keeps one tensor, its gradient, for backward."""
    loss: Tensor = with_slope(_loss_and_slope, pred, target.detach(), equation, eps)
    return loss


def _loss_and_slope(
    pred: Tensor, target: Tensor, equation: Equation, eps: float
) -> tuple[Tensor, Tensor]:
    dtype = compute_dtype(pred)
    pred, target = pred.to(dtype), target.to(dtype)
    pair = measure(pred, target, eps)
    loss, slopes = equation(pair)
    return loss, _assemble(slopes, pair, pred, target)
