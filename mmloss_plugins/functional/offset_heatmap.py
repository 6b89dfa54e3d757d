"""Binary disks with offsets inside them, and their fusion by Hough voting.

Papandreou et al., Towards Accurate Multi-person Pose Estimation in the Wild, CVPR 2017, arXiv
1701.01779 (G-RMI), section 3.2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmloss_plugins.errors import check_choice, message
from mmloss_plugins.functional.closed_form import closed_form, compute_dtype, with_slope
from mmloss_plugins.functional.shapes import check_range, check_same_shape

ORDERS = ('grouped', 'interleaved')
# Cells on each side of the map that catch votes between the outermost cell and the image border.
VOTE_PAD = 1


def split_offset_maps(maps: Tensor, order: str = 'grouped') -> tuple[Tensor, Tensor]:
    """Return the disks and the offsets of 3K channels, as views.

    Args:
        maps: shape (B, 3K, H, W).
        order: of the channels. 'grouped', the paper's: K disks, K offsets along x, K along y.
            'interleaved', MMPose's: disk, x, y of the first keypoint, of the second, ...

    Returns:
        Disks of shape (B, K, H, W) and offsets (x, y) of shape (B, K, 2, H, W).

    Raises:
        ValueError: the channels are no multiple of 3, or an unknown ``order``.

    Example:
        >>> import torch
        >>> disks, offsets = split_offset_maps(torch.zeros(2, 51, 45, 33))
        >>> disks.shape, offsets.shape
        (torch.Size([2, 17, 45, 33]), torch.Size([2, 17, 2, 45, 33]))
    """
    check_choice('split_offset_maps', 'order', order, ORDERS)
    if maps.dim() != 4 or maps.shape[1] % 3:
        rule, step = 'have the shape (B, 3K, H, W)', 'Give the head three channels per keypoint'
        raise ValueError(message('split_offset_maps', 'maps', rule, tuple(maps.shape), step))
    keypoints = maps.shape[1] // 3
    if order == 'interleaved':
        parts = maps.view(_split_channels(maps, keypoints, 3))
    else:
        parts = maps.view(_split_channels(maps, 3, keypoints)).transpose(1, 2)
    return parts[:, :, 0], parts[:, :, 1:]


def _split_channels(maps: Tensor, outer: int, inner: int) -> tuple[int, ...]:
    return (maps.shape[0], outer, inner, *maps.shape[2:])


def disk_logistic(logits: Tensor, target: Tensor) -> Tensor:
    r"""Penalise every cell of a keypoint's map that is on the wrong side of its binary disk.

    .. math::
        L_h = \frac{1}{HW} \sum_i \log(1 + e^{x_i}) - t_i x_i

    The logistic loss of the paper, one classifier per cell: in contrast to the mean squared
    error on a Gaussian, a cell is either within R of the keypoint or not.

    Args:
        logits: x, shape (B, K, H, W).
        target: t, the disk, same shape, in [0, 1].

    Returns:
        Shape (B, K), float32 (float64 for float64 logits); 0 in the limit of infinite logits of
        the right sign.

    Raises:
        ValueError: shapes differ or ``target`` requires a gradient. With :func:`value_checks`
            also a target outside [0, 1].

    Differs from:
        ``mmpose.models.losses.CombinedTargetMSELoss``, which takes 0.5 times the squared error
        of the disk, and Python loops over the keypoints.

    Reference:
        https://arxiv.org/abs/1701.01779, section 3.2.

    Example:
        >>> import torch
        >>> disk_logistic(torch.zeros(1, 1, 2, 2), torch.eye(2)[None, None])  # log 2
        tensor([[0.6931]])
    """
    check_same_shape('disk_logistic', logits, target)
    _check_maps('disk_logistic', 'logits', logits, 4)
    check_range('disk_logistic', target, 0, 1)
    return closed_form(_logistic, logits, target).mean((-2, -1))


def _logistic(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    # Added last: it is what is left of the loss at a confident and right cell.
    tail = x.abs().neg_().exp_().log1p_()
    return x.clamp(min=0).sub_(x * t).add_(tail), torch.sigmoid(x).sub_(t)


def disk_offset_huber(
    offsets: Tensor, target: Tensor, disk: Tensor, *, delta_px: float = 1.0
) -> Tensor:
    r"""Penalise the distance between predicted and true offsets inside the disk alone.

    .. math::
        L_o = \frac{1}{|D|} \sum_{i \in D} H(\lVert F(x_i) - (l - x_i) \rVert), \qquad
        H(r) = \begin{cases} r^2 / 2 & r \le \delta \\ \delta (r - \delta / 2) & \text{else}
        \end{cases}

    with the keypoint l, the disk D of the cells within R of it and |D| its number of cells.
    Huber's function of the Euclidean distance, as in the paper, so that a diagonal error costs
    as much as one along an axis.

    Args:
        offsets: F, shape (B, K, 2, H, W), px.
        target: from each cell centre to the keypoint, same shape, px.
        disk: 1 inside D and 0 outside, shape (B, K, H, W); other values weight the cell.
        delta_px: where the parabola ends, px.

    Returns:
        Shape (B, K), px squared up to ``delta_px`` and px times ``delta_px`` beyond; float32
        (float64 for float64 offsets). 0 where the offsets are right inside the disk, and where
        the disk is empty.

    Raises:
        ValueError: shapes do not fit, ``target`` or ``disk`` requires a gradient, or
            ``delta_px`` is not positive.

    Differs from:
        ``mmpose.models.losses.CombinedTargetMSELoss``, which averages the squared error over the
        whole map (a disk of 30 of 1,485 cells counts a 50th) and weights with the square of a
        soft weight. The paper sums over the disk.

    Reference:
        https://arxiv.org/abs/1701.01779, section 3.2.

    Example:
        >>> import torch
        >>> off = torch.tensor([3.0, 4.0]).reshape(1, 1, 2, 1, 1)  # 5 px: 1 * (5 - 1/2)
        >>> disk_offset_huber(off, torch.zeros_like(off), torch.ones(1, 1, 1, 1))
        tensor([[4.5000]])
    """
    what = 'disk_offset_huber'
    check_same_shape(what, offsets, target)
    _check_maps(what, 'offsets', offsets, 5)
    check_same_shape(what, offsets[:, :, 0], disk)
    if not delta_px > 0:
        step = 'Take the error in px up to which the loss shall be quadratic'
        raise ValueError(message(what, 'delta_px', 'be > 0', delta_px, step))
    loss: Tensor = with_slope(_disk_huber, offsets, target, disk, delta_px)
    return loss


def _disk_huber(
    offsets: Tensor, target: Tensor, disk: Tensor, delta: float
) -> tuple[Tensor, Tensor]:
    dtype = compute_dtype(offsets)
    error = offsets.to(dtype) - target.to(dtype)
    disk = disk.to(dtype)
    share = disk / disk.sum((-2, -1), keepdim=True).clamp(min=1)
    distance = torch.hypot(error[:, :, 0], error[:, :, 1])
    quadratic = distance.clamp(max=delta)
    loss = (distance - quadratic / 2).mul_(quadratic).mul_(share).sum((-2, -1))
    # The quotient is inf at a distance of 0, where the derivative is that of the parabola.
    slope = (delta / distance).clamp_(max=1).mul_(share)
    return loss, error.mul_(slope.unsqueeze(2))


def hough_vote(
    probs: Tensor,
    offsets: Tensor,
    *,
    cell_size: tuple[float, float] = (1.0, 1.0),
    min_vote: float = 0.0,
) -> Tensor:
    r"""Let every cell vote for the position that it points at, with its probability as weight.

    .. math::
        f(x) = \sum_j h_j \, G(x_j + F_j - x)

    with the bilinear kernel G of one cell: a vote between four cells is shared among them. The
    paper divides by the number of cells of a whole disk, :math:`\pi R^2`; that is left to the
    caller.

    Args:
        probs: h, shape (B, K, H, W), in [0, 1].
        offsets: F, shape (B, K, 2, H, W), (x, y), in the unit of ``cell_size``.
        cell_size: distance between two cells along x and y; with 1 offsets are in cells.
        min_vote: leave out cells whose probability is below this fraction of the largest one of
            their keypoint; 0 is the sum over all cells. A trained network gives most cells next
            to nothing, and leaving them out is many times as fast.

    Returns:
        f, shape (B, K, H + 2, W + 2), float32 or float64: one cell more on each side, so that
        index 1 is the first cell of the map. Votes farther outside are lost. A NaN in the
        prediction of a keypoint shows in its f.

    Raises:
        ValueError: the shapes do not fit each other.

    Example:
        >>> import torch
        >>> probs = torch.zeros(1, 1, 2, 3)
        >>> probs[0, 0, 0, 0] = 0.8  # points at a quarter of the way from cell 1 to cell 2
        >>> offsets = torch.zeros(1, 1, 2, 2, 3)
        >>> offsets[0, 0, 0, 0, 0] = 1.25
        >>> hough_vote(probs, offsets)[0, 0, 1]
        tensor([0.0000, 0.0000, 0.6000, 0.2000, 0.0000])
    """
    _check_maps('hough_vote', 'offsets', offsets, 5)
    if offsets[:, :, 0].shape != probs.shape:
        rule = f'have the B, K, H and W of offsets {tuple(offsets.shape)}'
        step = 'Split the 3K maps with split_offset_maps'
        raise ValueError(message('hough_vote', 'probs', rule, tuple(probs.shape), step))
    if probs.dtype not in (torch.float32, torch.float64):
        probs = probs.float()
    batch, keypoints, height, width = probs.shape
    rows, columns = height + 2 * VOTE_PAD, width + 2 * VOTE_PAD
    voter, x, y, weight, offset_x, offset_y = _voters(probs, offsets, min_vote)
    left, right_share, inside_x = _landing(x, offset_x, cell_size[0], columns)
    top, low_share, inside_y = _landing(y, offset_y, cell_size[1], rows)
    weight = weight * (inside_x & inside_y)
    first = ((voter * rows + top) * columns + left).flatten()
    fused = weight.new_zeros(batch * keypoints * rows * columns)
    low = weight * low_share
    high = weight - low
    for share, index in ((high, first), (low, first + columns)):
        right = share * right_share
        fused.index_add_(0, index, (share - right).flatten())
        fused.index_add_(0, index + 1, right.flatten())
    return fused.view(batch, keypoints, rows, columns)


def _voters(probs: Tensor, offsets: Tensor, min_vote: float) -> tuple[Tensor, ...]:
    """Return number of the map, x and y of the cell, weight and offsets (x, y) of every vote."""
    batch, keypoints, height, width = probs.shape
    if min_vote == 0:
        voter = torch.arange(batch * keypoints, device=probs.device).view(batch, keypoints, 1, 1)
        x = torch.arange(width, device=probs.device)
        y = torch.arange(height, device=probs.device).view(-1, 1)
        return voter, x, y, probs, offsets[:, :, 0], offsets[:, :, 1]
    least = probs.amax((-2, -1), keepdim=True) * min_vote
    # Not `probs >= least`: a NaN has to vote to be seen.
    flat = (probs < least).logical_not_().flatten().nonzero().squeeze(1)
    # One flat index: with one for each dimension the look-ups take three times as long.
    voter = torch.div(flat, height * width, rounding_mode='floor')
    cell = flat - voter * (height * width)
    y = torch.div(cell, width, rounding_mode='floor')
    values = (probs, offsets[:, :, 0], offsets[:, :, 1])
    weight, offset_x, offset_y = (each.flatten().index_select(0, flat) for each in values)
    return voter, cell - y * width, y, weight, offset_x, offset_y


def _landing(
    cell: Tensor, offset: Tensor, cell_size: float, size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the cell before the vote, the share of the next one, and whether it is on the grid."""
    offset = offset.to(torch.promote_types(offset.dtype, torch.float32))
    position = cell + VOTE_PAD + offset / cell_size
    kept = position.clamp(0, size - 1)
    # The integer of a NaN may be anything.
    before = kept.floor().long().clamp_(0, size - 2)
    return before, kept - before, position == kept


