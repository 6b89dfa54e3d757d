"""Logits of normalised vectors, with their closed-form gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from mmloss_plugins.functional._angles import (
    Margin,
    OwnClass,
    full_precision,
    own_class,
    through_unit,
    unit,
    with_margin,
)
from mmloss_plugins.functional.closed_form import compute_dtype, finish_gradient


def margins_of(
    margins: tuple[float, Margin, Margin], index: Tensor, dtype: torch.dtype
) -> tuple[float, Margin, Margin]:
    """Return the margins with one per sample where they have one per class."""
    m1, *others = margins
    m2, m3 = (m.detach().to(dtype)[index] if isinstance(m, Tensor) else m for m in others)
    return m1, m2, m3


def silence(x: Tensor, silent: Tensor) -> Tensor:
    """Set the rows (B, D) of the samples that are ``silent`` (B,) to 0, in place."""
    return x.masked_fill_(silent.unsqueeze(-1), 0)


def hypersphere_logits(
    features: Tensor,
    class_weights: Tensor,
    scale: float,
    normalize_features: bool = True,
    index: Tensor | None = None,
    ignored: Tensor | None = None,
    margins: tuple[float, Margin, Margin] = (1.0, 0.0, 0.0),
    rule: str = 'off',
) -> Tensor:
    """Return scaled products of features and normalised class weights.

    Args:
        features: (B, D).
        class_weights: (C, D) or (C, K, D).
        scale: factor.
        normalize_features: divide the features by their norms.
        index: (B,) own classes within 0...C-1, which get the margins; None: no margins.
        ignored: (B,) samples without a margin.
        margins: m1, m2, m3; the last two a number or one per sample.
        rule: see :func:`functional.combined_margin_logits`.

    Returns:
        (B, C), of the type that ``features`` are computed in.
    """
    logits: Tensor = _Logits.apply(  # type: ignore[no-untyped-call]
        features, class_weights, scale, normalize_features, index, ignored, margins, rule
    )
    return logits


class _Logits(torch.autograd.Function):
    """Logits with their closed-form gradient; nothing of their size is kept but sub-centres.

    Backward is that of the plain cosines plus, for each sample, what the margin adds along the
    tangents: through the cosine it would be 0 * inf at an angle of 0.
    """

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, features, class_weights, scale, normalize_features, index, ignored, margins, rule
    ):
        dtype = compute_dtype(features)
        x = features.to(dtype)
        if normalize_features:
            x, _ = unit(x)
        w, _ = unit(class_weights.to(dtype).flatten(0, -2))
        with full_precision(x.device):
            logits = torch.mm(x * scale, w.t())
        best = None
        if class_weights.dim() == 3:
            logits, best = nearest_centre(logits.reshape(len(x), *class_weights.shape[:2]))
        if index is not None:
            own = own_class(x, class_weights, index)
            value, _ = with_margin(own.cosine, own.sine, margins, rule)
            column = index.unsqueeze(1)
            plain = logits.gather(1, column)
            value = torch.where(ignored.unsqueeze(1), plain, value.unsqueeze(1) * scale)
            logits.scatter_(1, column, value)
        ctx.save_for_backward(features, class_weights, index, ignored, best)
        ctx.scale, ctx.normalize_features = scale, normalize_features
        ctx.margins, ctx.rule = margins, rule
        return logits

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        features, class_weights, index, ignored, best = ctx.saved_tensors
        dtype = compute_dtype(features)
        grad = grad.to(dtype)
        # 0 * NaN: a sample without weight must not reach the classes whatever its features are.
        largest = torch.linalg.vector_norm(grad, ord=torch.inf, dim=1, keepdim=True)
        silent = largest.squeeze(1) == 0
        x = features.to(dtype)
        x, inverse = unit(x) if ctx.normalize_features else (x, torch.ones_like(x[:, :1]))
        x = x.masked_fill(silent.unsqueeze(-1), 0)
        w, w_inverse = unit(class_weights.to(dtype).flatten(0, -2))
        spread = grad if best is None else to_centres(grad, best, class_weights.shape[1])
        with full_precision(x.device):
            grad_x = torch.mm(spread, w).mul_(ctx.scale)
            grad_w = torch.mm(spread.t(), x * ctx.scale)
        grad_w = through_unit(grad_w, w, w_inverse)
        if ctx.normalize_features:
            grad_x = through_unit(grad_x, x, inverse)
        if index is not None:
            own = own_class(x, class_weights, index)
            _, pull = with_margin(own.cosine, own.sine, ctx.margins, ctx.rule)
            steps = grad.gather(1, index.unsqueeze(1)).squeeze(1) * (pull - own.sine) * ctx.scale
            pull_own(grad_x, grad_w, own, inverse, steps.masked_fill_(ignored | silent, 0))
        grad_x = finish_gradient(silence(grad_x, silent), largest, features.dtype, silence=False)
        grad_w = grad_w.reshape(class_weights.shape).to(class_weights.dtype)
        return grad_x, grad_w, None, None, None, None, None, None


def nearest_centre(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return the highest of (B, C, K) logits and, in 2 bytes each, which sub-centre has it."""
    highest, best = logits.max(-1)
    return highest, best.to(torch.int16)


def to_centres(grad: Tensor, best: Tensor, centres: int) -> Tensor:
    """Hand the gradient (B, C) of the nearest sub-centres ``best`` to these: (B, C * K)."""
    spread = grad.new_zeros((*grad.shape, centres))
    return spread.scatter_(-1, best.unsqueeze(-1).long(), grad.unsqueeze(-1)).flatten(1)


def pull_own(grad_x: Tensor, grad_w: Tensor, own: OwnClass, inverse: Tensor, steps: Tensor) -> None:
    """Add the gradient of the own angles to those of features and weights, in place.

    Args:
        grad_x: (B, D).
        grad_w: (C, D), sub-centres flattened.
        own: tangents.
        inverse: (B, 1), 1 / |x|.
        steps: (B,), minus the gradient of the angle.
    """
    steps = steps.unsqueeze(-1)
    grad_x.addcmul_(own.toward_class, steps * inverse)
    grad_w.index_add_(0, own.row, own.toward_sample * (steps * own.inverse))
