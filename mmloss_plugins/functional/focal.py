"""Focal losses: of RetinaNet on hard or soft labels, of CornerNet on Gaussian heatmaps."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from mmloss_plugins.errors import message
from mmloss_plugins.functional.closed_form import Equation, closed_form, indicator
from mmloss_plugins.functional.debug import value_checks_enabled
from mmloss_plugins.functional.shapes import check_range, check_same_shape, refuse_gradient

# The logits of these are -27.6, as in MMDetection, and 16.6, the last float32 before 1.
LOWEST, HIGHEST = 1e-12, 1 - 2**-24
TINY = torch.finfo(torch.float32).tiny


def sigmoid_focal(
    pred: Tensor,
    target: Tensor,
    *,
    alpha: float | Tensor | None = 0.25,
    gamma: float = 2.0,
    ignore_index: int | None = None,
    from_logits: bool = True,
    summed: bool = False,
) -> Tensor:
    r"""Penalise each binary decision by its cross-entropy, but hardly where it is already right.

    .. math::
        FL = \alpha_t \, |t - p|^\gamma \, BCE(p, t), \qquad p = \sigma(x), \qquad
        \alpha_t = \alpha t + (1 - \alpha) (1 - t)

    which for t in {0, 1} is equation 5 of the paper, :math:`-\alpha_t (1 - p_t)^\gamma \log p_t`.
    For soft labels :math:`|t - p|` stands for :math:`p (1 - t) + (1 - p) t`, as in torchvision
    and MMDetection. ``gamma=0`` is the alpha-balanced BCE, and with ``alpha=None`` the BCE.

    Args:
        pred: logits x, (N, C) or any other shape with the classes in dimension 1.
        target: t in [0, 1], shape of ``pred``; or integer class labels, the shape of ``pred``
            without dimension 1, where C is background (as MMDetection's heads have it) and so
            is any other label outside 0...C-1.
        alpha: weight of t = 1 against 1 - alpha of t = 0; a tensor (C,) gives each class its
            own. None or -1: no balancing.
        gamma: exponent, at least 0; the larger, the less an easy decision counts.
        ignore_index: a value of ``target`` whose elements have loss and gradient 0.
        from_logits: False: ``pred`` holds probabilities; see :func:`gaussian_focal`.
        summed: return the sum of the elements.

    Returns:
        Shape of ``pred`` (a scalar for ``summed``), float32, or float64 for float64 ``pred``.
        It tends to 0 where p tends to t in {0, 1}.

    Raises:
        ValueError: shapes do not match, class labels are not integers, ``alpha`` has another
            length than C, or ``target`` requires a gradient. With :func:`value_checks` also for
            values out of range.

    Differs from:
        ``mmdet.FocalLoss``: no compiled operator, no one-hot tensor, bfloat16 on every device,
        ignored labels, alpha per class. ``torchvision.ops.sigmoid_focal_loss`` is the same.
        FocalLossV1 and ``focal_loss_from_logits``, which write-ups of heatmaps and of FCOS
        print: the same for hard labels. A table that goes with the latter has pred .1 .2 .8 .4
        .4 and target 0 0 1 0 0 as .1539 .1810 .4181 .2454 .2454: its third value is that of
        target 0, for target 1 it is .0089.

    Reference:
        Lin et al., Focal Loss for Dense Object Detection, https://arxiv.org/abs/1708.02002.

    Example:
        >>> import torch
        >>> pred = torch.tensor([[0.9, 0.6, 0.2, 0.3, 0.5]])
        >>> sigmoid_focal(pred, torch.tensor([0]))
        tensor([[0.0071, 0.3244, 0.1810, 0.2114, 0.2831]])
        >>> sigmoid_focal(pred, torch.tensor([5]), gamma=0.0, summed=True)  # background
        tensor(3.6789)
    """
    check_focal_target('sigmoid_focal', pred, target)
    _check_values('sigmoid_focal', pred, target, ignore_index, from_logits)
    options: dict[str, Any] = dict(gamma=gamma, alpha=None)
    constants = [target]
    equation: Equation = _sigmoid_equation
    if target.dim() < pred.dim():
        classes = torch.arange(pred.shape[1], device=pred.device)
        constants = [target.unsqueeze(1), _per_class(classes, pred)]
        equation = _label_equation
    equation = _on_logits(equation, from_logits)
    if isinstance(alpha, Tensor):
        constants.append(_per_class(alpha, pred))
    elif alpha is not None and alpha != -1:
        options['alpha'] = alpha
    if ignore_index is None:
        return closed_form(equation, pred, *constants, summed=summed, **options)
    loss = closed_form(equation, pred, *constants, **options)
    loss = loss.masked_fill(constants[0] == ignore_index, 0)
    return loss.sum() if summed else loss


def gaussian_focal(
    pred: Tensor,
    target: Tensor,
    positives: Tensor | None = None,
    *,
    alpha: float = 2.0,
    beta: float = 4.0,
    pos_threshold: float = 1.0,
    pos_weight: float = 1.0,
    neg_weight: float = 1.0,
    from_logits: bool = True,
    summed: bool = False,
) -> Tensor:
    r"""Focal loss of a heatmap whose negatives count less, the closer they are to a centre.

    .. math::
        L = \begin{cases}
            -(1 - p)^\alpha \log p & \text{at a positive} \\
            -(1 - t)^\beta \, p^\alpha \log(1 - p) & \text{elsewhere}
        \end{cases} \qquad p = \sigma(x)

    CornerNet's equation 1 and CenterNet's, before the division by the number of positives. In
    contrast to :func:`sigmoid_focal` a Gaussian target is no soft label: it makes a cell next to
    a centre a cheap negative.

    Args:
        pred: logits x, any shape, such as (B, K, H, W).
        target: t in [0, 1], shape of ``pred``.
        positives: which elements are positive; None: those with ``target >= pos_threshold``.
            Either a boolean mask of ``pred``'s shape or integer positions: (B, M) of M cells in
            the K * H * W of each sample, (B, K, M) in the H * W of each map, (M,) in all of
            ``pred``; a negative position is padding.
        alpha: exponent of the prediction's error.
        beta: exponent of 1 - t; 0 makes all negatives equal.
        pos_threshold: below 1 for codecs of which no cell is exactly 1 (a centre between cells).
        pos_weight: factor on the loss of positives.
        neg_weight: factor on the loss of the others.
        from_logits: False: ``pred`` holds probabilities, as MMDetection's CenterNetHead hands
            them over. They are clamped to [1e-12, 1 - 2**-24] and turned back into logits. A
            probability that was rounded to 1 has lost its logit: the loss ends at 16.6, and the
            sigmoid before it sends back no gradient.
        summed: return the sum of the elements.

    Returns:
        Shape of ``pred`` (a scalar for ``summed``), float32, or float64 for float64 ``pred``.
        Zero at elements with t = 1 that are not positive; it tends to 0 where the prediction
        is right.

    Raises:
        ValueError: shapes do not match or ``target`` requires a gradient. With
            :func:`value_checks` also for values outside [0, 1].

    Differs from:
        ``mmdet.GaussianFocalLoss`` (its ``gamma`` is ``beta`` here), ``mmpose.FocalHeatmapLoss``
        and the authors, which take probabilities: NaN in float16 at a right and confident
        centre, no gradient at a saturated error. Here logit 20 on background has loss 20 and
        gradient 1, in float16 as well.

    Reference:
        Law and Deng, CornerNet, https://arxiv.org/abs/1808.01244, equation 1;
        Zhou et al., Objects as Points, https://arxiv.org/abs/1904.07850, equation 1.

    Example:
        >>> import torch
        >>> target = torch.tensor([[0.0, 0.5, 1.0, 0.5]])
        >>> gaussian_focal(torch.zeros(1, 4), target)  # log(2) / 4 times 1, 1/16, 1, 1/16
        tensor([[0.1733, 0.0108, 0.1733, 0.0108]])
        >>> gaussian_focal(torch.tensor([20.0]), torch.zeros(1))
        tensor([20.])
    """
    check_same_shape('gaussian_focal', pred, target)
    _check_values('gaussian_focal', pred, target, None, from_logits)
    constants = [target]
    if positives is not None:
        constants.append(positive_mask(positives, pred.shape))
    return closed_form(
        _on_logits(_gaussian_equation, from_logits),
        pred,
        *constants,
        summed=summed,
        alpha=alpha,
        beta=beta,
        pos_threshold=pos_threshold,
        pos_weight=pos_weight,
        neg_weight=neg_weight,
    )


def positive_mask(positives: Tensor, shape: torch.Size, what: str = 'positive_mask') -> Tensor:
    """Return ``positives`` of :func:`gaussian_focal` as a boolean mask.

    Args:
        positives: a boolean mask of ``shape``, or integer positions (..., M) in the dimensions
            of ``shape`` that follow the leading ones, which both share; negative ones are padding.
        shape: of the result.
        what: name of the loss, for the error text.

    Raises:
        ValueError: neither of the two.

    Example:
        >>> import torch
        >>> positive_mask(torch.tensor([[1], [-1]]), torch.Size([2, 1, 3]))
        tensor([[[False,  True, False]],
        <BLANKLINE>
                [[False, False, False]]])
    """
    if positives.dtype == torch.bool and positives.shape == shape:
        return positives
    lead = positives.shape[:-1]
    integers = not (positives.dtype.is_floating_point or positives.dtype == torch.bool)
    if (
        not integers
        or positives.dim() == 0
        or len(lead) >= len(shape)
        or shape[: len(lead)] != lead
    ):
        rule = f'be a boolean mask {tuple(shape)} or integer positions (..., M) behind leading ones'
        got = f'{positives.dtype} {tuple(positives.shape)}'
        step = 'Pass (B, M) positions in the K * H * W cells of a sample, -1 for none'
        raise ValueError(message(what, 'positives', rule, got, step))
    found = torch.zeros(
        (*lead, shape[len(lead) :].numel()), dtype=torch.int32, device=positives.device
    )
    # Padding adds 0 to the first cell instead of overwriting it.
    found = found.scatter_add(-1, positives.clamp(min=0).long(), (positives >= 0).int())
    return (found > 0).reshape(shape)


def check_focal_target(what: str, pred: Tensor, target: Tensor) -> None:
    """Refuse a target that is neither of ``pred``'s shape nor its class labels.

    Args:
        what: name of the loss, for the error text.
        pred: logits.
        target: labels.

    Raises:
        TypeError: one of them is no tensor.
        ValueError: another shape, labels that are no integers, or a target with a gradient.
    """
    both = isinstance(pred, Tensor) and isinstance(target, Tensor)
    if not both or pred.dim() < 2 or target.dim() >= pred.dim():
        check_same_shape(what, pred, target)
        return
    expected = (pred.shape[0], *pred.shape[2:])
    if target.shape != expected:
        rule = f'have the shape {tuple(pred.shape)} of pred, or {expected} as class labels'
        step = 'Flatten both so that the classes are dimension 1 of pred'
        raise ValueError(message(what, 'target', rule, tuple(target.shape), step))
    if target.dtype.is_floating_point or target.dtype == torch.bool:
        rule = f'be integer class labels in the shape {expected}'
        step = 'Call .long() on labels, or pass soft labels in the shape of pred'
        raise ValueError(message(what, 'target', rule, target.dtype, step))
    refuse_gradient(what, target)


def _label_equation(
    x: Tensor, label: Tensor, index: Tensor, *class_alpha: Tensor, **options: Any
) -> tuple[Tensor, Tensor]:
    return _sigmoid_equation(x, indicator(torch.eq, label, index, x), *class_alpha, **options)


def _sigmoid_equation(
    x: Tensor, t: Tensor, *class_alpha: Tensor, alpha: float | None, gamma: float
) -> tuple[Tensor, Tensor]:
    """Return the loss and its slope, exact where t is 0 or 1 however far out x is."""
    p, q = torch.sigmoid(x), torch.neg(x).sigmoid_()  # q = 1 - p would round to 0
    miss = torch.lerp(p, q, t)
    if gamma < 1:
        miss.clamp_(min=TINY)  # the power has an infinite slope at 0
    # BCE = max(x, 0) - t x + log(1 + exp(-|x|)), and 1 / (1 + exp(-|x|)) = 1 - min(p, q)
    bce = torch.relu(x).addcmul_(t, x, value=-1).sub_(torch.minimum(p, q).neg_().log1p_())
    # d miss / dx = (1 - 2 t) p q and d BCE / dx = p - t = miss - 2 t q, in the memory of p and q
    curved = p.mul_(q).mul_(bce)
    curved.addcmul_(curved, t, value=-2)
    slope = q.mul_(t).mul_(-2).add_(miss)
    factor = _balance(t, *class_alpha, alpha=alpha).mul_(_power(miss, gamma - 1))
    miss.mul_(factor)
    return bce.mul_(miss), slope.mul_(miss).add_(curved.mul_(factor), alpha=gamma)


def _balance(t: Tensor, *class_alpha: Tensor, alpha: float | None) -> Tensor:
    """Return alpha_t as a new tensor."""
    if class_alpha:
        return torch.lerp(1 - class_alpha[0], class_alpha[0], t)
    return torch.ones_like(t) if alpha is None else t.mul(2 * alpha - 1).add_(1 - alpha)


def _gaussian_equation(
    x: Tensor,
    t: Tensor,
    *mask: Tensor,
    alpha: float,
    beta: float,
    pos_threshold: float,
    pos_weight: float,
    neg_weight: float,
) -> tuple[Tensor, Tensor]:
    """Return the loss and its slope in z = -x at positives and z = x elsewhere.

    Both are factor * sigmoid(z)^alpha * softplus(z), so that nothing is selected.
    """
    positive = mask[0] if mask else indicator(torch.ge, t, pos_threshold, x)
    z = torch.addcmul(x, x, positive, value=-2)
    loss = softplus(z)
    miss = z.sigmoid_()
    factor = _power(1 - t, beta)
    if neg_weight != 1:
        factor = factor * neg_weight
    factor = torch.lerp(factor, x.new_full((), pos_weight), positive)
    # d L / dz = factor * miss^alpha * (miss + alpha * (1 - miss) * softplus(z))
    slope = torch.addcmul(loss, loss, miss, value=-1).mul_(alpha).add_(miss)
    factor.mul_(_power(miss, alpha))
    slope.mul_(factor)
    return loss.mul_(factor), slope.addcmul_(slope, positive, value=-2)


def _on_logits(equation: Equation, from_logits: bool) -> Equation:
    return equation if from_logits else partial(_of_probabilities, equation)


def _of_probabilities(
    equation: Equation, p: Tensor, *constants: Tensor, **options: Any
) -> tuple[Tensor, Tensor]:
    p = p.clamp(LOWEST, HIGHEST)
    loss, slope = equation(torch.logit(p), *constants, **options)
    return loss, slope / (p * (1 - p))


def _power(x: Tensor, exponent: float) -> Tensor:
    """Return x ** exponent; by squares, which are 20 times as fast as a power on a CPU."""
    if exponent > 2 and exponent % 2 == 0:
        return _power(x, exponent / 2).square_()
    return x if exponent == 1 else x.pow(exponent)


def _per_class(values: Tensor, pred: Tensor) -> Tensor:
    """View ``values`` (C,) so that it broadcasts along dimension 1 of ``pred``."""
    if pred.dim() < 2 or values.shape != pred.shape[1:2]:
        rule = 'have one value for each class, dimension 1 of pred'
        got = f'{tuple(values.shape)} for pred {tuple(pred.shape)}'
        step = 'Pass a number if it is the same for every class'
        raise ValueError(message('sigmoid_focal', 'alpha', rule, got, step))
    return values.reshape(-1, *[1] * (pred.dim() - 2))


def _check_values(
    what: str, pred: Tensor, target: Tensor, ignore_index: int | None, from_logits: bool
) -> None:
    if not value_checks_enabled():
        return
    if ignore_index is not None:
        target = target.masked_fill(target == ignore_index, 0)
    check_range(what, target, 0, 1 if target.dim() == pred.dim() else pred.shape[1])
    if from_logits:
        return
    outside = (pred < 0) | (pred > 1)
    if outside.any():
        rule = 'be probabilities in [0, 1] with from_logits=False'
        got = f'{pred.detach()[outside][0].item():g}'
        raise ValueError(message(what, 'pred', rule, got, 'Leave from_logits out for logits'))