def vote_peaks(fused: Tensor) -> tuple[Tensor, Tensor]:
    r"""Find the peak of the votes and the mean of the votes around it.

    The bilinear kernel keeps the centre of mass of a vote, so the mean over the 3 x 3 cells
    around the peak is the position at which they landed, not that of a cell.

    Args:
        fused: result of :func:`hough_vote`, shape (B, K, H + 2, W + 2).

    Returns:
        Positions (x, y) of shape (B, K, 2) in cells of the map, and the sum of the votes there
        of shape (B, K). Without any vote the first cell with a sum of 0.

    Raises:
        ValueError: ``fused`` has not four dimensions.

    Example:
        >>> import torch
        >>> fused = torch.zeros(1, 1, 4, 5)
        >>> fused[0, 0, 1, 2:4] = torch.tensor([0.6, 0.2])
        >>> vote_peaks(fused)
        (tensor([[[1.2500, 0.0000]]]), tensor([[0.8000]]))
    """
    _check_maps('vote_peaks', 'fused', fused, 4)
    rows, columns = fused.shape[-2:]
    # Row by row: argmax over all cells at once takes twice as long on a CPU.
    y = fused.amax(-1).argmax(-1)
    row = fused.gather(-2, y[..., None, None].expand(-1, -1, 1, columns))
    x = row.squeeze(-2).argmax(-1).clamp_(1, columns - 2)
    # At the border of the grid the window keeps its size: it ends there.
    y = y.clamp_(1, rows - 2)
    step = torch.arange(-1, 2, device=fused.device)
    steps_y, steps_x = torch.meshgrid(step, step, indexing='ij')
    window = (y * columns + x).unsqueeze(-1) + (steps_y * columns + steps_x).flatten()
    votes = fused.flatten(-2).gather(-1, window)
    total = votes.sum(-1)
    shares = votes / total.masked_fill(total == 0, 1).unsqueeze(-1)
    mean_x = (shares * steps_x.flatten()).sum(-1) + (x - VOTE_PAD)
    mean_y = (shares * steps_y.flatten()).sum(-1) + (y - VOTE_PAD)
    return torch.stack((mean_x, mean_y), -1), total


def _check_maps(what: str, argument: str, maps: Tensor, dimensions: int) -> None:
    shape = '(B, K, 2, H, W)' if dimensions == 5 else '(B, K, H, W)'
    fits = maps.dim() == dimensions and (dimensions == 4 or maps.shape[2] == 2)
    if not fits or 0 in maps.shape[-2:]:
        rule, step = f'have the shape {shape} with H, W >= 1', 'Check the order of the dimensions'
        raise ValueError(message(what, argument, rule, tuple(maps.shape), step))
