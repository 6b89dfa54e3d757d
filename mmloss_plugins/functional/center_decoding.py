"""Boxes from the maps of CenterNet: peaks of a heatmap, top k, offsets and sizes.

Zhou et al., Objects as Points, arXiv 1904.07850, section 4, "From points to bounding boxes".
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple, Union

import torch
from torch import Tensor
from torch.nn.functional import pad

from mmloss_plugins.errors import message
from mmloss_plugins.functional.closed_form import CHUNK
from mmloss_plugins.functional.debug import is_compiling
from mmloss_plugins.functional.gathered_l1 import gather_cells

Stride = Union[float, Sequence[float]]


class Detections(NamedTuple):
    """The k best boxes of each image, best first.

    Attributes:
        boxes: (B, k, 4), corners x1, y1, x2, y2 in px of the input.
        scores: (B, k) in [0, 1].
        labels: (B, k) int64.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


@torch.no_grad()
def decode_centers(
    heatmap: Tensor,
    offset: Tensor | None,
    size_wh: Tensor,
    stride: Stride,
    *,
    k: int = 100,
    kernel: int = 3,
    from_logits: bool = True,
) -> Detections:
    """Return the boxes around the k best peaks of each image, all images at once.

    Args:
        heatmap: (B, C, H, W), logits, or probabilities with ``from_logits=False``.
        offset: (B, 2, H, W), centre (x, y) minus its cell. None: the middle of the cell.
        size_wh: (B, 2, H, W) in cells, or (B, 2C, H, W) with the channels 2c and 2c + 1 for
            class c.
        stride: px of the input per cell, a number or (x, y).
        k: boxes per image; the rest of an image with fewer peaks has score 0.
        kernel: odd; a peak is not exceeded by any cell of a square this wide around it.
        from_logits: False for probabilities, such as the mean of two heatmaps.

    Returns:
        :class:`Detections`. Boxes are not clipped to the image.

    Raises:
        ValueError: maps of different sizes, another number of channels, an even ``kernel``,
            or ``k`` above the number of cells.

    Differs from:
        ``mmdet.CenterNetHead``, whose result this is (which of several cells with one score
        comes first may differ), but for the images it loops over and for sizes per class.

    Reference:
        https://arxiv.org/abs/1904.07850, section 4.

    Example:
        >>> import torch
        >>> heatmap = torch.full((1, 2, 3, 4), -9.0)
        >>> heatmap[0, 1, 2, 1] = 0.0
        >>> size_wh = torch.full((1, 2, 3, 4), 2.0)
        >>> boxes, scores, labels = decode_centers(heatmap, None, size_wh, stride=4, k=1)
        >>> boxes, scores, labels  # centre (1.5, 2.5) cells
        (tensor([[[ 2.,  6., 10., 14.]]]), tensor([[0.5000]]), tensor([[1]]))
    """
    _check_maps(heatmap, offset, size_wh)
    strides = tuple(stride) if isinstance(stride, Sequence) else (stride, stride)
    peaks = local_maxima(heatmap, kernel, fill=-torch.inf if from_logits else 0.0)
    scores, labels, cells = top_peaks(peaks, k)
    width = heatmap.shape[3]
    by_class = labels if size_wh.shape[1] != 2 else None
    sizes = gather_cells(size_wh, cells, 2, by_class).unbind(-1)
    shift = (0.5, 0.5) if offset is None else gather_cells(offset, cells, 2).unbind(-1)
    centre = cells % width + shift[0], cells // width + shift[1]
    boxes = torch.stack(
        [
            (centre[axis] + half * sizes[axis]) * strides[axis]
            for half in (-0.5, 0.5)
            for axis in (0, 1)
        ],
        -1,
    )
    return Detections(boxes, scores.sigmoid() if from_logits else scores, labels)


