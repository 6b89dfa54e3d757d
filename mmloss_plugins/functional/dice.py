"""Dice loss: one minus the overlap of prediction and target (V-Net, arXiv 1606.04797)."""

from __future__ import annotations

import torch
from torch import Tensor

from mmloss_plugins.errors import check_choice, message
from mmloss_plugins.functional.debug import value_checks_enabled
from mmloss_plugins.functional.reduction import expand_weight
from mmloss_plugins.functional.shapes import check_range, check_same_shape, refuse_gradient

ACTIVATIONS = ('sigmoid', 'softmax', 'none')
RATIO_OVER = ('batch', 'sample', 'channel')
POWERS = (1, 2)


def dice_loss(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    activation: str = 'sigmoid',
    ratio_over: str = 'batch',
    power: int = 1,
    smooth_numerator: float = 1.0,
    smooth_denominator: float = 1.0,
    ignore_index: int = -100,
) -> Tensor:
    r"""Penalise the part of prediction and target that does not overlap.

    .. math::
        L = 1 - \frac{2 \sum_i w_i p_i t_i + s_n}{\sum_i w_i (p_i^q + t_i^q) + s_d}

    with q = ``power``. In contrast to cross-entropy the many pixels of an easy background do not
    count. With :math:`s_n = s_d` an empty target with an empty prediction is 0; without
    :math:`s_n` it is 1 whatever is predicted, and nearly without a gradient.

    =========================  ============  =======  ==================  ====================
    to have the value of       `ratio_over`  `power`  `smooth_numerator`  `smooth_denominator`
    =========================  ============  =======  ==================  ====================
    this function              batch         1        1                   1
    DB, MMOCR's MaskedDice     batch         1        0                   1e-6
    MMOCR's MaskedSquareDice   sample        2        0                   2e-3
    MMDetection                sample        2        0                   2e-3
    MMDetection, naive_dice    sample        1        1e-3                1e-3
    =========================  ============  =======  ==================  ====================

    Args:
        logits: x, shape (B, C, ...), any finite values; probabilities for ``activation='none'``.
        target: t, same shape, in [0, 1]. For 'softmax' also class indices (B, ...), an integer
            type, from 0 to C - 1.
        weight: w, pixel weights or validity, matched from the left to the shape of ``logits``:
            (B, 1, H, W) for all channels. 0 takes an element out of every sum, whatever it holds.
        activation: p of x: 'sigmoid', 'softmax' over dimension 1, or 'none'.
        ratio_over: one ratio over the 'batch', one for each 'sample', or one for each 'channel'
            of each sample.
        power: 1, or 2 for the squares of V-Net.
        smooth_numerator: s_n, in pixels.
        smooth_denominator: s_d, in pixels, greater than 0.
        ignore_index: class index of pixels that do not count.

    Returns:
        Shape (1,), (B,) or (B, C), float32 (float64 for float64 logits), between 0 and 1 for
        s_n <= s_d. Exactly 0 without a gradient where a ratio has no pixel of weight.

    Raises:
        ValueError: shapes do not fit, ``target`` requires a gradient, an option is outside its
            range. With :func:`value_checks` also a target outside its range.

    Differs from:
        ``mmdet.models.losses.DiceLoss``, ``mmocr.models.MaskedDiceLoss``: logits, sums in float32
        for half inputs, validity in all sums, softmax; keeps no tensor of the input's size
        besides its inputs. An infinite logit, an overflow before, gives NaN where a sigmoid
        would hide it.

    Reference:
        https://arxiv.org/abs/1606.04797, section 3; https://github.com/MhLiao/DB,
        ``dice_loss.py``.

    Example:
        >>> import torch
        >>> logits, target = torch.tensor([[9.0, -9.0, -9.0]]), torch.tensor([[1.0, 1.0, 0.0]])
        >>> dice_loss(logits, target)  # 1 - (2 * 1 + 1) / (1 + 2 + 1), the sigmoids nearly 1, 0, 0
        tensor([0.2500])
    """
    check_dice('dice_loss', activation, ratio_over, power, smooth_numerator, smooth_denominator)
    check_dice_target('dice_loss', logits, target, activation, ratio_over)
    weight, target = _weights(logits, target, weight, ignore_index)
    if not target.is_floating_point() and value_checks_enabled():
        _check_labels(target, logits.shape[1])
    dims = RATIO_OVER.index(ratio_over)
    options = (activation, dims, power, float(smooth_numerator), float(smooth_denominator))
    loss: Tensor
    loss, *_ = _Dice.apply(logits, target, weight, *options)  # type: ignore[no-untyped-call]
    return loss.reshape(dice_shape(logits.shape, ratio_over))


