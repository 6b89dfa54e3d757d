"""Losses on keypoint heatmaps: squared error, softmax over the map, softmax over the classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmloss_plugins.errors import check_choice, message
from mmloss_plugins.functional.closed_form import closed_form
from mmloss_plugins.functional.debug import is_compiling, value_checks_enabled
from mmloss_plugins.functional.shapes import check_range, check_same_shape

MSE_SCALES = ('author', 'mmpose')
LABELS = ('soft', 'one_hot')


def heatmap_mse(
    pred: Tensor,
    target: Tensor,
    *,
    scale: str = 'author',
    foreground_weight: float = 1.0,
    summed: bool = False,
) -> Tensor:
    r"""Penalise the squared difference of two heatmaps, optionally more where the target is high.

    .. math::
        L = s \, (1 + (f - 1) \, t) \, (x - t)^2

    with s = 1/2 for ``scale='author'`` and 1 for ``'mmpose'``. A pixel of the background keeps the
    factor 1 and the centre of a Gaussian gets f, so that the few pixels of a keypoint are not
    outvoted by the empty map.

    Args:
        pred: x, any shape, such as (B, K, H, W).
        target: t, same shape, within [0, 1] where ``foreground_weight`` is not 1.
        scale: 'author' as in JointsMSELoss of SimpleBaseline and HRNet, 'mmpose' twice that.
        foreground_weight: f, factor of pixels whose target is 1; positive.
        summed: return the sum instead of the elements, which then are never stored.

    Returns:
        Shape of ``pred``, or a scalar for ``summed``; float32 (float64 for float64 ``pred``).
        Zero where x equals t.

    Raises:
        TypeError: an input is no tensor.
        ValueError: shapes differ, ``target`` requires a gradient, ``scale`` is unknown or
            ``foreground_weight`` is not positive. With :func:`value_checks` also a NaN target,
            and one outside [0, 1] where ``foreground_weight`` is not 1.

    Differs from:
        ``mmpose.models.losses.KeypointMSELoss``: no reduction. JointsMSELoss multiplies x and t
        by the weight, so that a weight w counts as w^2; here none is applied.

    Reference:
        https://arxiv.org/abs/1804.06208, section 2.

    Example:
        >>> import torch
        >>> pred, target = torch.tensor([0.0, 0.5]), torch.tensor([1.0, 0.0])
        >>> heatmap_mse(pred, target)  # 1/2 * 1^2, 1/2 * 0.5^2
        tensor([0.5000, 0.1250])
        >>> heatmap_mse(pred, target, foreground_weight=4.0)
        tensor([2.0000, 0.1250])
    """
    check_choice('heatmap_mse', 'scale', scale, MSE_SCALES)
    check_positive('heatmap_mse', 'foreground_weight', foreground_weight)
    check_same_shape('heatmap_mse', pred, target)
    low, high = (float('-inf'), float('inf')) if foreground_weight == 1 else (0.0, 1.0)
    check_range('heatmap_mse', target, low, high)
    factor = 0.5 if scale == 'author' else 1.0
    options = {'factor': factor, 'foreground_weight': foreground_weight}
    return closed_form(_squared_error, pred, target, summed=summed, **options)


def spatial_softmax_ce(
    logits: Tensor, target: Tensor, *, beta: float = 1.0, label: str = 'soft'
) -> Tensor:
    r"""Penalise the cross-entropy between a softmax over each whole map and where its target is.

    .. math::
        L_k = - \sum_{h,w} y_{khw} \log p_{khw}, \qquad p_k = \mathrm{softmax}_{hw}(\beta x_k)

    with y = t / sum(t) for ``label='soft'`` and y = 1 at the maximum of t for ``'one_hot'``. One
    pixel of each map wins, so that there is no imbalance of foreground and background. A constant
    added to a map changes nothing: its level says nothing about the presence of the keypoint.

    Args:
        logits: x, shape (..., H, W), any finite values.
        target: t, shape (..., H, W), non-negative, of any sum. A map of zeros (an unlabelled
            keypoint) gives 0 and no gradient.
        beta: inverse temperature of the softmax; positive.
        label: 'soft' keeps the shape of the target, such as a Gaussian; 'one_hot' takes its
            maximum (one of them where several are equal), as Mask R-CNN does.

    Returns:
        Shape (...), float32 (float64 for float64 logits). At least the entropy of y, which is
        1 + log(2 pi sigma^2) for a Gaussian of sigma pixels and 0 for 'one_hot'; log(H W) for a
        uniform prediction. Zero where t is all zeros.

    Raises:
        TypeError: an input is no tensor.
        ValueError: shapes differ or lack H x W, ``target`` requires a gradient, ``beta`` is not
            positive or ``label`` unknown. With :func:`value_checks` also NaN or negative targets.

    Differs from:
        The hosts, which have no such loss.

    Reference:
        https://arxiv.org/abs/1703.06870, section 3.1, 'Mask R-CNN for Human Pose Estimation'.

    Example:
        >>> import torch
        >>> target = torch.tensor([[[0.0, 2.0], [0.0, 0.0]]])
        >>> spatial_softmax_ce(torch.zeros(1, 2, 2), target)  # log 4
        tensor([1.3863])
    """
    what = 'spatial_softmax_ce'
    check_choice(what, 'label', label, LABELS)
    check_positive(what, 'beta', beta)
    check_same_shape(what, logits, target)
    if logits.dim() < 2 or 0 in logits.shape[-2:]:
        rule, step = 'have the shape (..., H, W) with pixels', 'Pass one map per keypoint'
        raise ValueError(message(what, 'logits', rule, tuple(logits.shape), step))
    check_range(what, target, 0.0, float('inf'))
    # Labels made by NumPy are float64: the type of the result follows the logits alone.
    target = target.to(torch.promote_types(logits.dtype, torch.float32))
    loss: Tensor
    if label == 'soft':
        loss = _SoftLabelCE.apply(logits, target, beta)  # type: ignore[no-untyped-call]
        return loss
    maps, pixels = logits.shape[:-2].numel(), logits.shape[-2:].numel()
    top, index = target.reshape(maps, pixels).max(1)
    # The product with 0 keeps an empty map empty and a NaN visible.
    factor = (top > 0) + top * 0
    loss = _HardLabelCE.apply(  # type: ignore[no-untyped-call]
        logits.reshape(maps, pixels), index.unsqueeze(1), factor, beta
    )
    return loss.reshape(logits.shape[:-2])


def heatmaps_to_classes(heatmaps: Tensor, pos_threshold: float = 0.5) -> Tensor:
    """Return the keypoint whose heatmap is highest in each pixel, K where none is high enough.

    Args:
        heatmaps: shape (B, K, H, W).
        pos_threshold: a pixel belongs to a keypoint if the highest value is at least this; the
            radius of that disk is ``sigma * sqrt(-2 ln(pos_threshold))`` for a Gaussian.

    Returns:
        Shape (B, H, W), int64: 0 to K - 1, or K for the background.

    Example:
        >>> import torch
        >>> heatmaps_to_classes(torch.tensor([[[[0.2, 0.7, 0.1]], [[0.6, 0.9, 0.4]]]]))
        tensor([[[1, 1, 2]]])
    """
    top, index = heatmaps.max(dim=1)
    return torch.where(top >= pos_threshold, index, heatmaps.shape[1])


def pixel_softmax_ce(
    logits: Tensor,
    target: Tensor,
    *,
    class_weight: Tensor | Sequence[float] | None = None,
    ignore_index: int = 255,
) -> Tensor:
    r"""Penalise the cross-entropy of each pixel over the K keypoints and the background.

    .. math::
        L_{hw} = - v_c \log \mathrm{softmax}(x_{hw})_c, \qquad c = c_{hw} \in \{0, \dots, K\}

    Each pixel belongs to one class; the background is the last channel, K. In contrast to
    :func:`spatial_softmax_ce` keypoints compete with each other in a pixel, and a map may show
    several instances or none.

    Args:
        logits: x, shape (B, K + 1, H, W), any finite values.
        target: c, shape (B, H, W), integers 0 to K or ``ignore_index``; see
            :func:`heatmaps_to_classes` for Gaussian heatmaps.
        class_weight: v, K + 1 factors, the background's last; all 1 by default.
        ignore_index: pixels of this class give 0 and no gradient.

    Returns:
        Shape (B, H, W), float32 (float64 for float64 logits).

    Raises:
        TypeError: an input is no tensor or ``target`` holds no integers.
        ValueError: wrong shapes or a wrong number of class weights. With :func:`value_checks`
            also a class that does not exist, which on a GPU ends the process otherwise.

    Differs from:
        ``torch.nn.functional.cross_entropy``: a pixel behind a ``grad_output`` of 0 gets no
        gradient even if its logits are NaN, and only the inputs are kept for backward.

    Reference:
        Long et al., https://arxiv.org/abs/1411.4038, section 4 (a softmax loss per pixel).

    Example:
        >>> import torch
        >>> logits = torch.tensor([2.0, 0.0, 0.0]).reshape(1, 3, 1, 1)
        >>> pixel_softmax_ce(logits, torch.tensor([[[0]]]))  # log(1 + 2 exp(-2))
        tensor([[[0.2395]]])
    """
    _check_pixel_input(logits, target)
    factor = _class_weight(logits, class_weight)
    if value_checks_enabled():
        check_range('pixel_softmax_ce', target[target != ignore_index], 0, logits.shape[1] - 1)
    ignored = target == ignore_index
    index = torch.where(ignored, 0, target.long()).unsqueeze(1)
    factor = torch.where(ignored, 0, factor[index.squeeze(1)])
    loss: Tensor = _HardLabelCE.apply(logits, index, factor, 1)  # type: ignore[no-untyped-call]
    return loss


def holds_classes(target: Tensor) -> bool:
    """Tell whether a target is a map of integer classes; a boolean map is none."""
    dtype = target.dtype
    return not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool)


def check_positive(what: str, argument: str, value: float) -> None:
    """Refuse a factor that is not positive.

    Raises:
        ValueError: names the argument.
    """
    if not value > 0:
        step = 'Leave it out for the default of 1'
        raise ValueError(message(what, argument, 'be positive', value, step))


def _squared_error(
    x: Tensor, t: Tensor, *, factor: float, foreground_weight: float
) -> tuple[Tensor, Tensor]:
    grad = x - t
    loss = grad * grad
    if foreground_weight != 1:
        weight = (t * (foreground_weight - 1)).add_(1)
        loss.mul_(weight)
        grad.mul_(weight)
    return loss.mul_(factor), grad.mul_(2 * factor)


class _SoftLabelCE(torch.autograd.Function):
    """-sum(y log softmax(beta x)) over the last two dimensions, y = t / sum(t) or 0.

    dL/dx = beta * (p * sum(y) - y), so that backward needs the inputs and no other tensor of their
    size.
    """

    @staticmethod
    def forward(logits: Tensor, target: Tensor, beta: float) -> Tensor:
        log_p = torch.log_softmax(_scaled(logits, beta).flatten(-2), dim=-1)
        target = target.flatten(-2)
        return log_p.mul_(target).sum(-1).neg_().div_(_mass(target))

    @staticmethod
    def setup_context(ctx, inputs, output):  # type: ignore[no-untyped-def]
        logits, target, ctx.beta = inputs
        ctx.save_for_backward(logits, target)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        logits, target = ctx.saved_tensors
        grad_logits = torch.softmax(_scaled(logits, ctx.beta).flatten(-2), dim=-1)
        target = target.flatten(-2)
        silent = (grad == 0).unsqueeze(-1)
        grad = (grad * ctx.beta / _mass(target)).unsqueeze(-1)
        grad_logits.mul_(grad * target.sum(-1, keepdim=True)).addcmul_(target, grad, value=-1)
        # 0 * NaN: a map without weight must stay without gradient whatever logits and target are.
        grad_logits.masked_fill_(silent, 0)
        return grad_logits.reshape(logits.shape).to(logits.dtype), None, None


class _HardLabelCE(torch.autograd.Function):
    """-factor * log softmax(beta x)[index] over dimension 1 with its closed-form gradient.

    dL/dx = beta * factor * (p - one-hot). ``index`` keeps dimension 1, ``factor`` does not.
    """

    @staticmethod
    def forward(logits: Tensor, index: Tensor, factor: Tensor, beta: float) -> Tensor:
        log_p = torch.log_softmax(_scaled(logits, beta), dim=1)
        loss = _pick(log_p, index).mul_(factor).neg_()
        # 0 * NaN: an ignored pixel or an empty map is no element of the loss.
        return loss.masked_fill_(factor == 0, 0)

    @staticmethod
    def setup_context(ctx, inputs, output):  # type: ignore[no-untyped-def]
        *tensors, ctx.beta = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        logits, index, factor = ctx.saved_tensors
        silent = (grad == 0) | (factor == 0)
        p = torch.softmax(_scaled(logits, ctx.beta), dim=1)
        grad_logits = _minus_one_at(p, index).mul_((grad * factor * ctx.beta).unsqueeze(1))
        # 0 * NaN, of the logits as of the factor.
        grad_logits.masked_fill_(silent.unsqueeze(1), 0)
        return grad_logits.to(logits.dtype), None, None, None


# torch 2.12 generates C++ that does not compile for gather and scatter in channels-last memory, and
# fuses the comparison that is slow otherwise.
def _pick(log_p: Tensor, index: Tensor) -> Tensor:
    """Return the channel ``index`` (B, 1, H, W) of each pixel, (B, H, W)."""
    if is_compiling():
        return torch.where(_is_channel(index, log_p), log_p, 0).sum(1)
    return log_p.gather(1, index).squeeze(1)


def _minus_one_at(p: Tensor, index: Tensor) -> Tensor:
    """Subtract 1 from the channel ``index`` of each pixel; in place if eager."""
    if is_compiling():
        return p - _is_channel(index, p).to(p.dtype)
    return p.scatter_(1, index, p.gather(1, index) - 1)


def _is_channel(index: Tensor, like: Tensor) -> Tensor:
    channels = torch.arange(like.shape[1], device=like.device)
    return index == channels.reshape(-1, *[1] * (like.dim() - 2))


def _mass(target: Tensor) -> Tensor:
    """Return the sum over the last dimension, 1 where it is 0."""
    mass = target.sum(-1)
    return torch.where(mass == 0, torch.ones_like(mass), mass)


def _scaled(logits: Tensor, beta: float) -> Tensor:
    logits = _wide(logits)
    return logits if beta == 1 else logits * beta


def _wide(x: Tensor) -> Tensor:
    """Half precision cannot hold the sums of a softmax; double stays double for gradcheck."""
    return x if x.dtype == torch.float64 else x.float()


def _class_weight(logits: Tensor, class_weight: Tensor | Sequence[float] | None) -> Tensor:
    classes = logits.shape[1]
    like = _wide(logits.new_empty(0))
    if class_weight is None:
        return like.new_ones(classes)
    weight = torch.as_tensor(class_weight, dtype=like.dtype, device=like.device)
    if weight.shape != (classes,):
        rule = f'hold {classes} factors, one for each channel of logits'
        step = 'Give one per keypoint and the background last'
        got = tuple(weight.shape)
        raise ValueError(message('pixel_softmax_ce', 'class_weight', rule, got, step))
    return weight


def _check_pixel_input(logits: Tensor, target: Tensor) -> None:
    what, step = 'pixel_softmax_ce', 'Pass an integer class map; heatmaps_to_classes makes one'
    if not isinstance(target, Tensor) or not holds_classes(target):
        got = target.dtype if isinstance(target, Tensor) else type(target).__name__
        raise TypeError(message(what, 'target', 'be a tensor of integers', got, step))
    fits = logits.dim() == 4 and logits.shape[1] > 0
    if not fits or target.shape != (logits.shape[0], *logits.shape[2:]):
        rule = f'have the shape (B, H, W) of logits (B, K + 1, H, W) = {tuple(logits.shape)}'
        raise ValueError(message(what, 'target', rule, tuple(target.shape), step))
