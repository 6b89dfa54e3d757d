"""Logits of classifiers on the hypersphere: modified softmax, NormFace, ArcFace, CosFace."""

from __future__ import annotations

import torch
from torch import Tensor

from mmloss_plugins.functional._angles import Margin
from mmloss_plugins.functional._margin_checks import check_classifier, check_margins, check_positive
from mmloss_plugins.functional._margin_logits import hypersphere_logits, margins_of
from mmloss_plugins.functional.closed_form import compute_dtype

ARCFACE = (1.0, 0.5, 0.0)


def cosine_logits(features: Tensor, class_weights: Tensor, *, scale: float = 1.0) -> Tensor:
    r"""Return the cosine between each sample and each class, times ``scale``.

    .. math::
        z_{bj} = s \cos \theta_{bj} = s \, \frac{x_b \cdot w_j}{|x_b| \, |w_j|}

    What a head with a margin predicts: there is no margin at test time.

    Args:
        features: x, shape (B, D), any floating-point type; normalised in float32.
        class_weights: w, shape (C, D), or (C, K, D) with K sub-centres per class, of which the
            nearest counts.
        scale: s.

    Returns:
        Shape (B, C), float32 (float64 for float64 ``features``), within [-s, s] up to rounding.
        A vector of zeros is at a right angle to everything.

    Raises:
        TypeError: an input is no floating-point tensor.
        ValueError: the dimensions D differ, there is no class, or ``scale`` is not positive.

    Reference:
        Wang et al., NormFace, https://arxiv.org/abs/1704.06369; sub-centres: Deng et al.,
        Sub-center ArcFace, ECCV 2020.

    Example:
        >>> import torch
        >>> axes = torch.tensor([[2.0, 0.0], [0.0, 9.0]])
        >>> cosine_logits(torch.tensor([[30.0, 40.0]]), axes)
        tensor([[0.6000, 0.8000]])
    """
    check_classifier('cosine_logits', features, class_weights)
    check_positive('cosine_logits', 'scale', scale)
    return hypersphere_logits(features, class_weights, scale)


def modified_softmax_logits(features: Tensor, class_weights: Tensor) -> Tensor:
    r"""Return the length of each sample along the direction of each class; no bias.

    .. math::
        z_{bj} = |x_b| \cos \theta_{bj} = \frac{x_b \cdot w_j}{|w_j|}

    In contrast to a linear layer no class wins by the length of its weights, so that the
    borders between classes are bisectors.

    Args:
        features: x, shape (B, D).
        class_weights: w, shape (C, D), or (C, K, D) with sub-centres.

    Returns:
        Shape (B, C), float32 (float64 for float64 ``features``).

    Raises:
        TypeError: an input is no floating-point tensor.
        ValueError: the dimensions D differ or there is no class.

    Differs from:
        The form in write-ups, ``w.renorm(2, 1, 1e-5).mul(1e5)``: the same for columns longer than
        1e-5, whose gradient it has as well.

    Reference:
        Liu et al., SphereFace, https://arxiv.org/abs/1704.08063.

    Example:
        >>> import torch
        >>> axes = torch.tensor([[2.0, 0.0], [0.0, 9.0]])
        >>> modified_softmax_logits(torch.tensor([[30.0, 40.0]]), axes)
        tensor([[30., 40.]])
    """
    check_classifier('modified_softmax_logits', features, class_weights)
    return hypersphere_logits(features, class_weights, 1.0, normalize_features=False)


