"""Cross-entropy with hard negative mining (DB: Liao et al., AAAI 2020, arXiv 1911.08947)."""

from __future__ import annotations

from typing import Union

import torch
from torch import Tensor

from mmloss_plugins.errors import check_choice, message
from mmloss_plugins.functional.closed_form import CHUNK, closed_form, compute_dtype
from mmloss_plugins.functional.debug import is_compiling
from mmloss_plugins.functional.reduction import expand_weight
from mmloss_plugins.functional.shapes import check_range, check_same_shape

MINE_OVER = ('batch', 'sample')
# Bits of a digit, widest first: a histogram must not be larger than the row that it counts.
WIDTHS = (16, 11, 6)

Fallback = Union[int, str]


def balanced_bce_loss(
    logits: Tensor,
    target: Tensor,
    share: Tensor,
    valid: Tensor | None = None,
    *,
    summed: bool = False,
) -> Tensor:
    r"""Penalise positives and hard negatives by cross-entropy, easy negatives not at all.

    .. math::
        L_i = s_i \, (\max(x_i, 0) - x_i t_i + \log(1 + e^{-|x_i|}))

    with the shares s of :func:`hard_negative_share`. DB's loss is ``L.sum() / s.sum()``, equation
    7 of the paper with mined negatives. In contrast to plain cross-entropy the negatives, 50 and
    more for each pixel of text, do not decide the loss.

    Args:
        logits: x, any shape, any finite values.
        target: t, same shape, in [0, 1].
        share: s, same shape, in [0, 1]; 0 leaves an element out.
        valid: the one of :func:`hard_negative_share`; where it is False the inputs may hold
            anything.
        summed: return the sum, without storing the elements.

    Returns:
        Shape of ``logits``, float32 (float64 for float64 logits), or a scalar for ``summed``.
        Exactly 0 without gradient where ``share`` is 0.

    Raises:
        ValueError: shapes differ or ``target`` requires a gradient. With :func:`value_checks`
            also a valid target outside [0, 1].

    Differs from:
        ``mmocr.models.MaskedBalancedBCEWithLogitsLoss``: that returns 0 without gradient where
        there is no positive (see :func:`hard_negative_share`), copies two counts to the host in
        each call, and keeps a tensor for each of its operators, here one for all.

    Reference:
        https://arxiv.org/abs/1911.08947, section 3.4; https://github.com/MhLiao/DB,
        ``balance_cross_entropy_loss.py``.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[0.0, 2.0, 1.0, -5.0, -6.0]])
        >>> target = torch.tensor([[1.0, 0.0, 0.0, 0.0, 0.0]])
        >>> share = hard_negative_share(logits, target, negative_ratio=2)
        >>> loss = balanced_bce_loss(logits, target, share)
        >>> loss, loss.sum() / share.sum()
        (tensor([[0.6931, 2.1269, 1.3133, 0.0000, 0.0000]]), tensor(1.3778))
    """
    check_same_shape('balanced_bce_loss', logits, target)
    check_same_shape('balanced_bce_loss', logits, share)
    if valid is not None:
        invalid = expand_weight(valid, logits.shape, 'balanced_bce_loss', 'valid') == 0
        # Before the equation: 0 * NaN would be NaN behind it.
        logits, target = logits.masked_fill(invalid, 0), target.masked_fill(invalid, 0)
    check_range('balanced_bce_loss', target, 0, 1)
    return closed_form(_shared_bce, logits, target, share, summed=summed)


