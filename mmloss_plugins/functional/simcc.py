"""SimCC: classification of coordinates over 1-D bins (Li et al., ECCV 2022, arXiv 2107.03332)."""

from __future__ import annotations

import torch
from torch import Tensor

from mmloss_plugins.errors import check_choice, message
from mmloss_plugins.functional.debug import value_checks_enabled
from mmloss_plugins.functional.shapes import refuse_gradient

BIN_REDUCTIONS = ('mean', 'sum')


def kl_discret(
    logits: Tensor,
    target: Tensor,
    *,
    beta: float = 1.0,
    label_softmax: bool = False,
    label_beta: float = 10.0,
    bin_reduction: str = 'mean',
) -> Tensor:
    r"""Penalise a softmax over bins for every nat by which it misses the target distribution.

    .. math::
        KL_k = \sum_i t_{ki} \, (\log t_{ki} - \log p_{ki}), \qquad
        p_k = \mathrm{softmax}(\beta x_k)

    and the same divided by the number of bins for ``bin_reduction='mean'``, which is what the
    SimCC authors' ``KLDiscretLoss`` and MMPose's average. In contrast to cross-entropy the
    value is 0 for a perfect prediction, whatever the entropy of the label.

    Args:
        logits: x, shape (..., W), any finite values; W bins of one axis.
        target: t, shape (..., W), non-negative. Rows that sum to 1 give a KL divergence; a row
            of zeros (an unlabelled keypoint) gives 0 and no gradient.
        beta: inverse temperature of the softmax over ``logits``.
        label_softmax: read ``target`` as scores and take ``softmax(label_beta * target)``, as
            RTMPose does with unnormalised Gaussians.
        label_beta: inverse temperature of that softmax.
        bin_reduction: 'mean' divides by W (authors, MMPose), 'sum' is the true KL in nats.

    Returns:
        Shape (...), float32 (float64 for float64 logits). Zero where p equals t or t is all
        zeros; at least 0 where rows of t sum to 1.

    Raises:
        ValueError: shapes differ, there is no bin, ``target`` requires a gradient, or
            ``bin_reduction`` is unknown. With :func:`value_checks` also NaN or negative targets.

    Differs from:
        ``mmpose.models.losses.KLDiscretLoss``: element-wise here, no reduction over keypoints;
        keeps no tensor of the input's size besides its inputs for backward.

    Reference:
        https://arxiv.org/abs/2107.03332, section 3; RTMPose, https://arxiv.org/abs/2303.07399.

    Example:
        >>> import torch
        >>> target = torch.tensor([[0.0, 1.0, 0.0, 0.0]])
        >>> kl_discret(torch.zeros(1, 4), target, bin_reduction='sum')  # log 4
        tensor([1.3863])
    """
    check_choice('kl_discret', 'bin_reduction', bin_reduction, BIN_REDUCTIONS)
    _check_input(logits, target)
    # Labels made by NumPy are float64: the type of the result follows the logits alone.
    target = target.to(torch.float64 if logits.dtype == torch.float64 else torch.float32)
    if label_softmax:
        target = torch.softmax(target * label_beta, dim=-1)
    kl: Tensor = _SoftmaxKL.apply(logits, target, beta)  # type: ignore[no-untyped-call]
    return kl / logits.shape[-1] if bin_reduction == 'mean' else kl


class _SoftmaxKL(torch.autograd.Function):
    """KL(t || softmax(beta x)) over the last dimension with its closed-form gradient.

    d KL / d x = beta * (p * sum(t) - t), so that backward needs the two inputs and no other
    tensor of their size.
    """

    @staticmethod
    def forward(logits: Tensor, target: Tensor, beta: float) -> Tensor:
        log_p = torch.log_softmax(_scaled(logits, beta), dim=-1)
        # log 0 would be 0 * inf = NaN below. xlogy is half again as slow once compiled; a clamp
        # would hide the NaN of a negative mass.
        log_t = target.add(torch.finfo(target.dtype).tiny).log_()
        return log_t.sub_(log_p).mul_(target).sum(-1)

    @staticmethod
    def setup_context(ctx, inputs, output):  # type: ignore[no-untyped-def]
        logits, target, ctx.beta = inputs
        ctx.save_for_backward(logits, target)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        logits, target = ctx.saved_tensors
        grad = (grad * ctx.beta).unsqueeze(-1)
        grad_logits = torch.softmax(_scaled(logits, ctx.beta), dim=-1)
        grad_logits.mul_(target.sum(-1, keepdim=True)).sub_(target).mul_(grad)
        # 0 * NaN: a row without weight must stay without gradient whatever its logits are.
        grad_logits.masked_fill_(grad == 0, 0)
        return grad_logits.to(logits.dtype), None, None


def _scaled(logits: Tensor, beta: float) -> Tensor:
    logits = _compute_dtype(logits)
    return logits if beta == 1 else logits * beta


def _compute_dtype(x: Tensor) -> Tensor:
    """Half precision cannot hold the sums below; double stays double for gradcheck."""
    return x if x.dtype == torch.float64 else x.float()


def _check_input(logits: Tensor, target: Tensor) -> None:
    if logits.shape != target.shape or logits.dim() == 0 or logits.shape[-1] == 0:
        raise ValueError(
            message(
                'kl_discret',
                'target',
                f'have the shape (..., W) of logits {tuple(logits.shape)} with W >= 1',
                tuple(target.shape),
                'Encode the target with as many bins as the head predicts',
            )
        )
    refuse_gradient('kl_discret', target)
    if value_checks_enabled():
        _check_values(target)


def _check_values(target: Tensor) -> None:
    for rule, bad, step in (
        (
            'be finite',
            ~torch.isfinite(target),
            'Look for a NaN coordinate in the annotation of that sample',
        ),
        ('be non-negative', target < 0, 'A distribution has no negative mass; check the codec'),
    ):
        if bad.any():
            index = tuple(bad.nonzero()[0].tolist())
            got = f'{target[index].item():g} at index {index}'
            raise ValueError(message('kl_discret', 'target', rule, got, step))