def normface_logits(features: Tensor, class_weights: Tensor, *, scale: float = 16.0) -> Tensor:
    """Return the scaled cosines that NormFace trains: :func:`cosine_logits` with its scale.

    With ``scale=1`` the loss could not fall below log(1 + (C - 1) exp(-2)) even for perfect
    features, which is why there is a scale.

    Args:
        features: x, shape (B, D).
        class_weights: w, shape (C, D), or (C, K, D) with sub-centres.
        scale: s; 16 suits ten classes, 64 a hundred thousand.

    Returns:
        Shape (B, C); see :func:`cosine_logits`.

    Raises:
        TypeError: an input is no floating-point tensor.
        ValueError: the dimensions D differ, there is no class, or ``scale`` is not positive.

    Reference:
        Wang et al., NormFace, https://arxiv.org/abs/1704.06369.

    Example:
        >>> import torch
        >>> normface_logits(torch.tensor([[30.0, 40.0]]), torch.eye(2))
        tensor([[ 9.6000, 12.8000]])
    """
    check_classifier('normface_logits', features, class_weights)
    check_positive('normface_logits', 'scale', scale)
    return hypersphere_logits(features, class_weights, scale)


def arcface_logits(
    features: Tensor,
    class_weights: Tensor,
    target: Tensor,
    *,
    scale: float = 64.0,
    margin: Margin = 0.5,
    rule: str = 'monotonic',
    ignore_index: int = -1,
) -> Tensor:
    r"""Return scaled cosines with an additive angular margin in the column of the own class.

    .. math::
        z_{bj} = \begin{cases} s \cos(\theta_{bj} + m) & j = y_b \\
            s \cos \theta_{bj} & \text{otherwise} \end{cases}

    The cross-entropy of these logits asks a sample to be nearer to its class than to any other by
    m radians.

    Args:
        features: x, shape (B, D), any floating-point type; normalised in float32.
        class_weights: w, shape (C, D), or (C, K, D) with K sub-centres per class.
        target: y, shape (B,), classes 0...C-1 or ``ignore_index``.
        scale: s.
        margin: m in radians, within [0, pi); a tensor (C,) has one for each class.
        rule: what stands where theta + m is beyond pi, and the cosine would rise again; see
            :func:`combined_margin_logits`.
        ignore_index: samples of this class get no margin.

    Returns:
        Shape (B, C), float32 (float64 for float64 ``features``). Finite with a finite gradient
        also where a sample lies on a class or opposite of it.

    Raises:
        TypeError: an input is no tensor, or ``target`` holds no integers.
        ValueError: wrong shapes, a margin or scale out of range, or an unknown ``rule``. With
            :func:`value_checks` also a class that does not exist.

    Differs from:
        ``mmpretrain.ArcFaceClsHead``, pytorch-metric-learning (margin in degrees) and
        insightface: no arc cosine and no one-hot matrix, so that neither value nor gradient is
        lost at cos = +-1; insightface's gradient is that of the plain cosine.

    Reference:
        Deng et al., ArcFace, https://arxiv.org/abs/1801.07698, equation 3.

    Example:
        >>> import torch
        >>> features = torch.tensor([[1.0, 1.0]])
        >>> arcface_logits(features, torch.eye(2), torch.tensor([0]), scale=1.0)  # 45 + 28.6 deg
        tensor([[0.2815, 0.7071]])
    """
    margins = (1.0, margin, 0.0)
    return _with_margins(
        'arcface_logits', features, class_weights, target, scale, margins, rule, ignore_index
    )


def cosface_logits(
    features: Tensor,
    class_weights: Tensor,
    target: Tensor,
    *,
    scale: float = 64.0,
    margin: Margin = 0.35,
    ignore_index: int = -1,
) -> Tensor:
    r"""Return scaled cosines, lower by a margin in the column of the own class.

    .. math::
        z_{bj} = s \, (\cos \theta_{bj} - m \, [j = y_b])

    Args:
        features: x, shape (B, D), any floating-point type; normalised in float32.
        class_weights: w, shape (C, D), or (C, K, D) with K sub-centres per class.
        target: y, shape (B,), classes 0...C-1 or ``ignore_index``.
        scale: s.
        margin: m, at least 0; a tensor (C,) has one for each class.
        ignore_index: samples of this class get no margin.

    Returns:
        Shape (B, C), float32 (float64 for float64 ``features``).

    Raises:
        TypeError: an input is no tensor, or ``target`` holds no integers.
        ValueError: wrong shapes, or a margin or scale out of range.

    Differs from:
        pytorch-metric-learning's CosFaceLoss: no mask of the size of the logits.

    Reference:
        Wang et al., CosFace, https://arxiv.org/abs/1801.09414, equation 4.

    Example:
        >>> import torch
        >>> features = torch.tensor([[3.0, 4.0]])
        >>> cosface_logits(features, torch.eye(2), torch.tensor([0]), scale=10.0)
        tensor([[2.5000, 8.0000]])
    """
    margins = (1.0, 0.0, margin)
    return _with_margins(
        'cosface_logits', features, class_weights, target, scale, margins, 'off', ignore_index
    )