def dice_shape(shape: torch.Size, ratio_over: str) -> torch.Size:
    """Return the shape of the loss for logits of ``shape``."""
    return torch.Size([1]) if ratio_over == 'batch' else shape[: RATIO_OVER.index(ratio_over)]


def check_dice(
    what: str,
    activation: str,
    ratio_over: str,
    power: int,
    smooth_numerator: float,
    smooth_denominator: float,
) -> None:
    """Refuse options outside their range.

    Raises:
        ValueError: names the option.
    """
    check_choice(what, 'activation', activation, ACTIVATIONS)
    check_choice(what, 'ratio_over', ratio_over, RATIO_OVER)
    if power not in POWERS:
        step = 'DB takes 1, V-Net 2'
        raise ValueError(message(what, 'power', 'be 1 or 2', repr(power), step))
    if not smooth_numerator >= 0:
        step = 'Take 0 for the ratio of DB, or that of smooth_denominator'
        rule = 'be zero or positive'
        raise ValueError(message(what, 'smooth_numerator', rule, smooth_numerator, step))
    if not smooth_denominator > 0:
        rule, step = 'be positive', 'Without it an empty target and prediction give 0 / 0'
        raise ValueError(message(what, 'smooth_denominator', rule, smooth_denominator, step))


def check_dice_target(
    what: str, logits: Tensor, target: Tensor, activation: str, ratio_over: str
) -> None:
    """Refuse a target whose shape does not fit the logits, and logits with too few dimensions.

    Raises:
        TypeError: one of them is no tensor.
        ValueError: shapes do not fit, or the target requires a gradient.
    """
    if not _is_labels(logits, target, activation):
        check_same_shape(what, logits, target)
        check_range(what, target, 0, 1)
    needed = max(RATIO_OVER.index(ratio_over), 2 if activation == 'softmax' else 0)
    if logits.dim() < needed:
        rule = f"have the shape (B, C, ...) for {activation!r} and ratio_over='{ratio_over}'"
        step = 'Add the dimension of channels'
        raise ValueError(message(what, 'pred', rule, tuple(logits.shape), step))
    refuse_gradient(what, target)


def _is_labels(logits: Tensor, target: Tensor, activation: str) -> bool:
    return (
        activation == 'softmax'
        and isinstance(target, Tensor)
        and not target.is_floating_point()
        and target.shape == logits.shape[:1] + logits.shape[2:]
    )


def _check_labels(target: Tensor, classes: int) -> None:
    bad = (target < 0) | (target >= classes)
    if bad.any():
        index = tuple(bad.nonzero()[0].tolist())
        rule = f'hold class indices from 0 to {classes - 1} or ignore_index'
        got = f'{target[index].item()} at index {index}'
        raise ValueError(message('dice_loss', 'target', rule, got, 'Count classes from 0'))


def _weights(
    logits: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int
) -> tuple[Tensor | None, Tensor]:
    """Return weights with the dimensions of ``logits`` and labels without ``ignore_index``."""
    if weight is not None:
        weight = expand_weight(weight, logits.shape, 'dice_loss').detach()
    if target.shape == logits.shape:
        return weight, target
    counts = (target != ignore_index)[:, None]
    target = torch.where(counts[:, 0], target, 0)
    if weight is None:
        return counts, target
    return torch.where(counts, weight, 0), target


