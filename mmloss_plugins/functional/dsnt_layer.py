"""DSNT: from heatmaps to coordinates (Nibali et al., arXiv 1801.07372)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mmloss_plugins.errors import check_choice, message
from mmloss_plugins.functional._grid import (
    by_keypoint,
    cell_centres,
    cell_grid,
    check_maps,
    check_masses,
    deviations,
    for_outer,
    is_short,
    marginals,
    outer,
)
from mmloss_plugins.functional.closed_form import compute_dtype, with_slope
from mmloss_plugins.functional.shapes import check_same_shape

NORMALIZATIONS = ('softmax', 'thresholded_softmax', 'abs', 'relu', 'sigmoid')
WITH_BETA = ('softmax', 'thresholded_softmax')


def normalize_heatmap(
    x: Tensor, method: str = 'softmax', *, beta: float = 1.0, threshold: float = -0.5
) -> Tensor:
    r"""Turn maps of any values into maps that are non-negative and sum to 1.

    .. math::
        \hat z_i = \frac{f(x_i)}{\sum_j f(x_j)}

    with the rectification f of the paper's Table 1:

    - 'softmax': exp(beta x). The larger ``beta``, the narrower the map; in the limit it is 1 at
      the maximum and the mean becomes argmax.
    - 'thresholded_softmax': the same over the cells with x >= ``threshold`` alone; the others are
      0 and get no gradient. From the author's experiments.
    - 'abs': abs(x).
    - 'relu': max(x, 0).
    - 'sigmoid': 1 / (1 + exp(-x)).

    A map without any mass (relu of no positive value, abs of zeros, no cell above the threshold)
    is read by the plain softmax instead of 0 / 0: it stays a distribution, and its gradient can
    bring it back. Abs and relu call a map empty whose mean is below the smallest normal number of
    its type, 6e-5 in float16, where the gradient would not fit the type.

    Args:
        x: shape (B, K, \*S), one spatial dimension or more. Any finite values: sums neither
            overflow nor underflow, in float16 and bfloat16 too.
        method: one of the above.
        beta: inverse temperature of the two softmaxes; positive. 1 for the others, which have none.
        threshold: of 'thresholded_softmax', compared with x.

    Returns:
        Shape of ``x``, non-negative, each map sums to 1; float32 (float64 for float64 ``x``).

    Raises:
        TypeError: ``x`` is no floating-point tensor.
        ValueError: ``x`` has no spatial dimension or no cell, ``method`` is unknown, or ``beta``
            is not positive and finite, or not 1 for a method without one.

    Differs from:
        ``dsntnn.flat_softmax``: five methods, float32 for half input. ``mmpose``'s
        ``DSNTHead``: softmax alone. dsnt-pose2d adds 1e-12 to the sums, which float16 rounds to 0,
        and its relu of negative values is a map of zeros with zero gradient.

    Reference:
        https://arxiv.org/abs/1801.07372, section 3.2.1 and Table 1.

    Example:
        >>> import torch
        >>> x = torch.tensor([[[[0.0, 0.0], [-3.0, 1.0]]]])
        >>> normalize_heatmap(x, 'relu')
        tensor([[[[0., 0.],
                  [0., 1.]]]])
        >>> normalize_heatmap(x, 'abs')
        tensor([[[[0.0000, 0.0000],
                  [0.7500, 0.2500]]]])
    """
    what = 'normalize_heatmap'
    check_choice(what, 'method', method, NORMALIZATIONS)
    check_maps(what, x, 'x')
    _check_beta(what, method, beta)
    flat = x.flatten(2).to(compute_dtype(x))
    if method in ('abs', 'relu'):
        part = flat.abs() if method == 'abs' else flat.relu()
        return _shares(part, flat, torch.finfo(x.dtype).tiny).reshape(x.shape)
    if method == 'sigmoid':
        flat = torch.nn.functional.logsigmoid(flat)
    if method == 'thresholded_softmax':
        below = flat < threshold
        flat = flat.masked_fill(below & ~below.all(-1, keepdim=True), -math.inf)
    if beta != 1:
        # beta * x alone would round logits of 1e4 to steps of 1e-3 and overflow at large beta.
        flat = (flat - flat.detach().amax(-1, keepdim=True)) * beta
    return torch.softmax(flat, -1).reshape(x.shape)


def _shares(part: Tensor, logits: Tensor, least: float) -> Tensor:
    """Return the share of each cell (B, K, cells) in its map, softmax of logits in empty maps."""
    # The sum of values such as 3e38 is inf, that of their n-th parts is not.
    part = part / part.shape[-1]
    mass = part.sum(-1, keepdim=True)
    empty = mass < least
    shares = part / mass.masked_fill(empty, 1)
    return torch.where(empty, torch.softmax(logits, -1), shares)


def dsnt(heatmap: Tensor) -> Tensor:
    r"""Return the mean position of each normalised map, the paper's transform.

    .. math::
        \mu_x = \sum_{ij} \hat z_{ij} X_{ij}, \qquad X_{ij} = \frac{2 j + 1}{W} - 1

    (Eq. 4), and likewise for y with H. Cells are summed along each axis first; the coordinates of
    the grid are never multiplied with a whole map. A map of any size can be read.

    Args:
        heatmap: shape (B, K, \*S) with D = 1, 2, 3, ... spatial dimensions (..., H, W), each map
            summing to 1, see :func:`normalize_heatmap`.

    Returns:
        Shape (B, K, D), x first, in (-1, 1); float32 (float64 for float64 maps). -1 and 1 are the
        outer edges of the outermost cells.

    Raises:
        TypeError: ``heatmap`` is no floating-point tensor.
        ValueError: ``heatmap`` has no spatial dimension or no cell. With :func:`value_checks` also
            a finite map that is negative or does not sum to 1.

    Differs from:
        ``dsntnn.dsnt``: the same values; no tensor of the map's size is kept for backward.
        ``mmpose``'s ``DSNTHead``, whose coordinates are j / W in [0, 1), half a cell to the left
        of the cells' centres.

    Reference:
        https://arxiv.org/abs/1801.07372, section 3.2.2.

    Example:
        >>> import torch
        >>> heatmap = torch.tensor([[[[0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.0, 0.0]]]])
        >>> dsnt(heatmap)  # between the centres 0.25 and 0.75; first of two rows
        tensor([[[ 0.5000, -0.5000]]])
    """
    check_masses('dsnt', heatmap)
    if torch.is_grad_enabled() and heatmap.requires_grad:
        means: Tensor = _Mean.apply(heatmap)  # type: ignore[no-untyped-call]
        return means
    return _mean(heatmap)


def _mean(heatmap: Tensor) -> Tensor:
    dtype, sizes = compute_dtype(heatmap), heatmap.shape[2:]
    # No matrix products: they would be half precision under autocast.
    if is_short(heatmap, sizes[-1]):
        maps = heatmap.flatten(0, 1).flatten(1).to(dtype)
        means = [(maps * centres).sum(-1) for centres in cell_grid(sizes, maps)]
    else:
        shares = marginals(heatmap, dtype)
        centres = [cell_centres(share.shape[0], share).unsqueeze(-1) for share in shares]
        means = [(share * axis).sum(0) for share, axis in zip(shares, centres)]
    return by_keypoint(torch.stack(means, -1), heatmap)


class _Mean(torch.autograd.Function):
    """The mean, whose gradient is the grid: nothing is kept for backward."""

    @staticmethod
    def forward(ctx, heatmap):  # type: ignore[no-untyped-def]
        ctx.shape, ctx.dtype = heatmap.shape, heatmap.dtype
        return _mean(heatmap)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        columns, sizes = grad.flatten(0, 1).unbind(-1), ctx.shape[2:]
        if is_short(grad, sizes[-1]):
            first, *others = zip(columns, cell_grid(sizes, grad))
            maps = first[0].unsqueeze(-1) * first[1]
            for column, centres in others:
                maps.addcmul_(column.unsqueeze(-1), centres)
        else:
            axes = [
                column * cell_centres(size, grad).unsqueeze(-1)
                for column, size in zip(columns, reversed(sizes))
            ]
            maps = outer(for_outer(axes), torch.add)
        return maps.view(ctx.shape).to(ctx.dtype)


def heatmap_variance(heatmap: Tensor) -> Tensor:
    r"""Return the variance of each normalised map along its axes, in cells squared.

    .. math::
        \mathrm{Var}_x = \sum_j \hat z_j (j - \mu_x)^2

    with the marginal of the map along x; see section 3.4.1 of the paper.

    Args:
        heatmap: shape (B, K, \*S), each map summing to 1.

    Returns:
        Shape (B, K, D), x first, px^2 of the map (in normalised coordinates times (2 / size)^2);
        float32 (float64 for float64 maps). Zero where all mass lies in one row or column.

    Raises:
        TypeError: ``heatmap`` is no floating-point tensor.
        ValueError: ``heatmap`` has no spatial dimension or no cell. With :func:`value_checks` also
            a finite map that is negative or does not sum to 1.

    Reference:
        https://arxiv.org/abs/1801.07372, section 3.4.1.

    Example:
        >>> import torch
        >>> heatmap_variance(torch.tensor([[[[0.5, 0.0, 0.5], [0.0, 0.0, 0.0]]]]))
        tensor([[[1., 0.]]])
    """
    check_masses('heatmap_variance', heatmap)
    variances = [
        (share * deviations(share)[1].square()).sum(0)
        for share in marginals(heatmap, compute_dtype(heatmap))
    ]
    return by_keypoint(torch.stack(variances, -1), heatmap)


def heatmap_covariance(heatmap: Tensor) -> Tensor:
    r"""Return the covariance matrix of each normalised map, in cells squared.

    Its eigenvectors are the axes of the ellipse that the map looks like, its eigenvalues their
    squared half lengths.

    Args:
        heatmap: shape (B, K, \*S), each map summing to 1.

    Returns:
        Shape (B, K, D, D), axes in the order x, y, ..., px^2 of the map; symmetric; its diagonal
        is :func:`heatmap_variance`. Row and column of an axis times (input size / map size) give
        the covariance in pixels of the input. float32 (float64 for float64 maps).

    Raises:
        TypeError: ``heatmap`` is no floating-point tensor.
        ValueError: ``heatmap`` has no spatial dimension or no cell. With :func:`value_checks` also
            a finite map that is negative or does not sum to 1.

    Reference:
        https://arxiv.org/abs/1801.07372, section 3.4.1, for its diagonal.

    Example:
        >>> import torch
        >>> heatmap_covariance(torch.tensor([[[[0.5, 0.0], [0.0, 0.5]]]]))
        tensor([[[[0.2500, 0.2500],
                  [0.2500, 0.2500]]]])
    """
    check_masses('heatmap_covariance', heatmap)
    dtype = compute_dtype(heatmap)
    away = [deviations(share)[1] for share in marginals(heatmap, dtype)]
    maps = heatmap.flatten(0, 1).movedim(0, -1).to(dtype)
    axes = range(len(away))
    upper = {(a, b): _moment(maps, away, a, b) for a in axes for b in axes if a <= b}
    rows = [torch.stack([upper[min(a, b), max(a, b)] for b in axes], -1) for a in axes]
    return by_keypoint(torch.stack(rows, -2), heatmap)


def _moment(maps: Tensor, away: list[Tensor], first: int, second: int) -> Tensor:
    """Return the sum of maps (*S, rows) times two deviations (size, rows), shape (rows,)."""
    for axis, x in enumerate(away):
        power = (axis == first) + (axis == second)
        if power:
            maps = maps * x**power
        maps = maps.sum(-2)
    return maps


def euclidean_loss(pred: Tensor, target: Tensor) -> Tensor:
    r"""Penalise the distance between predicted and true points.

    .. math::
        L = \lVert \mu - p \rVert_2

    (Eq. 5). In contrast to the squared error every point pulls with the same force, however far
    it is off.

    Args:
        pred: shape (..., D), such as (B, K, 2); any unit.
        target: same shape and unit.

    Returns:
        Shape (...), float32 (float64 for float64 ``pred``), in the unit of the points. Zero where
        they coincide, and so is the gradient there. An element behind a ``grad_output`` of
        exactly 0 gets gradient 0 even where a point is NaN or inf.

    Raises:
        TypeError: an input is no tensor.
        ValueError: shapes differ or lack D, or ``target`` requires a gradient.

    Differs from:
        ``dsntnn.euclidean_losses``: the same values; the gradient of dsnt-pose2d's square root is
        NaN at 0. ``mmpose.models.losses.MPJPELoss``, which averages over all points.

    Reference:
        https://arxiv.org/abs/1801.07372, section 3.3.

    Example:
        >>> import torch
        >>> euclidean_loss(torch.tensor([[0.3, 0.4], [1.0, 1.0]]), torch.tensor([[0.0, 0.0]] * 2))
        tensor([0.5000, 1.4142])
    """
    check_same_shape('euclidean_loss', pred, target)
    if pred.dim() == 0 or pred.shape[-1] == 0:
        rule, step = 'have the shape (..., D)', 'Pass one coordinate (x, y, ...) per axis'
        raise ValueError(message('euclidean_loss', 'pred', rule, tuple(pred.shape), step))
    loss: Tensor = with_slope(_distance, pred, target)
    return loss


def _distance(pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    dtype = compute_dtype(pred)
    error = pred.to(dtype) - target.to(dtype)
    loss = torch.linalg.vector_norm(error, dim=-1)
    # 0 / 0 at distance 0; below this bound squares underflow and the distance is not exact.
    least = torch.finfo(dtype).tiny ** 0.5
    return loss, error.div_(loss.clamp(min=least).unsqueeze(-1))


def _check_beta(what: str, method: str, beta: float) -> None:
    if not (beta > 0 and math.isfinite(beta)):
        step = 'It is the inverse temperature: 1 is the plain softmax, larger is sharper'
        raise ValueError(message(what, 'beta', 'be > 0 and finite', beta, step))
    if beta != 1 and method not in WITH_BETA:
        rule = f'be 1 for method={method!r}, which has no temperature'
        raise ValueError(message(what, 'beta', rule, beta, "Take 'softmax' or drop beta"))