def local_maxima(heatmap: Tensor, kernel: int = 3, fill: float = -torch.inf) -> Tensor:
    """Keep the cells of a map that no cell around them exceeds, and fill the others.

    The maximum over a square as maxima along its two axes, so that a CPU's vector units can
    work; PyTorch's max pooling takes several times as long there.

    Args:
        heatmap: (B, C, H, W), any floating-point type; logits or probabilities.
        kernel: width of the square, odd; 1 keeps all cells.
        fill: value of the cells that are no peaks: -inf for logits, 0 for probabilities.

    Returns:
        Shape and type of ``heatmap``. Neighbours of one value are all kept, and NaN stays.

    Raises:
        ValueError: an even ``kernel``.

    Example:
        >>> import torch
        >>> local_maxima(torch.tensor([[[[1.0, 3.0, 2.0, 2.0]]]]), fill=0)
        tensor([[[[0., 3., 0., 2.]]]])
    """
    if kernel < 1 or kernel % 2 == 0:
        step = 'The authors take 3'
        raise ValueError(message('local_maxima', 'kernel', 'be odd and positive', kernel, step))
    planes = max(1, CHUNK // max(heatmap.shape[2:].numel(), 1))
    if is_compiling() or heatmap.device.type != 'cpu' or heatmap.shape[:2].numel() <= planes:
        return _maxima(heatmap, kernel, fill)
    # Pieces that fit a cache: three times as fast as the whole.
    maps = heatmap.flatten(0, 1)
    kept = torch.empty_like(maps)
    for start in range(0, len(maps), planes):
        part = slice(start, start + planes)
        kept[part] = _maxima(maps[part], kernel, fill)
    return kept.view(heatmap.shape)


def top_peaks(peaks: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the k largest cells of each image, over all classes.

    The k largest lie in the k rows with the largest maxima, so that few cells are sorted.

    Args:
        peaks: (B, C, H, W), as :func:`local_maxima` returns them.
        k: how many.

    Returns:
        values, labels and cells, each (B, k), largest first; a cell is row * W + column.

    Raises:
        ValueError: ``k`` is not within [1, C * H * W].

    Example:
        >>> import torch
        >>> values, labels, cells = top_peaks(torch.arange(12.0).reshape(1, 2, 2, 3), 2)
        >>> values, labels, cells
        (tensor([[11., 10.]]), tensor([[1, 1]]), tensor([[5, 4]]))
    """
    classes, height, width = peaks.shape[1:]
    if not 1 <= k <= classes * height * width:
        rule = f'be within [1, {classes * height * width}] for maps {tuple(peaks.shape)}'
        raise ValueError(message('top_peaks', 'k', rule, k, 'Lower topk in test_cfg'))
    rows = peaks.amax(-1).flatten(1).topk(min(k, classes * height)).indices
    cells = peaks.flatten(1, 2).gather(1, rows.unsqueeze(-1).expand(-1, -1, width))
    values, found = cells.flatten(1).topk(k)
    row = rows.gather(1, found // width)
    return values, row // height, row % height * width + found % width


def average_mirrored(
    heatmap: Tensor, offset: Tensor | None, size_wh: Tensor, *, from_logits: bool = True
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Merge the maps of images and of their mirror images, the authors' flip test.

    Args:
        heatmap: (2B, C, H, W), those of B images, then those of the same images mirrored.
        offset: (2B, 2, H, W), or None.
        size_wh: (2B, 2, H, W), or (2B, 2C, H, W).
        from_logits: whether ``heatmap`` holds logits; the mean is one of probabilities.

    Returns:
        Probabilities (B, C, H, W) and sizes, both the mean of the two, and the offsets of the
        images that are not mirrored. Decode them with ``from_logits=False``.

    Raises:
        ValueError: an odd number of maps.

    Example:
        >>> import torch
        >>> heatmap = torch.tensor([[0.8, 0.0, 0.4], [0.2, 0.0, 0.6]]).reshape(2, 1, 1, 3)
        >>> average_mirrored(heatmap, None, heatmap, from_logits=False)[0]
        tensor([[[[0.7000, 0.0000, 0.3000]]]])
    """
    if len(heatmap) % 2:
        rule, step = 'hold as many images as mirrored ones', 'Concatenate x and x.flip(-1)'
        raise ValueError(message('average_mirrored', 'heatmap', rule, len(heatmap), step))
    probabilities = heatmap.sigmoid() if from_logits else heatmap
    half = len(heatmap) // 2
    offset = None if offset is None else offset[:half]
    return _mean_with_mirrored(probabilities), offset, _mean_with_mirrored(size_wh)


def _mean_with_mirrored(maps: Tensor) -> Tensor:
    plain, mirrored = maps.chunk(2)
    return (plain + mirrored.flip(-1)) / 2


def _maxima(maps: Tensor, kernel: int, fill: float) -> Tensor:
    highest = pad(maps, [kernel // 2] * 4, value=-torch.inf)
    for axis in (-1, -2):
        size = maps.shape[axis]
        near = [highest.narrow(axis, shift, size) for shift in range(kernel)]
        highest = functools.reduce(torch.maximum, near)
    # Not maps == highest, which would drop NaN.
    return torch.where(maps < highest, fill, maps)


def _check_maps(heatmap: Tensor, offset: Tensor | None, size_wh: Tensor) -> None:
    what = 'decode_centers'
    if heatmap.dim() != 4:
        rule, step = 'have the shape (B, C, H, W)', 'Pass the heatmap of the head'
        raise ValueError(message(what, 'heatmap', rule, tuple(heatmap.shape), step))
    batch, classes, *size = heatmap.shape
    allowed = {'offset': (2,), 'size_wh': (2, 2 * classes)}
    for name, maps in (('offset', offset), ('size_wh', size_wh)):
        if maps is None:
            continue
        shapes = [(batch, channels, *size) for channels in allowed[name]]
        if tuple(maps.shape) not in shapes:
            rule = 'have the shape ' + ' or '.join(map(str, shapes))
            step = f'The heatmap is {tuple(heatmap.shape)}'
            raise ValueError(message(what, name, rule, tuple(maps.shape), step))