def hard_negative_share(
    logits: Tensor,
    target: Tensor,
    valid: Tensor | None = None,
    *,
    negative_ratio: float = 3.0,
    mine_over: str = 'batch',
    fallback_negatives: Fallback = 'all',
    pos_threshold: float = 1.0,
    neg_threshold: float = 0.0,
) -> Tensor:
    r"""Return 1 for each positive and for the negatives of largest loss, 0 for all others.

    .. math::
        k = \min(N_{neg}, \lfloor r \, N_{pos} \rfloor)

    negatives are taken, exactly: if more than one has the k-th largest loss, these share the
    places that are left, so that neither value nor gradient depends on their order in memory.
    k stays a tensor, and the k-th largest loss is found digit by digit from histograms of its
    bits: no sort, no host-device sync.

    Args:
        logits: x, shape (B, ...), any finite values.
        target: t, same shape. A positive has t >= ``pos_threshold``, a negative has
            t <= ``neg_threshold``; what lies between is neither and left out. The default is that
            of the authors, whose ``byte()`` cuts soft targets off to 0.
        valid: boolean, matched from the left; an element that is False (or 0) is neither.
        negative_ratio: r, negatives for each positive.
        mine_over: 'batch' ranks the negatives of all samples together (authors), 'sample' those
            of each sample, by the number of its own positives.
        fallback_negatives: k of a batch (of a sample) without positives. 'all': all negatives,
            as the source does; a number: at most that many of the hardest; 0: none, as the
            authors do, which leaves such images without any loss.
        pos_threshold: smallest target of a positive.
        neg_threshold: largest target of a negative; less than ``pos_threshold``.

    Returns:
        Shape of ``logits``, float32 (float64 for float64 logits), without gradient. It sums to
        N_pos + k.

    Raises:
        ValueError: shapes differ, 'sample' without a dimension of samples, or an option is
            outside its range.

    Differs from:
        The authors and mmocr, which pick an arbitrary one of equal losses, and the latter of
        which counts and weights soft targets as fractions: equal for targets 0 and 1.

    Reference:
        https://arxiv.org/abs/1911.08947, section 3.4.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[3.0, 2.0, -1.0, -1.0, -9.0, 5.0]])
        >>> target = torch.tensor([[1.0, 0.0, 0.0, 0.0, 0.0, 0.5]])
        >>> hard_negative_share(logits, target, negative_ratio=2)
        tensor([[1.0000, 1.0000, 0.5000, 0.5000, 0.0000, 0.0000]])
    """
    what = 'hard_negative_share'
    check_same_shape(what, logits, target)
    check_mining(what, negative_ratio, mine_over, fallback_negatives, pos_threshold, neg_threshold)
    if valid is not None:
        valid = expand_weight(valid, logits.shape, what, 'valid') != 0
    groups = _groups(logits, mine_over)
    keys = _keys(groups, logits.detach(), target, valid, pos_threshold, neg_threshold)
    largest = torch.iinfo(keys.dtype).max
    num_positives = _count(keys, largest)
    num_negatives = _count(keys, 0) - num_positives
    wanted = _number_to_mine(num_positives, num_negatives, negative_ratio, fallback_negatives)
    dtype = compute_dtype(logits)
    return _share(keys, num_positives + wanted, dtype).reshape(logits.shape)


def check_mining(
    what: str,
    negative_ratio: float,
    mine_over: str,
    fallback_negatives: Fallback,
    pos_threshold: float,
    neg_threshold: float,
) -> None:
    """Refuse options outside their range.

    Raises:
        ValueError: names the option.
    """
    check_choice(what, 'mine_over', mine_over, MINE_OVER)
    if not negative_ratio >= 0:
        rule, step = 'be zero or positive', 'The authors take 3'
        raise ValueError(message(what, 'negative_ratio', rule, negative_ratio, step))
    number = isinstance(fallback_negatives, int) and fallback_negatives >= 0
    if fallback_negatives != 'all' and not number:
        rule, step = "be 'all' or a whole number of at least 0", 'The authors take 0'
        raise ValueError(message(what, 'fallback_negatives', rule, repr(fallback_negatives), step))
    if not 0 <= neg_threshold < pos_threshold <= 1:
        rule = 'lie above neg_threshold, both in [0, 1]'
        got = f'{pos_threshold} with neg_threshold={neg_threshold}'
        step = 'The authors take 1 and 0; for Gaussian heatmaps try 0.5 and 0.1'
        raise ValueError(message(what, 'pos_threshold', rule, got, step))