class _Dice(torch.autograd.Function):
    """L of each ratio with its closed-form gradient; backward computes p again from the inputs.

    With N and D the numerator and the denominator,
    dL / dp = w (-2 t / D + N / D^2 * q p^(q - 1)).
    """

    @staticmethod
    def forward(
        logits: Tensor,
        target: Tensor,
        weight: Tensor | None,
        activation: str,
        dims: int,
        power: int,
        smooth_numerator: float,
        smooth_denominator: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        p, t, w = _dense(logits, target, weight, activation)
        overlap, size = p * t, (p + t if power == 1 else p * p + t * t)
        if w is not None:
            overlap, size = overlap * w, size * w
        groups = logits.shape[:dims].numel(), logits.shape[dims:].numel()
        numerator = 2 * overlap.reshape(groups).sum(1) + smooth_numerator
        denominator = size.reshape(groups).sum(1) + smooth_denominator
        loss = 1 - numerator / denominator
        if w is not None:
            loss = loss.masked_fill(~(w != 0).expand(p.shape).reshape(groups).any(1), 0)
        if groups[1] == 0:
            loss = torch.zeros_like(loss)
        return loss, numerator, denominator

    @staticmethod
    def setup_context(ctx, inputs, output):  # type: ignore[no-untyped-def]
        logits, target, weight, ctx.activation, ctx.dims, ctx.power, *_ = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(logits, target, weight, *output[1:])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad, *_):  # type: ignore[no-untyped-def]
        if grad is None:
            return (None,) * 8
        logits, target, weight, numerator, denominator = ctx.saved_tensors
        p, t, w = _dense(logits, target, weight, ctx.activation)
        per_ratio = (*logits.shape[: ctx.dims], *[1] * (logits.dim() - ctx.dims))
        grad = grad.reshape(per_ratio)
        grow = 2 * grad / denominator.reshape(per_ratio)
        shrink = grad * (numerator / denominator**2).reshape(per_ratio)
        slope = 2 * p * shrink if ctx.power == 2 else shrink.expand(p.shape)
        slope = slope - t * grow
        if w is not None:
            slope = slope * w
        # 0 * NaN: a ratio without weight must stay without gradient whatever its logits are.
        silent = grad == 0
        if ctx.activation == 'sigmoid':
            slope = slope * p * (1 - p)
        if ctx.activation == 'softmax':
            slope = slope.masked_fill(silent, 0)
            slope = p * (slope - (p * slope).sum(1, keepdim=True))
            silent = silent.all(1, keepdim=True)
        return slope.masked_fill(silent, 0).to(logits.dtype), *(None,) * 7


def _dense(
    logits: Tensor, target: Tensor, weight: Tensor | None, activation: str
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return p, t and w in the type of the sums, harmless where w is 0."""
    x = logits if logits.dtype == torch.float64 else logits.float()
    if target.shape != logits.shape:
        classes = torch.arange(logits.shape[1], device=logits.device)
        target = target[:, None] == classes.reshape(-1, *[1] * (logits.dim() - 2))
    t = target.to(x.dtype)
    if weight is None:
        return _activate(x, activation), t, None
    off = weight == 0
    t = t.masked_fill(off, 0)
    # A softmax needs all channels of a pixel: only a pixel that is off as a whole may be blanked.
    blank = off.all(1, keepdim=True) if activation == 'softmax' else off
    return _activate(x.masked_fill(blank, 0), activation), t, weight.to(x.dtype)


def _activate(x: Tensor, activation: str) -> Tensor:
    if activation == 'softmax':
        return torch.softmax(x, dim=1)
    # x - x: an infinite logit would be a confident and finite prediction.
    return torch.sigmoid(x) + (x - x) if activation == 'sigmoid' else x
