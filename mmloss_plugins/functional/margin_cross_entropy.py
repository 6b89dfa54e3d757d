"""Cross-entropy of cosines with a margin, also for more classes than fit as logits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch import distributed as dist
from torch.nn.functional import softplus

from mmloss_plugins.errors import message
from mmloss_plugins.functional._angles import (
    Margin,
    full_precision,
    inverse_norm,
    own_class,
    through_unit,
    unit,
    with_margin,
)
from mmloss_plugins.functional._margin_checks import check_classifier, check_margins
from mmloss_plugins.functional._margin_logits import (
    margins_of,
    nearest_centre,
    pull_own,
    silence,
    to_centres,
)
from mmloss_plugins.functional._ranks import reduced
from mmloss_plugins.functional.closed_form import compute_dtype, finish_gradient
from mmloss_plugins.functional.margins import ARCFACE

# Classes at a time on a CPU, even where all logits are kept: passes over them stay in its caches.
BLOCK = 4096
# Exponentials that are kept with a chunk size: 32 MiB of float32, whatever the number of classes.
KEPT = 2**23
# Below any logit; not -inf, of which the difference to -inf is NaN.
LOWEST = -1e30
Margins = tuple[float, Margin, Margin]


def margin_cross_entropy(
    features: Tensor,
    class_weights: Tensor,
    target: Tensor,
    *,
    scale: float = 64.0,
    margins: Margins = ARCFACE,
    rule: str = 'monotonic',
    ignore_index: int = -1,
    chunk_size: int | None = None,
) -> Tensor:
    r"""Penalise each sample by its cross-entropy over scaled cosines, its own with a margin.

    .. math::
        L_b = - \log \frac{e^{s \, \phi_b}}
            {e^{s \, \phi_b} + \sum_{j \neq y_b} e^{s \cos \theta_{bj}}}, \qquad
        \phi_b = \cos(m_1 \theta_{b y_b} + m_2) - m_3

    The cross-entropy of :func:`combined_margin_logits` in one piece: it keeps one tensor of the
    size of the logits, or none with ``chunk_size``, and is exact for a sample that is certain.
    With margins of (1, 0, 0) it is NormFace.

    Args:
        features: x, shape (B, D), any floating-point type; normalised in float32.
        class_weights: w, shape (C, D), or (C, K, D) with K sub-centres per class.
        target: y, shape (B,), classes 0...C-1 or ``ignore_index``.
        scale: s.
        margins: m1, m2, m3; see :func:`combined_margin_logits`.
        rule: 'monotonic', 'easy' or 'off'; see :func:`combined_margin_logits`.
        ignore_index: samples of this class have loss and gradient 0.
        chunk_size: compute the logits of this many classes at a time, and again in backward
            where they are more than fit in 32 MiB. Beside the gradient of the weights, and their
            norms, memory then does not depend on the number of classes; it costs at most one
            matrix product beside three. None: keep all.

    Returns:
        Shape (B,), float32 (float64 for float64 ``features``). Tends to 0 where a sample is much
        nearer to its class than to any other; 0 with a single class.

    Raises:
        TypeError: an input is no tensor, or ``target`` holds no integers.
        ValueError: wrong shapes, a margin, scale or chunk out of range, or an unknown ``rule``.
            With :func:`value_checks` also a class that does not exist.

    Differs from:
        ``torch.nn.functional.cross_entropy`` of logits with a margin: the other classes are summed
        apart from the own one, so that neither a small loss nor its gradient is rounded away.

    Reference:
        Deng et al., ArcFace, https://arxiv.org/abs/1801.07698, equation 3; in chunks: Wijmans et
        al., https://arxiv.org/abs/2411.09009.

    Example:
        >>> import torch
        >>> features, target = torch.tensor([[1.0, 1.0]]), torch.tensor([0])
        >>> margin_cross_entropy(features, torch.eye(2), target, scale=4.0)
        tensor([1.8697])
        >>> plain = (1.0, 0.0, 0.0)  # 45 degrees to both classes: log 2
        >>> margin_cross_entropy(features, torch.eye(2), target, margins=plain, chunk_size=1)
        tensor([0.6931])
    """
    what = 'margin_cross_entropy'
    check_classifier(what, features, class_weights, target, ignore_index)
    check_margins(what, len(class_weights), scale, margins, rule)
    check_chunk_size(what, chunk_size)
    ignored = target == ignore_index
    index = torch.where(ignored, 0, target.long())
    margins = margins_of(margins, index, compute_dtype(features))
    return classify(features, class_weights, index, ignored, scale, margins, rule, chunk_size)


def classify(
    features: Tensor,
    class_weights: Tensor,
    index: Tensor,
    ignored: Tensor,
    scale: float,
    margins: Margins,
    rule: str,
    chunk_size: int | None,
    ranks: Ranks | None = None,
) -> Tensor:
    """Return the loss of each sample, (B,).

    Args:
        features: (B, D), with ``ranks`` those of all of them.
        class_weights: (C, D) or (C, K, D), with ``ranks`` those of this one.
        index: (B,) own classes, with ``ranks`` outside 0...C-1 where another rank has them.
        ignored: (B,) samples without a loss.
        scale: factor of the cosines.
        margins: m1, m2, m3; the last two a number or one per sample.
        rule: see :func:`functional.combined_margin_logits`.
        chunk_size: classes at a time, or None.
        ranks: that have the other classes; all of them call this with the same samples. The
            gradient of the features is that of the sum over ranks of what they make of their
            losses, that of the weights is the average, as DistributedDataParallel has it.
    """
    room = KEPT if chunk_size else len(features) * len(class_weights)
    room = room if torch.is_grad_enabled() else 0
    loss: Tensor = _MarginCE.apply(  # type: ignore[no-untyped-call]
        features, class_weights, index, ignored, scale, margins, rule, chunk_size, room, ranks
    )
    return loss


def check_chunk_size(what: str, chunk_size: object) -> None:
    """Refuse a number of classes per chunk that is none.

    Raises:
        ValueError: neither None nor a positive integer.
    """
    if chunk_size is None or (type(chunk_size) is int and chunk_size > 0):
        return
    step = 'Leave it out to keep all logits, or take some thousand'
    raise ValueError(message(what, 'chunk_size', 'be a positive integer', chunk_size, step))


class Ranks(NamedTuple):
    """Ranks that have the weights of some classes each.

    Attributes:
        group: process group; None: all ranks.
        world_size: their number.
        elsewhere: (B,), whether another rank has the own class.
    """

    group: Any
    world_size: int
    elsewhere: Tensor

    def joined(self, value: Tensor, top: Tensor, total: Tensor) -> tuple[Tensor, ...]:
        """Return own cosine, highest logit and sum of exponentials over the classes of all."""
        highest = reduced(top, self.group, dist.ReduceOp.MAX)
        total = total * (top - highest).exp_()
        value, total = reduced(
            torch.stack([value.masked_fill(self.elsewhere, 0), total]), self.group
        )
        return value, highest, total


class Others(NamedTuple):
    """Exponentials of the logits of some classes, those of the own class left out.

    Attributes:
        exp: (B, n), exp(z - top) of n classes.
        top: (B,).
        best: (B, n), the nearest sub-centre of each class, or None.
    """

    exp: Tensor
    top: Tensor
    best: Tensor | None


class _MarginCE(torch.autograd.Function):
    """softplus(log sum of the others - own logit) with its closed-form gradient.

    dL/dz_j = p_j for another class, with p_j = share * exp(z_j - top) / total and
    share = 1 - p_own.
    """

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, features, class_weights, index, ignored, scale, margins, rule, chunk_size, room, ranks
    ):
        x, _ = unit(features.to(compute_dtype(features)))
        own = own_class(x, class_weights, _rows(index, class_weights, ranks))
        value, _ = with_margin(own.cosine, own.sine, margins, rule)
        # A sample that is NaN would make the exponentials of its row NaN; its own logit shows it.
        scaled = silence(x * scale, ~x.isfinite().all(1))
        top, total = x.new_full((len(x),), LOWEST), x.new_zeros(len(x))
        w_inverse = _inverse_norms(class_weights, chunk_size, x.dtype)
        kept = {}
        for start, stop in _blocks(class_weights, chunk_size):
            w = _block(class_weights, w_inverse, start, stop)
            logits, best = _other_logits(scaled, w, index - start, stop - start)
            higher = torch.maximum(top, logits.amax(1))
            exp = logits.sub_(higher.unsqueeze(1)).exp_()
            total = total * (top - higher).exp_() + exp.sum(1)
            top = higher
            room -= exp.numel()
            if room >= 0:
                kept[start] = Others(exp, top, best)
        if ranks is not None:
            value, top, total = ranks.joined(value, top, total)
        excess = top + total.log() - value * scale
        ctx.kept, ctx.scale, ctx.margins, ctx.rule = kept, scale, margins, rule
        ctx.chunk_size, ctx.ranks = chunk_size, ranks
        ctx.save_for_backward(
            features, class_weights, w_inverse, index, ignored, top, total, excess
        )
        return softplus(excess).masked_fill_(ignored, 0)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        features, class_weights, w_inverse, index, ignored, top, total, excess = ctx.saved_tensors
        ranks = ctx.ranks
        # Each rank has the gradient of its own samples.
        grad = grad if ranks is None else reduced(grad, ranks.group) / ranks.world_size
        silent = (grad == 0) | ignored
        x, inverse = unit(features.to(excess.dtype))
        x = silence(x, silent)
        share = (grad * excess.sigmoid()).masked_fill_(silent, 0)
        # total is 0 where there is no other class.
        slope = share / torch.where(total == 0, 1, total)
        grad_x, grad_w = _pull_to_others(ctx, x, class_weights, w_inverse, index, top, slope)
        grad_x = through_unit(grad_x, x, inverse)
        own = own_class(x, class_weights, _rows(index, class_weights, ranks))
        _, pull = with_margin(own.cosine, own.sine, ctx.margins, ctx.rule)
        not_here = silent if ranks is None else silent | ranks.elsewhere
        steps = (-share * pull * ctx.scale).masked_fill_(not_here, 0)
        pull_own(grad_x, grad_w, own, inverse, steps)
        if ranks is not None:
            grad_x = reduced(grad_x, ranks.group).mul_(ranks.world_size)
        grad_x = finish_gradient(silence(grad_x, silent), grad.unsqueeze(1), features.dtype)
        grad_w = grad_w.reshape(class_weights.shape).to(class_weights.dtype)
        return grad_x, grad_w, None, None, None, None, None, None, None, None


def _rows(index: Tensor, class_weights: Tensor, ranks: Ranks | None) -> Tensor:
    """Return the rows of the own classes; any row where another rank has the class."""
    return index if ranks is None else index.clamp(0, len(class_weights) - 1)


def _pull_to_others(  # type: ignore[no-untyped-def]
    ctx,
    x: Tensor,
    class_weights: Tensor,
    w_inverse: Tensor,
    index: Tensor,
    top: Tensor,
    slope: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the gradients of normalised features and of weights through the other classes."""
    scaled = x * ctx.scale
    centres = class_weights[0].numel() // x.shape[1]
    grad_x = torch.zeros_like(x)
    grad_w = x.new_empty((len(class_weights) * centres, x.shape[1]))
    for start, stop in _blocks(class_weights, ctx.chunk_size):
        w = _block(class_weights, w_inverse, start, stop)
        others = ctx.kept.get(start)
        if others is None:
            logits, best = _other_logits(scaled, w, index - start, stop - start)
            others = Others(logits.sub_(top.unsqueeze(1)).exp_(), top, best)
        row_slope = (slope * (others.top - top).exp_()).unsqueeze(1)
        spread = others.exp if others.best is None else to_centres(others.exp, others.best, centres)
        rows = slice(start * centres, stop * centres)
        with full_precision(x.device):
            grad_x.addcmul_(torch.mm(spread, w), row_slope, value=ctx.scale)
            torch.mm(spread.t(), scaled * row_slope, out=grad_w[rows])
        through_unit(grad_w[rows], w, w_inverse[start:stop].reshape(-1, 1))
    return grad_x, grad_w