def combined_margin_logits(
    features: Tensor,
    class_weights: Tensor,
    target: Tensor,
    *,
    scale: float = 64.0,
    margins: tuple[float, Margin, Margin] = ARCFACE,
    rule: str = 'monotonic',
    ignore_index: int = -1,
) -> Tensor:
    r"""Return scaled cosines with the three margins in the column of the own class.

    .. math::
        z_{bj} = s \, (\cos(m_1 \theta_{bj} + m_2) - m_3) \quad \text{for } j = y_b

    (1, m, 0) is ArcFace, (1, 0, m) CosFace, (m, 0, 0) SphereFace with normalised features.

    Args:
        features: x, shape (B, D), any floating-point type; normalised in float32.
        class_weights: w, shape (C, D), or (C, K, D) with K sub-centres per class.
        target: y, shape (B,), classes 0...C-1 or ``ignore_index``.
        scale: s.
        margins: m1 > 0; m2 in radians within [0, pi); m3 at least 0. The last two may be tensors
            (C,) with one for each class.
        rule: 'monotonic' (default): the logit goes on falling where the angle is beyond pi, with
            m1 = 1 as cos(theta) - m2 sin(m2) (ArcFace's authors), else as SphereFace's
            (-1)^k cos(angle) - 2k. 'easy': the margin acts only where cos(theta) > 0. 'off': the
            formula as it stands, whose logit rises again beyond pi.
        ignore_index: samples of this class get no margin.

    Returns:
        Shape (B, C), float32 (float64 for float64 ``features``). Finite with a finite gradient
        also where a sample lies on a class or opposite of it; there the angle has no derivative
        and the own column none.

    Raises:
        TypeError: an input is no tensor, or ``target`` holds no integers.
        ValueError: wrong shapes, a margin or scale out of range, or an unknown ``rule``. With
            :func:`value_checks` also a class that does not exist.

    Differs from:
        insightface's CombinedMarginLoss: with a rule beyond pi, and with the derivative of the
        angle instead of that of the plain cosine.

    Reference:
        Deng et al., ArcFace, https://arxiv.org/abs/1801.07698, equation 4; SphereFace's psi:
        https://arxiv.org/abs/1704.08063, section 3.2.

    Example:
        >>> import torch
        >>> features, target = torch.tensor([[1.0, 1.0]]), torch.tensor([1])
        >>> combined_margin_logits(
        ...     features, torch.eye(2), target, scale=1.0, margins=(1.0, 0.5, 0.1)
        ... )
        tensor([[0.7071, 0.1815]])
    """
    what = 'combined_margin_logits'
    return _with_margins(what, features, class_weights, target, scale, margins, rule, ignore_index)


def _with_margins(
    what: str,
    features: Tensor,
    class_weights: Tensor,
    target: Tensor,
    scale: float,
    margins: tuple[float, Margin, Margin],
    rule: str,
    ignore_index: int,
) -> Tensor:
    check_classifier(what, features, class_weights, target, ignore_index)
    check_margins(what, len(class_weights), scale, margins, rule)
    ignored = target == ignore_index
    index = torch.where(ignored, 0, target.long())
    margins = margins_of(margins, index, compute_dtype(features))
    return hypersphere_logits(features, class_weights, scale, True, index, ignored, margins, rule)
