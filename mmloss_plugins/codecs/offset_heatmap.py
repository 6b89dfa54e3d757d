"""Binary disks and the offsets inside them, and their decoding by Hough voting (G-RMI)."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from mmpose.codecs.base import BaseKeypointCodec
from torch import Tensor

from mmloss_plugins import functional as F
from mmloss_plugins.errors import check_choice, message, refuse_unknown
from mmloss_plugins.functional.offset_heatmap import ORDERS
from mmloss_plugins.registry import KEYPOINT_CODECS

from . import _offset_decoding as decoding
from ._offset_grid import WHAT, check_radius, make_grid
from ._simcc_arguments import is_number

ARGUMENTS = (
    'input_size',
    'heatmap_size',
    'radius_px',
    'order',
    'align',
    'decode_mode',
    'min_vote',
)
DECODE_MODES = ('hough', 'argmax', 'disk')
ENCODE, DECODE = 'OffsetHeatmap.encode', 'OffsetHeatmap.decode'


@KEYPOINT_CODECS.register_module()
class OffsetHeatmap(BaseKeypointCodec):
    r"""Generate and decode a binary disk and two offset maps per keypoint.

    See `Towards Accurate Multi-person Pose Estimation in the Wild`_ by Papandreou et al. (2017).
    A cell of the disk is 1 if its centre lies within ``radius_px`` of the keypoint; its offsets
    are the way from there to the keypoint in px, so that a small map can hold exact positions.

    The integer px ``i`` is the centre of pixel ``i``. Cells and pixels share their outer edges
    (``align='centers'``) or the centres of their outermost ones (``'corners'``)::

        pixels    |0 |1 |2 |3 |4 |5 |6 |7 |8 |9 |10|11|      12 pixels, 3 cells
        centers   |     0     |     1     |     2     |      cell i at (i + 1/2) w / W - 1/2

        pixels    |0 |1 |2 |3 |4 |5 |6 |7 |8 |               9 pixels, 3 cells
        corners    0           1           2                 cell i at i (w - 1) / (W - 1)

    Both are symmetric: the map of a mirrored image is the mirrored map, without any shift.

    Note:

        - instance number: N, always 1
        - keypoint number: K
        - image size: [w, h]
        - map size: [W, H]

    Encoded:

        - heatmaps (np.ndarray): K disks, K offsets along x and K offsets along y in shape
            (3K, H, W), float32; with ``order='interleaved'`` disk, x and y of the first keypoint,
            of the second, ... Offsets are 0 outside the disk
        - keypoint_weights (np.ndarray): The target weights in shape (1, K), float32

    Differences to MMPose's ``UDPHeatmap(heatmap_type='combined')``: the radius is in px of the
    input and the offsets are too, in place of a fraction of the map and multiples of the radius;
    a keypoint outside the image has weight 0; decoding inverts encoding with the plain
    ``TopdownAffine`` (``use_udp=False``), while MMPose's is off by the factor w / (w - 1).

    Args:
        input_size (tuple): Input image size in [w, h], px
        heatmap_size (tuple): Map size in [W, H]
        radius_px (float): Radius R of the disk in px of the input, at least half the diagonal of
            a cell. Defaults to 25.0, the paper's for an input of 257x353
        order (str): Of the channels, ``'grouped'`` or ``'interleaved'`` as in MMPose; see above.
            Defaults to ``'grouped'``
        align (str): ``'centers'`` or ``'corners'``, see above. ``'auto'`` takes centers where
            W divides w and H divides h (64 and 8), and corners where W - 1 divides w - 1 and so
            on (353 and 45, as in the paper). Defaults to ``'auto'``
        decode_mode (str): ``'hough'`` lets every cell vote for the position that it points at;
            ``'argmax'`` takes the most probable cell and its offset; ``'disk'`` that cell without
            its offset, which shows what the offsets are worth. Defaults to ``'hough'``
        min_vote (float): In [0, 1]. Cells whose probability is below this fraction of the largest
            one of the keypoint do not vote; with 0 all do, as in the paper, for ten times the
            time. Defaults to 0.01

    Raises:
        TypeError: an unknown argument.
        ValueError: a value outside the ranges above.

    .. _`Towards Accurate Multi-person Pose Estimation in the Wild`:
        https://arxiv.org/abs/1701.01779
    """

    label_mapping_table: ClassVar[dict[str, str]] = {'keypoint_weights': 'keypoint_weights'}
    field_mapping_table: ClassVar[dict[str, str]] = {'heatmaps': 'heatmaps'}

    def __init__(
        self,
        input_size: tuple[int, int],
        heatmap_size: tuple[int, int],
        radius_px: float = 25.0,
        order: str = 'grouped',
        align: str = 'auto',
        decode_mode: str = 'hough',
        min_vote: float = 0.01,
        **unknown: Any,
    ) -> None:
        super().__init__()
        refuse_unknown(WHAT, unknown, ARGUMENTS)
        check_choice(WHAT, 'order', order, ORDERS)
        check_choice(WHAT, 'decode_mode', decode_mode, DECODE_MODES)
        self.grid = make_grid(input_size, heatmap_size, align)
        self.radius_px = check_radius(radius_px, self.grid)
        if not is_number(min_vote) or not 0 <= min_vote <= 1:
            step = 'Take 0 for the votes of all cells, or a small value such as 0.01'
            raise ValueError(message(WHAT, 'min_vote', 'be in [0, 1]', repr(min_vote), step))
        self.input_size = input_size
        self.heatmap_size = heatmap_size
        self.order = order
        self.align = align
        self.decode_mode = decode_mode
        self.min_vote = min_vote
        self._centres = [self.grid.centres(axis) for axis in range(2)]

    def encode(self, keypoints: np.ndarray, keypoints_visible: np.ndarray | None = None) -> dict:
        """Encode keypoints, given in px of the input image, into disks and offsets.

        A keypoint whose visibility is below 0.5, or that lies outside the image [-0.5, w - 0.5],
        gets empty maps and weight 0.

        Args:
            keypoints (np.ndarray): Keypoint coordinates in shape (1, K, 2), px
            keypoints_visible (np.ndarray, optional): Keypoint visibilities in shape (1, K), kept
                as weights of the labelled keypoints. Defaults to None: all 1

        Returns:
            dict:
            - heatmaps (np.ndarray): Disks and offsets in shape (3K, H, W), float32
            - keypoint_weights (np.ndarray): The target weights in shape (1, K), float32

        Raises:
            ValueError: a wrong shape, or a visible keypoint or a visibility that is NaN or inf.
        """
        points, visible = self._check_keypoints(keypoints, keypoints_visible)
        labelled = visible >= 0.5
        points = np.where(labelled[:, None], points, 0).astype(np.float32)
        if not np.isfinite(points).all():
            raise ValueError(_not_finite('keypoints', points))
        labelled &= ((points >= self.grid.low) & (points <= self.grid.high)).all(axis=-1)
        dx, dy = (points[:, axis, None] - self._centres[axis] for axis in range(2))
        squares = (dx * dx)[:, None, :] + (dy * dy)[:, :, None]
        squares[~labelled] = np.inf
        heatmaps, (disk, offset_x, offset_y) = self._empty(squares.shape)
        np.less_equal(squares, np.float32(self.radius_px**2), out=disk, casting='unsafe')
        np.multiply(disk, dx[:, None, :], out=offset_x)
        np.multiply(disk, dy[:, :, None], out=offset_y)
        weights = np.where(labelled, visible, 0).astype(np.float32)
        return {'heatmaps': heatmaps, 'keypoint_weights': weights[None]}

    def decode(self, encoded: np.ndarray, from_logits: bool = True) -> tuple:
        """Decode keypoints, in px of the input image, from the maps of one sample.

        Args:
            encoded (np.ndarray): Disks and offsets in shape (3K, H, W)
            from_logits (bool): False if the disks are probabilities or labels. Defaults to True

        Returns:
            tuple:
            - keypoints (np.ndarray): Decoded coordinates in shape (1, K, 2), px, float32, inside
              the image; NaN where the prediction holds NaN
            - scores (np.ndarray): The keypoint scores in shape (1, K), float32, in [0, 1]. For
              ``'hough'``, the votes that met at the position over the number of cells of a whole
              disk there; else the probability of the cell

        Raises:
            ValueError: a shape that does not fit the codec.
        """
        keypoints, scores = self.batch_decode(np.asarray(encoded)[None], from_logits)
        return keypoints[0], scores[0]

    def batch_decode(
        self, batch_encoded: Tensor | np.ndarray, from_logits: bool = True
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Decode the maps of a batch at once, on the device they are on; see :meth:`decode`.

        Args:
            batch_encoded (Tensor | np.ndarray): Disks and offsets in shape (B, 3K, H, W)
            from_logits (bool): False if the disks are probabilities or labels. Defaults to True

        Returns:
            tuple: one array of keypoints, (1, K, 2), and one of scores, (1, K), per sample
        """
        maps = torch.as_tensor(batch_encoded).detach()
        self._check_maps(maps)
        disks, offsets = F.split_offset_maps(maps.float(), self.order)
        probs = disks.sigmoid() if from_logits else disks
        positions, scores = self._positions(probs, offsets)
        positions = decoding.limit(positions, self.grid).cpu().numpy()
        return list(positions[:, None]), list(scores.cpu().numpy()[:, None])

    def _positions(self, probs: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        if self.decode_mode == 'hough':
            return decoding.vote_positions(probs, offsets, self.grid, self.radius_px, self.min_vote)
        used = None if self.decode_mode == 'disk' else offsets
        return decoding.peak_positions(probs, used, self.grid)

    def _empty(self, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Return the maps (3K, H, W) and a view of them as (3, K, H, W)."""
        keypoints, height, width = shape
        if self.order == 'grouped':
            view = np.empty((3, keypoints, height, width), np.float32)
            return view.reshape(-1, height, width), view
        maps = np.empty((keypoints, 3, height, width), np.float32)
        return maps.reshape(-1, height, width), maps.swapaxes(0, 1)

    def _check_keypoints(
        self, keypoints: np.ndarray, keypoints_visible: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        keypoints = np.asarray(keypoints, dtype=np.float64)
        if keypoints.ndim != 3 or keypoints.shape[0] != 1 or keypoints.shape[-1] != 2:
            step = 'Encode one instance at a time, x and y of every keypoint in px'
            raise ValueError(
                message(ENCODE, 'keypoints', 'have shape (1, K, 2)', keypoints.shape, step)
            )
        if keypoints_visible is None:
            return keypoints[0], np.ones(keypoints.shape[1])
        visible = np.asarray(keypoints_visible, dtype=np.float64)
        if visible.shape != keypoints.shape[:2]:
            rule = f'have shape (1, K) = {keypoints.shape[:2]}'
            step = 'Pass one visibility per keypoint; of (1, K, 2) take [..., 0]'
            raise ValueError(message(ENCODE, 'keypoints_visible', rule, visible.shape, step))
        if not np.isfinite(visible).all():
            raise ValueError(_not_finite('keypoints_visible', visible[0, :, None]))
        return keypoints[0], visible[0]

    def _check_maps(self, maps: Tensor) -> None:
        width, height = self.heatmap_size
        shape = tuple(maps.shape)
        if maps.dim() == 4 and shape[1] % 3 == 0 and shape[2:] == (height, width):
            return
        rule = f'have the shape (3K, {height}, {width}) of heatmap_size=({width}, {height})'
        step = 'Give the codec the map size and the head the channels that fit each other'
        raise ValueError(message(DECODE, 'encoded', rule, shape[1:], step))


def _not_finite(name: str, values: np.ndarray) -> str:
    keypoint = int(np.argwhere(~np.isfinite(values).all(axis=-1))[0, 0])
    got = f'{values[keypoint].tolist()} at keypoint {keypoint}'
    step = 'Repair the annotation or set its visibility to 0'
    return message(ENCODE, name, 'be finite', got, step)