def _bce(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    loss = x.abs().neg_().exp_().log1p_().add_(x.clamp(min=0)).sub_(x * t)
    return loss, torch.sigmoid(x).sub_(t)


def _shared_bce(x: Tensor, t: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    loss, slope = _bce(x, t)
    return loss.mul_(share), slope.mul_(share)


def _groups(logits: Tensor, mine_over: str) -> tuple[int, int]:
    """Return (number of groups that are mined apart, elements of each)."""
    if mine_over == 'batch':
        return 1, logits.numel()
    if logits.dim() == 0:
        rule, step = "have the shape (B, ...) for mine_over='sample'", "Take mine_over='batch'"
        raise ValueError(message('hard_negative_share', 'logits', rule, '()', step))
    return logits.shape[0], logits.shape[1:].numel()


def _keys(
    groups: tuple[int, int],
    logits: Tensor,
    target: Tensor,
    valid: Tensor | None,
    pos_threshold: float,
    neg_threshold: float,
) -> Tensor:
    """Return integers (G, n) that order as the losses do: positives above all, -1 for neither."""
    double = logits.dtype == torch.float64
    dtype, integer = (torch.float64, torch.int64) if double else (torch.float32, torch.int32)
    largest = torch.iinfo(integer).max
    inputs = [logits, target] if valid is None else [logits, target, valid.expand(logits.shape)]
    columns = [tensor.reshape(groups) for tensor in inputs]
    keys = torch.empty(groups, dtype=integer, device=logits.device)
    for key, x, t, *known in zip(*(_pieces(column) for column in (keys, *columns))):
        # In half precision 0.75 would be no less than a threshold of 0.8.
        x, t = x.to(dtype), t.to(dtype)
        loss, _ = _bce(x, t)
        positive = t >= pos_threshold
        # Not `t <= neg_threshold`: a NaN label would be neither and its NaN loss never seen.
        neither = (t > neg_threshold).to(integer) - positive.to(integer)
        if known:
            neither |= (~known[0]).to(integer)
        torch.bitwise_and(loss.view(integer), largest, out=key)
        key |= positive.to(integer) * largest
        key |= -neither
    return keys


def _pieces(tensor: Tensor) -> tuple[Tensor, ...]:
    """Return views of a few columns that fit the cache of a CPU; one elsewhere."""
    if is_compiling() or tensor.device.type != 'cpu' or tensor.numel() <= CHUNK:
        return (tensor,)
    columns = max(CHUNK // len(tensor), 1)
    pieces: tuple[Tensor, ...] = tensor.split(columns, dim=1)  # type: ignore[no-untyped-call]
    return pieces


def _count(keys: Tensor, at_least: int) -> Tensor:
    """Return the number of keys of each row that are at least that large, int64."""
    counts = [(piece >= at_least).sum(1, dtype=torch.int32) for piece in _pieces(keys)]
    return torch.stack(counts).sum(0)


def _number_to_mine(
    num_positives: Tensor, num_negatives: Tensor, ratio: float, fallback: Fallback
) -> Tensor:
    """Return k of each group, int64."""
    # float32 cannot count beyond 2^24, and a ratio may be inf.
    wanted = (num_positives.double() * ratio).minimum(num_negatives.double()).floor().long()
    instead = num_negatives
    if fallback != 'all':
        instead = num_negatives.clamp(max=int(fallback))
    return torch.where(num_positives == 0, instead, wanted)


def _share(keys: Tensor, wanted: Tensor, dtype: torch.dtype) -> Tensor:
    """Return shares that sum to ``wanted`` over the largest keys of each row; spends ``keys``."""
    threshold, places, ties = _threshold(keys, wanted)
    threshold = threshold[:, None]
    part = (places.to(dtype) / ties.clamp(min=1))[:, None]
    pieces = _pieces(keys)
    if len(pieces) == 1:
        return _share_of_piece(keys, threshold, part)
    share = keys.view(dtype)
    for out, piece in zip(_pieces(share), pieces):
        out.copy_(_share_of_piece(piece, threshold, part))
    return share


def _share_of_piece(keys: Tensor, threshold: Tensor, part: Tensor) -> Tensor:
    """Return 1 above the threshold, ``part`` at it and 0 below: no booleans, slow on CPUs."""
    # No overflow: keys lie in [-1, largest] and the threshold in [0, largest].
    side = (keys - threshold).clamp_(-1, 1).to(part.dtype)
    return side.abs().neg_().add_(1).mul_(part).add_(side.clamp_(min=0))


def _threshold(keys: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the ``wanted``-th largest key, how many keys equal to it are wanted, and are there.

    Each pass counts one digit of the keys that begin with the digits found so far.
    """
    prefix, places, ties = torch.zeros_like(wanted), wanted, wanted
    fitting = (width for width in WIDTHS if keys.shape[1] >= 1 << width)
    widest = next(fitting, WIDTHS[-1])
    bits = torch.iinfo(keys.dtype).bits - 1
    while bits > 0:
        width = min(widest, bits)
        bits -= width
        counts = _histogram(keys, prefix, bits, width)
        # at_least[:, d] keys have a digit >= d; it falls with d.
        at_least = counts.flip(1).cumsum(1).flip(1)
        digit = (at_least >= places[:, None]).sum(1) - 1
        ties = counts.gather(1, digit[:, None])[:, 0]
        places = places - (at_least.gather(1, digit[:, None])[:, 0] - ties)
        prefix = (prefix << width) | digit
    return prefix.to(keys.dtype), places, ties


def _histogram(keys: Tensor, prefix: Tensor, shift: int, width: int) -> Tensor:
    """Return (G, 2^width): how often each digit follows ``prefix`` in the keys of a row."""
    size = 1 << width
    prefix = prefix.to(keys.dtype)[:, None]
    begin = torch.arange(len(keys), dtype=keys.dtype, device=keys.device)[:, None] * size
    counts = torch.zeros(len(keys) * size, dtype=torch.int32, device=keys.device)
    for piece in _pieces(keys):
        follows = (piece >> (shift + width)) == prefix
        digit = (piece >> shift).bitwise_and_(size - 1).add_(begin)
        counts.index_add_(0, digit.reshape(-1), follows.reshape(-1).int())
    return counts.reshape(len(keys), size)
