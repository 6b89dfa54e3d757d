"""Centre loss, and how its paper moves the centres."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmloss_plugins.errors import check_choice, message
from mmloss_plugins.functional._margin_checks import check_classifier
from mmloss_plugins.functional.closed_form import compute_dtype, finish_gradient

DISTANCES = ('squared', 'frobenius')


def center_loss(
    features: Tensor,
    centers: Tensor,
    target: Tensor,
    *,
    distance: str = 'squared',
    ignore_index: int = -1,
) -> Tensor:
    r"""Penalise the distance between each sample and the centre of its class.

    .. math::
        L_b = \tfrac{1}{2} \, |x_b - c_{y_b}|^2

    whose sum is equation 2 of the paper and whose mean is the authors' code. It draws a class
    together and does nothing to hold classes apart: a classification loss has to stand beside it.

    Args:
        features: x, shape (B, D), any floating-point type.
        centers: c, shape (C, D); they get a gradient if they require one.
        target: y, shape (B,), classes 0...C-1 or ``ignore_index``.
        distance: 'squared', or 'frobenius' for the form that write-ups print,
            ``features.dist(centers) / 2``: half the norm of the differences of the whole batch,
            :math:`L_b = |x_b - c_{y_b}|^2 / (2 \sqrt{\sum_i |x_i - c_{y_i}|^2})`, which sum to it.
            Its gradient does not fade as the samples approach, and falls with the batch size.
        ignore_index: samples of this class drop out: no loss, no gradient even where they are
            NaN, and no part in the norm.

    Returns:
        Shape (B,), float32 (float64 for float64 ``features``). Zero where x equals c.

    Raises:
        TypeError: an input is no tensor, or ``target`` holds no integers.
        ValueError: wrong shapes or an unknown ``distance``. With :func:`value_checks` also a
            class that does not exist.

    Differs from:
        The form in write-ups, unless ``distance='frobenius'``: one un-squared norm over the
        batch, .353 where the paper's loss is .995.

    Reference:
        Wen et al., A Discriminative Feature Learning Approach for Deep Face Recognition,
        ECCV 2016, equation 2.

    Example:
        >>> import torch
        >>> features = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
        >>> center_loss(features, torch.zeros(2, 2), torch.tensor([0, 1]))
        tensor([12.5000,  0.5000])
    """
    check_choice('center_loss', 'distance', distance, DISTANCES)
    check_centers('center_loss', features, centers, target, ignore_index)
    loss: Tensor = _HalfSquares.apply(  # type: ignore[no-untyped-call]
        features, centers, target, distance == 'frobenius', ignore_index
    )
    return loss


class _HalfSquares(torch.autograd.Function):
    """|d|^2 / 2, divided by the norm F of all differences for 'frobenius', in closed form.

    dL/dx_b = g_b d_b, and for 'frobenius' (g_b / F - sum_i g_i |d_i|^2 / (2 F^3)) d_b.
    """

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, features, centers, target, frobenius, ignore_index
    ):
        counts, dtype = target != ignore_index, compute_dtype(features)
        own = centers.to(dtype)[torch.where(counts, target.long(), 0)]
        # Before the square: a sample that drops out may be NaN.
        difference = torch.where(counts.unsqueeze(1), features.to(dtype) - own, 0)
        half_squares = difference.square().sum(1) / 2
        norm = torch.ones_like(half_squares.sum())
        if frobenius:
            norm = (2 * half_squares.sum()).sqrt()
            norm = torch.where(norm == 0, 1, norm)
        ctx.save_for_backward(difference, target, half_squares if frobenius else None, norm)
        ctx.frobenius, ctx.ignore_index = frobenius, ignore_index
        ctx.dtypes = features.dtype, centers.dtype, len(centers)
        return half_squares / norm

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        difference, target, half_squares, norm = ctx.saved_tensors
        features_dtype, centers_dtype, classes = ctx.dtypes
        factor = grad
        if ctx.frobenius:
            factor = grad / norm - (grad * half_squares).sum() / norm**3
        step = difference * factor.unsqueeze(1)
        if not ctx.frobenius:
            # 0 * NaN: a sample without weight must not reach its centre.
            step = step.masked_fill_(grad.unsqueeze(1) == 0, 0)
        grad_centers = None
        if ctx.needs_input_grad[1]:
            index = torch.where(target != ctx.ignore_index, target.long(), 0)
            grad_centers = step.new_zeros(classes, step.shape[1]).index_add_(0, index, -step)
            grad_centers = grad_centers.to(centers_dtype)
        # Silenced above: with 'frobenius' a sample is part of the norm whatever its own gradient.
        factor = factor.unsqueeze(1)
        grad_features = finish_gradient(step, factor, features_dtype, silence=False)
        return grad_features, grad_centers, None, None, None


def class_sums(
    features: Tensor,
    labels: Tensor,
    classes: int,
    weight: Tensor | None = None,
    *,
    ignore_index: int = -1,
) -> tuple[Tensor, Tensor]:
    """Return what :func:`move_centers` needs of a batch; those of several ranks are to be added.

    Args:
        features: (B, D).
        labels: (B,) classes 0...C-1 or ``ignore_index``.
        classes: C.
        weight: (B,) how often a sample counts; None: once.
        ignore_index: samples of this class do not count, and those with a NaN or an infinity,
            also as their weight, do not either: one overflow would make a centre NaN for good.

    Returns:
        Sum of the features of each class, (C, D), and number of samples of each class, (C,).

    Example:
        >>> import torch
        >>> class_sums(torch.tensor([[1.0], [2.0], [5.0]]), torch.tensor([1, 1, -1]), 2)
        (tensor([[0.],
                [3.]]), tensor([0., 2.]))
    """
    x = features.detach().to(compute_dtype(features))
    counts = (labels != ignore_index) & x.isfinite().all(1)
    if weight is not None:
        counts = counts & weight.isfinite()
    weight = torch.ones_like(x[:, 0]) if weight is None else weight.to(x.dtype)
    weight = torch.where(counts, weight, 0)
    x = torch.where(counts.unsqueeze(1), x, 0) * weight.unsqueeze(1)
    index = torch.where(counts, labels.long(), 0)
    sums = x.new_zeros(classes, x.shape[1]).index_add_(0, index, x)
    return sums, x.new_zeros(classes).index_add_(0, index, weight)


def move_centers(centers: Tensor, sums: Tensor, counts: Tensor, *, rate: float = 0.5) -> Tensor:
    r"""Return the centres after a step towards the samples of their classes.

    .. math::
        c_j \leftarrow c_j - \alpha \,
            \frac{\sum_{b: y_b = j} (c_j - x_b)}{1 + |\{b: y_b = j\}|}

    Equation 4 of the paper. The 1 below holds back classes with few samples in the batch, and
    lets those without any stay.

    Args:
        centers: c, (C, D).
        sums: (C, D) of :func:`class_sums`.
        counts: (C,) of :func:`class_sums`.
        rate: alpha, within (0, 1].

    Returns:
        (C, D), a new tensor of the type of ``centers``.

    Reference:
        Wen et al., ECCV 2016, equation 4 and algorithm 1.

    Example:
        >>> import torch
        >>> samples = class_sums(torch.tensor([[3.0], [6.0]]), torch.tensor([1, 1]), 2)
        >>> move_centers(torch.zeros(2, 1), *samples)  # (3 + 6) / (1 + 2), times 0.5
        tensor([[0.0000],
                [1.5000]])
    """
    counts = counts.unsqueeze(1)
    step = (counts * centers - sums) / (1 + counts)
    return (centers - rate * step).to(centers.dtype)


def check_centers(
    what: str, features: Any, centers: Any, target: Any, ignore_index: int = -1
) -> None:
    """Refuse what :func:`center_loss` cannot take.

    Args:
        what: name of the loss, for the error text.
        features: (B, D).
        centers: (C, D).
        target: (B,) classes.
        ignore_index: label of samples that drop out.

    Raises:
        TypeError: no tensor, or labels that are no integers.
        ValueError: shapes; under value checks also labels.
    """
    check_classifier(what, features, centers, target, ignore_index, weights='centers')
    if centers.dim() != 2:
        rule, step = 'have the shape (C, D)', 'Give each class one centre'
        raise ValueError(message(what, 'centers', rule, tuple(centers.shape), step))
