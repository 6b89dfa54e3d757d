"""Penalties on the shape of normalised heatmaps (Nibali et al., arXiv 1801.07372, section 3.4)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mmloss_plugins.errors import check_choice, message
from mmloss_plugins.functional._gaussian import SigmaPx as SigmaPx
from mmloss_plugins.functional._gaussian import check_sigma_px as check_sigma_px
from mmloss_plugins.functional._gaussian import compare, sigma_per_axis
from mmloss_plugins.functional._grid import (
    by_keypoint,
    check_maps,
    deviations,
    for_outer,
    marginals,
    outer,
)
from mmloss_plugins.functional.closed_form import compute_dtype, finish_gradient

UNITS = ('px', 'normalized')
BASES = ('e', 2)
# No map of a side below a million has this variance; its square has a float32.
VARIANCE_LIMIT = 1e12


def heatmap_js(
    heatmap: Tensor, mean: Tensor, *, sigma_px: SigmaPx = 1.0, base: str | int = 'e'
) -> Tensor:
    r"""Penalise the Jensen-Shannon divergence between each map and a Gaussian at its label.

    .. math::
        \mathrm{JS}(p, q) = \tfrac12 \mathrm{KL}(p \,\|\, m) + \tfrac12 \mathrm{KL}(q \,\|\, m),
        \qquad m = \tfrac12 (p + q)

    (section 3.4.2), the regulariser that worked best in the paper. In contrast to KL it is
    symmetric and bounded. Computed from (p - q) / (p + q), so that maps next to the Gaussian do
    not cancel: where they differ by a fraction f, the relative error is about 1e-6 / f in float32.

    Args:
        heatmap: p, shape (B, K, \*S), each map summing to 1, see :func:`normalize_heatmap`.
        mean: exact centre of the Gaussian q, shape (B, K, D), x first, in (-1, 1). The Gaussian
            is normalised over the cells of the map, wherever its centre is.
        sigma_px: standard deviation of q in px of the map; a sequence gives one per axis (x, y,
            ...), for maps whose cells are not square in the image.
        base: of the logarithm, 'e' (nats) or 2 (bits).

    Returns:
        Shape (B, K), float32 (float64 for float64 maps), within [0, ln 2] or [0, 1]. Zero where p
        equals q. Its derivative at a cell without mass, -inf in theory, ends at -8.3 (-18.4 in
        float64; divided by ln 2 for base 2). An element behind a ``grad_output`` of exactly 0 gets
        gradient 0 even where the map or the mean is NaN or inf.

    Raises:
        TypeError: an input is no tensor, ``sigma_px`` no number.
        ValueError: shapes do not fit, ``mean`` requires a gradient, ``sigma_px`` is not positive
            or has another length than D, or ``base`` is unknown. With :func:`value_checks` also
            a mean outside [-1, 1].

    Differs from:
        ``dsntnn.js_reg_losses``: the same value, without its eps of 1e-24, which float16 rounds to
        0; gradients differ where p is below 6e-8 q. ``mmpose.models.losses.JSDiscretLoss``: B
        times the mean over keypoints of this, against a Gaussian at the rounded cell, and NaN
        gradients where a weight is zero.

    Reference:
        https://arxiv.org/abs/1801.07372, section 3.4.2.

    Example:
        >>> import torch
        >>> corner = torch.zeros(1, 1, 8, 8)
        >>> corner[0, 0, 0, 0] = 1.0
        >>> far = torch.tensor([[[0.9, 0.9]]])
        >>> heatmap_js(corner, far), heatmap_js(corner, far, base=2)  # nothing in common
        (tensor([[0.6931]]), tensor([[1.0000]]))
    """
    if base not in BASES:
        step = 'It is the base of the logarithm: nats, up to 0.69, or bits, up to 1'
        raise ValueError(message('heatmap_js', 'base', "be 'e' or 2", repr(base), step))
    loss = compare('heatmap_js', _js, heatmap, mean, sigma_px)
    return loss * (0.5 if base == 'e' else 0.5 / math.log(2))


def heatmap_kl(heatmap: Tensor, mean: Tensor, *, sigma_px: SigmaPx = 1.0) -> Tensor:
    r"""Penalise the Kullback-Leibler divergence of each map from a Gaussian at its label.

    .. math::
        \mathrm{KL}(p \,\|\, q) = \sum_i p_i (\log p_i - \log q_i) + 1 - \sum_i p_i

    (section 3.4.2; the last two terms are 0 for a normalised map and make the gradient 0 where p
    equals q). In contrast to JS it grows with the square of the distance of mass from the
    label: q is kept as a logarithm, which never underflows.

    Args:
        heatmap: p, shape (B, K, \*S), each map summing to 1.
        mean: exact centre of the Gaussian q, shape (B, K, D), x first, in (-1, 1).
        sigma_px: standard deviation of q in px of the map, or one per axis (x, y, ...).

    Returns:
        Shape (B, K), in nats, float32 (float64 for float64 maps). Zero where p equals q, at least
        0 up to rounding for maps that sum to 1. An element behind a ``grad_output`` of exactly 0
        gets gradient 0 even where the map or the mean is NaN or inf.

    Raises:
        TypeError: an input is no tensor, ``sigma_px`` no number.
        ValueError: as :func:`heatmap_js`.

    Differs from:
        ``dsntnn.kl_reg_losses``, which adds 1e-24 to q: mass farther than 10 sigma costs no more
        there and has no gradient. Its gradient is larger by 1 everywhere, which the backward of
        every normalisation takes away.

    Reference:
        https://arxiv.org/abs/1801.07372, section 3.4.2.

    Example:
        >>> import torch
        >>> even = torch.full((1, 1, 1, 2), 0.5)
        >>> heatmap_kl(even, torch.tensor([[[0.0, 0.0]]]))  # q is even, too
        tensor([[0.]])
    """
    return compare('heatmap_kl', _kl, heatmap, mean, sigma_px, log=True)


def heatmap_mse_reg(heatmap: Tensor, mean: Tensor, *, sigma_px: SigmaPx = 1.0) -> Tensor:
    r"""Penalise the squared difference between each map and a Gaussian at its label.

    .. math::
        L = \sum_i (p_i - q_i)^2

    of two distributions, in contrast to :func:`heatmap_mse`, whose Gaussian has height 1. From
    the author's experiments.

    Args:
        heatmap: p, shape (B, K, \*S), each map summing to 1.
        mean: exact centre of the Gaussian q, shape (B, K, D), x first, in (-1, 1).
        sigma_px: standard deviation of q in px of the map, or one per axis (x, y, ...).

    Returns:
        Shape (B, K), float32 (float64 for float64 maps), within [0, 2]. Zero where p equals q. An
        element behind a ``grad_output`` of exactly 0 gets gradient 0 even where the map or the
        mean is NaN or inf.

    Raises:
        TypeError: an input is no tensor, ``sigma_px`` no number.
        ValueError: as :func:`heatmap_js`.

    Differs from:
        dsnt-pose2d's ``mse_reg_loss``: the same sum, per axis sigma. dsntnn has none.

    Reference:
        https://github.com/anibali/dsnt-pose2d, ``nn.py``.

    Example:
        >>> import torch
        >>> left = torch.tensor([[[[1.0, 0.0]]]])
        >>> heatmap_mse_reg(left, torch.tensor([[[0.0, 0.0]]]))  # q is even
        tensor([[0.5000]])
    """
    return compare('heatmap_mse_reg', _squared_difference, heatmap, mean, sigma_px)


def heatmap_variance_loss(heatmap: Tensor, *, sigma_px: SigmaPx = 1.0, unit: str = 'px') -> Tensor:
    r"""Penalise the difference between the variance of each map and that of a Gaussian.

    .. math::
        L = \sum_a s_a^2 \, (\mathrm{Var}_a - \sigma_a^2)^2

    over the axes a (section 3.4.1), with s_a = 1 for ``unit='px'`` and (2 / size of a)^2 for
    'normalized'. In contrast to JS it asks for a spread alone, and two blobs have one too.

    The paper's weight of 100 belongs to 'normalized' maps 28 cells wide. The same penalty in 'px'
    has the weight 100 (2 / 28)^4 = 2.6e-3; 100 there ruins the training.

    Args:
        heatmap: shape (B, K, \*S), each map summing to 1.
        sigma_px: wanted standard deviation in px of the map, or one per axis (x, y, ...).
        unit: of the variance: 'px', cells of the map, or 'normalized', the paper's, where the
            map is 2 wide.

    Returns:
        Shape (B, K), float32 (float64 for float64 maps). Zero where every axis has the variance
        sigma^2. It ends at 1e24 per axis, which no map that sums to 1 reaches. An element behind a
        ``grad_output`` of exactly 0 gets gradient 0 even where the map is NaN or inf.

    Raises:
        TypeError: ``heatmap`` is no floating-point tensor, ``sigma_px`` no number.
        ValueError: ``heatmap`` has no spatial dimension, ``sigma_px`` is not positive or has
            another length than D, or ``unit`` is unknown.

    Differs from:
        ``dsntnn.variance_reg_losses``: the same for 'px'; it orders its axes y, x. dsnt-pose2d
        and the paper: 'normalized', but with sigma over the width on both axes.

    Reference:
        https://arxiv.org/abs/1801.07372, section 3.4.1.

    Example:
        >>> import torch
        >>> heatmap = torch.tensor([[[0.0, 1.0, 0.0, 0.0]]])  # variance 0, wanted 1
        >>> heatmap_variance_loss(heatmap), heatmap_variance_loss(heatmap, unit='normalized')
        (tensor([[1.]]), tensor([[0.0625]]))
    """
    what = 'heatmap_variance_loss'
    check_choice(what, 'unit', unit, UNITS)
    check_maps(what, heatmap)
    sigmas = sigma_per_axis(what, sigma_px, heatmap.dim() - 2)
    differentiate = torch.is_grad_enabled() and heatmap.requires_grad
    evaluate = _Variance.apply if differentiate else _Variance.forward
    loss: Tensor = evaluate(heatmap, sigmas, unit == 'normalized')[0]
    return loss


class _Variance(torch.autograd.Function):
    """The squared error of variances; what backward needs is as small as the marginals' means."""

    @staticmethod
    def forward(
        heatmap: Tensor, sigmas: tuple[float, ...], normalized: bool
    ) -> tuple[Tensor, Tensor]:
        coefficients = []
        loss = torch.zeros((), dtype=compute_dtype(heatmap), device=heatmap.device)
        for share, sigma in zip(marginals(heatmap, compute_dtype(heatmap)), sigmas):
            scale = (2 / share.shape[0]) ** 2 if normalized else 1.0
            cells, away = deviations(share)
            weighted = share * away
            excess = (weighted * away).sum(0) - sigma**2
            # Infinity less itself is NaN, which the clamp alone would hide.
            excess = (excess.clamp(-VARIANCE_LIMIT, VARIANCE_LIMIT) + (excess - excess)) * scale
            loss = loss + excess.square()
            # d Var / d p = away^2 - 2 cells sum(p away), whose second term is 0 at mass 1.
            mean = cells[-1] - away[-1]
            coefficients += [mean, 2 * scale * excess, 2 * weighted.sum(0)]
        return by_keypoint(loss, heatmap), torch.stack(coefficients)

    @staticmethod
    def setup_context(ctx, inputs, output):  # type: ignore[no-untyped-def]
        ctx.shape, ctx.dtype = inputs[0].shape, inputs[0].dtype
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(output[1])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_output, _):  # type: ignore[no-untyped-def]
        if grad_output is None:
            return None, None, None
        (coefficients,) = ctx.saved_tensors
        grad_output = grad_output.flatten()
        axes = []
        for axis, size in enumerate(ctx.shape[:1:-1]):
            mean, slope, first = coefficients[3 * axis : 3 * axis + 3]
            cells = torch.arange(size, dtype=mean.dtype, device=mean.device).unsqueeze(-1)
            cells = cells - (size - 1) / 2
            axes.append(((cells - mean).square() - cells * first) * (slope * grad_output))
        grad = outer(for_outer(axes), torch.add).flatten(1)
        grad = finish_gradient(grad, grad_output.unsqueeze(-1), ctx.dtype)
        return grad.view(ctx.shape), None, None


def _js(p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """Return 2 JS in nats: with d = (p - q) / (p + q), log(p / m) is log1p(d)."""
    eps = torch.finfo(p.dtype)
    # Cells that have no mass in either map must not be 0 / 0, and negative p, divided by its size,
    # has the slope of a cell without mass: its terms do not cancel those of the others.
    total = p.abs().add_(q).add_(eps.tiny)
    limit = 1 - eps.eps / 2
    difference = (p - q).div_(total).clamp_(-limit, limit)
    slope = torch.log1p(difference, out=total)
    return _sum(difference.neg_().log1p_().mul_(q).addcmul_(p, slope)), slope


def _kl(p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
    slope = p.clamp(min=torch.finfo(p.dtype).tiny).log_().sub_(log_q)
    # 1 - sum(p), which is 0, takes the constant 1 out of the slope: that is 0 where p equals q.
    return _sum((slope - 1).mul_(p)).add_(1), slope


def _squared_difference(p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    difference = p - q
    return _sum(difference * difference), difference.mul_(2)


def _sum(maps: Tensor) -> Tensor:
    return maps.sum(tuple(range(1, maps.dim())))