def _other_logits(
    scaled: Tensor, w: Tensor, column: Tensor, classes: int
) -> tuple[Tensor, Tensor | None]:
    """Return the logits of a block of classes, -inf for the own class.

    Args:
        scaled: (B, D), normalised and scaled.
        w: (n, D), or (n * K, D) with sub-centres, normalised.
        column: (B,) of the own class, outside 0...n-1 where it is in another block.
        classes: n.
    """
    with full_precision(scaled.device):
        logits = torch.mm(scaled, w.t())
    best = None
    if len(w) != classes:
        logits, best = nearest_centre(logits.reshape(len(scaled), classes, len(w) // classes))
    within = ((column >= 0) & (column < classes)).unsqueeze(1)
    column = column.clamp(0, classes - 1).unsqueeze(1)
    found = logits.gather(1, column).masked_fill_(within, -torch.inf)
    return logits.scatter_(1, column, found), best


def _inverse_norms(class_weights: Tensor, chunk_size: int | None, dtype: torch.dtype) -> Tensor:
    """Return 1 / |w|, (C, 1) or (C, K, 1)."""
    blocks = _blocks(class_weights, chunk_size)
    return torch.cat([inverse_norm(class_weights[a:b].to(dtype)) for a, b in blocks])


def _block(class_weights: Tensor, w_inverse: Tensor, start: int, stop: int) -> Tensor:
    """Return some normalised weights, sub-centres flattened."""
    w = class_weights[start:stop].to(w_inverse.dtype)
    return (w * w_inverse[start:stop]).flatten(0, -2)


def _blocks(class_weights: Tensor, chunk_size: int | None) -> Iterator[tuple[int, int]]:
    """Yield first and last class of each block."""
    classes = len(class_weights)
    size = chunk_size or (classes if class_weights.is_cuda else BLOCK)
    for start in range(0, classes, size):
        yield start, min(start + size, classes)
