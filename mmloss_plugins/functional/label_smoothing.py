"""Cross-entropy with smoothed labels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmloss_plugins.errors import check_choice, message
from mmloss_plugins.functional._margin_checks import check_labels
from mmloss_plugins.functional.closed_form import compute_dtype, finish_gradient

SPREADS = ('others', 'all')


def label_smoothing_ce(
    logits: Tensor,
    target: Tensor,
    *,
    smoothing: float = 0.1,
    spread: str = 'others',
    class_weight: Tensor | None = None,
    ignore_index: int = -100,
) -> Tensor:
    r"""Penalise the cross-entropy with a label that leaves some probability to other classes.

    .. math::
        L = - \sum_j v_j \, q_j \log \mathrm{softmax}(x)_j, \qquad
        q_j = \begin{cases} 1 - \epsilon & j = y \\
            \epsilon / (C - 1) & \text{otherwise} \end{cases}

    and for ``spread='all'`` :math:`q_j = (1 - \epsilon) [j = y] + \epsilon / C`, which is PyTorch's
    form and the paper's. The first with epsilon equals the second with epsilon * C / (C - 1).
    In contrast to plain cross-entropy the best logits are finite.

    Args:
        logits: x, shape (N, C) or (N, C, ...), any floating-point type.
        target: y, shape (N,) or (N, ...), classes 0...C-1 or ``ignore_index``.
        smoothing: epsilon, within [0, 1); 0 is plain cross-entropy.
        spread: 'others': over the C - 1 wrong classes; 'all': over all C.
        class_weight: v, shape (C,): factors on the terms of the classes, as in PyTorch. None: 1.
        ignore_index: elements of this class have loss and gradient 0.

    Returns:
        Shape of ``target``, float32 (float64 for float64 ``logits``). At least the entropy of
        the label without class weights; tends to 0 for ``smoothing=0`` and a right prediction.

    Raises:
        TypeError: an input is no tensor, or ``target`` holds no integers.
        ValueError: wrong shapes, ``smoothing`` out of range or an unknown ``spread``. With
            :func:`value_checks` also a class that does not exist.

    Differs from:
        ``torch.nn.functional.cross_entropy``: the default spread; an element behind a
        ``grad_output`` of 0 gets no gradient even if its logits are NaN; only the inputs are kept
        for backward. ``mmpretrain.LabelSmoothLoss``: its mode 'original' is ``spread='all'``.

    Reference:
        Szegedy et al., Rethinking the Inception Architecture, https://arxiv.org/abs/1512.00567,
        section 7.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[2.0, 0.0, 0.0]])
        >>> label_smoothing_ce(logits, torch.tensor([0]), smoothing=0.0)  # log(1 + 2 exp(-2))
        tensor([0.2395])
        >>> label_smoothing_ce(logits, torch.tensor([0]))  # plus 0.1 times 2
        tensor([0.4395])
    """
    check_choice('label_smoothing_ce', 'spread', spread, SPREADS)
    check_smoothing('label_smoothing_ce', smoothing)
    check_logits('label_smoothing_ce', logits, target, ignore_index)
    _check_class_weight(logits, class_weight)
    ignored = target == ignore_index
    index = torch.where(ignored, 0, target.long())
    classes = logits.shape[1]
    off = smoothing / (classes if spread == 'all' else max(classes - 1, 1))
    # What the right class has beyond the others.
    peak = 1 - smoothing - (0 if spread == 'all' else off)
    if classes == 1:
        off, peak = 0.0, 1.0
    loss: Tensor = _SmoothedCE.apply(  # type: ignore[no-untyped-call]
        logits, index, ignored, class_weight, off, peak
    )
    return loss


def check_smoothing(what: str, smoothing: Any) -> None:
    """Refuse a share that is none.

    Raises:
        ValueError: not a number within [0, 1).
    """
    if isinstance(smoothing, (int, float)) and 0 <= smoothing < 1:
        return
    step = 'Papers have 0.1'
    raise ValueError(message(what, 'smoothing', 'be within [0, 1)', smoothing, step))


def check_logits(what: str, logits: Any, target: Any, ignore_index: int) -> None:
    """Refuse logits and classes that do not fit together.

    Args:
        what: name of the loss, for the error text.
        logits: (N, C, ...).
        target: (N, ...).
        ignore_index: label of elements that drop out.

    Raises:
        TypeError: no floating-point tensor, or labels that are no integers.
        ValueError: shapes; under value checks also labels.
    """
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        got = logits.dtype if isinstance(logits, Tensor) else type(logits).__name__
        step = 'Pass the output of the head'
        raise TypeError(message(what, 'pred', 'be a floating-point tensor', got, step))
    if logits.dim() < 2 or logits.shape[1] == 0:
        step = 'Put the classes into dimension 1'
        rule = 'have the shape (N, C) or (N, C, ...)'
        raise ValueError(message(what, 'pred', rule, tuple(logits.shape), step))
    shape = (logits.shape[0], *logits.shape[2:])
    check_labels(what, target, shape, logits.shape[1], ignore_index)


class _SmoothedCE(torch.autograd.Function):
    """-peak v_y log p_y - off sum_j v_j log p_j over dimension 1, with its closed-form gradient.

    dL/dx_j = p_j (peak v_y + off sum_i v_i) - peak v_y [j = y] - off v_j, so that backward needs
    the inputs alone.
    """

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, logits, index, ignored, class_weight, off, peak
    ):
        ctx.save_for_backward(logits, index, ignored, class_weight)
        ctx.off, ctx.peak = off, peak
        log_p = torch.log_softmax(logits.to(compute_dtype(logits)), dim=1)
        peaks, _ = _factors(log_p, index, class_weight, off, peak)
        loss = -peaks * log_p.gather(1, index.unsqueeze(1))
        if off:
            if class_weight is not None:
                log_p.mul_(_per_class(class_weight, log_p))
            loss.sub_(log_p.sum(1, keepdim=True), alpha=off)
        return loss.squeeze(1).masked_fill_(ignored, 0)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        logits, index, ignored, class_weight = ctx.saved_tensors
        slope = torch.softmax(logits.to(compute_dtype(logits)), dim=1)
        peaks, mass = _factors(slope, index, class_weight, ctx.off, ctx.peak)
        slope.mul_(mass)
        if class_weight is not None:
            slope.sub_(_per_class(class_weight, slope), alpha=ctx.off)
        elif ctx.off:
            slope.sub_(ctx.off)
        slope.scatter_add_(1, index.unsqueeze(1), -peaks)
        grad = grad.masked_fill(ignored, 0).unsqueeze(1)
        slope = finish_gradient(slope.mul_(grad), grad, logits.dtype)
        return slope, None, None, None, None, None


def _factors(
    like: Tensor, index: Tensor, class_weight: Tensor | None, off: float, peak: float
) -> tuple[Tensor, Tensor]:
    """Return peak * v_y, and the sum of all factors of an element; both (N, 1, ...)."""
    if class_weight is None:
        peaks = like.new_full((), peak).expand(index.shape).unsqueeze(1)
        return peaks, like.new_full((), peak + off * like.shape[1])
    weight = class_weight.detach().to(like.dtype)
    peaks = peak * weight[index].unsqueeze(1)
    return peaks, peaks + off * weight.sum()


def _per_class(class_weight: Tensor, like: Tensor) -> Tensor:
    weight = class_weight.detach().to(like.dtype)
    return weight.reshape(-1, *[1] * (like.dim() - 2))


def _check_class_weight(logits: Tensor, class_weight: Any) -> None:
    if class_weight is None or (
        isinstance(class_weight, Tensor) and class_weight.shape == logits.shape[1:2]
    ):
        return
    rule = f'be a tensor with one factor for each of {logits.shape[1]} classes'
    got = tuple(class_weight.shape) if isinstance(class_weight, Tensor) else class_weight
    step = 'Give one factor per channel of pred'
    raise ValueError(message('label_smoothing_ce', 'class_weight', rule, got, step))
