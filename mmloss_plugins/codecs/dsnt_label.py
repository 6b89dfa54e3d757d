"""Coordinate labels of DSNT, exact to a fraction of a pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from mmpose.codecs.base import BaseKeypointCodec

from mmloss_plugins.errors import check_choice, message, refuse_unknown
from mmloss_plugins.registry import KEYPOINT_CODECS

from ._simcc_arguments import is_number, is_pair

WHAT = 'DSNTLabel'
ARGUMENTS = ('input_size', 'coordinates', 'heatmap_size', 'sigma', 'normalize')
COORDINATES = ('centered', 'mmpose')
# Arguments of MMPose's class that have nothing to do here, and why.
OF_MMPOSE = {
    'unbiased': 'Remove it: the Gaussian is always at the exact position, never rounded',
    'blur_kernel_size': 'Remove it: coordinates are decoded from the mean of a map, without DARK',
}
ENCODE, DECODE = 'DSNTLabel.encode', 'DSNTLabel.decode'


@KEYPOINT_CODECS.register_module()
class DSNTLabel(BaseKeypointCodec):
    r"""Generate and decode normalised coordinates for heads that regress means of heatmaps.

    See `Numerical Coordinate Regression with Convolutional Neural Networks`_ by Nibali et al.
    (2018). Image and map share their outer edges, -1 and 1; pixel ``x`` of a width ``w`` is centred
    on :math:`u = (2 x + 1) / w - 1`, and so is cell ``x`` of a map of width ``w``::

        -1    -0.75   -0.5   -0.25    0    0.25    0.5    0.75     1
         |      0      |      1       |      2      |      3       |      4 cells of a map
         |  0   |  1   |  2   |   3   |  4   |  5   |  6   |   7   |      8 pixels of the image

    Labels need neither a map nor its size: the sigma of the regularisers is an argument of their
    losses, in px of whatever map the head makes. ``heatmap_size`` and ``sigma`` here are for
    losses on heatmaps and for pictures.

    Note:

        - instance number: N
        - keypoint number: K
        - keypoint dimension: 2
        - image size: [w, h]
        - map size: [W, H]

    Encoded:

        - keypoint_labels (np.ndarray): The normalised coordinates in shape (N, K, 2), x first,
            float32; 0 where the weight is 0
        - keypoint_weights (np.ndarray): The target weights in shape (N, K), float32
        - heatmaps (np.ndarray): With ``heatmap_size`` and ``sigma`` only: the Gaussians in shape
            (K, H, W), float32, for N = 1; all 0 where the weight is 0

    Differences to MMPose's ``IntegralRegressionLabel``: the Gaussian is at the exact position
    instead of the rounded pixel, which is up to half a cell off along each axis; keypoints on the
    outer half of the border pixels count; visibilities are kept as weights, and labels of
    weight 0 are 0. With ``coordinates='mmpose'`` it stands in for that codec under MMPose's own
    heads.

    The mean of a map is its label where the Gaussian fits into the map. 3 sigma from the edge it is
    off by 0.004 sigma, and on the edge, where half of the Gaussian is missing, by 0.8 sigma, as for
    every Gaussian on a map. Sampled at cells, one with a sigma of 0.5 is off by up to 0.02 cells.

    Args:
        input_size (tuple): Input image size in [w, h], px
        coordinates (str): Of labels and predictions. ``'centered'``: (-1, 1), cell ``i`` of W at
            ``(2 i + 1) / W - 1``, as in the paper and in our heads. ``'mmpose'``: [0, 1), px over
            w, cell ``i`` of W at ``i / W``, as in MMPose's heads. Defaults to ``'centered'``
        heatmap_size (tuple, optional): Map size in [W, H]. Defaults to None: no heatmaps
        sigma (float | tuple, optional): Standard deviation of the Gaussian in px of the map, for
            both axes or as (x, y), > 0. Defaults to None: no heatmaps
        normalize (bool): Heatmaps sum to 1; False leaves the Gaussian whose value at the exact
            position, in general between the cells, is 1. Defaults to True

    Raises:
        TypeError: an unknown argument, or one of the wrong type.
        ValueError: a value outside the ranges above, or one of ``heatmap_size`` and ``sigma``
            without the other.

    .. _`Numerical Coordinate Regression with Convolutional Neural Networks`:
        https://arxiv.org/abs/1801.07372
    """

    label_mapping_table: ClassVar[dict[str, str]] = {
        'keypoint_labels': 'keypoint_labels',
        'keypoint_weights': 'keypoint_weights',
    }
    field_mapping_table: ClassVar[dict[str, str]] = {'heatmaps': 'heatmaps'}

    def __init__(
        self,
        input_size: tuple[int, int],
        coordinates: str = 'centered',
        heatmap_size: tuple[int, int] | None = None,
        sigma: float | Sequence[float] | None = None,
        normalize: bool = True,
        **unknown: Any,
    ) -> None:
        super().__init__()
        _refuse_unknown(unknown)
        check_choice(WHAT, 'coordinates', coordinates, COORDINATES)
        _check_size('input_size', input_size)
        _check_heatmaps(heatmap_size, sigma, normalize)
        self.input_size = input_size
        self.coordinates = coordinates
        self.heatmap_size = heatmap_size
        self.sigma = sigma
        self.normalize = normalize

    def encode(self, keypoints: np.ndarray, keypoints_visible: np.ndarray | None = None) -> dict:
        """Encode keypoints, given in px of the input image, into normalised coordinates.

        A keypoint whose visibility is below 0.5, or that lies outside the image [-0.5, w - 0.5],
        gets the weight and the label 0.

        Args:
            keypoints (np.ndarray): Keypoint coordinates in shape (N, K, 2), px
            keypoints_visible (np.ndarray, optional): Keypoint visibilities in shape (N, K), kept
                as weights of the labelled keypoints. Defaults to None: all 1

        Returns:
            dict:
            - keypoint_labels (np.ndarray): The coordinates in shape (N, K, 2), float32
            - keypoint_weights (np.ndarray): The target weights in shape (N, K), float32
            - heatmaps (np.ndarray): With ``heatmap_size``, shape (K, H, W), float32

        Raises:
            ValueError: a wrong shape, N > 1 with heatmaps, or a visible keypoint or a visibility
                that is NaN or inf.
        """
        keypoints, visible = self._check_keypoints(keypoints, keypoints_visible)
        labelled = visible >= 0.5
        points = np.where(labelled[..., None], keypoints, 0.0)
        _check_finite('keypoints', points)
        high = np.array(self.input_size) - 0.5
        labelled &= ((points >= -0.5) & (points <= high)).all(axis=-1)
        labels = np.where(labelled[..., None], self._normalized(points), 0.0)
        encoded = {
            'keypoint_labels': labels.astype(np.float32),
            'keypoint_weights': np.where(labelled, visible, 0.0).astype(np.float32),
        }
        if self.heatmap_size is not None:
            encoded['heatmaps'] = self._gaussians(labels[0], labelled[0], self.heatmap_size)
        return encoded

    def decode(
        self, encoded: np.ndarray, scores: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Decode keypoints, in px of the input image, from normalised coordinates.

        Positions are not limited to the image, which means of maps cannot leave.

        Args:
            encoded (np.ndarray): Coordinates in shape (N, K, 2)
            scores (np.ndarray, optional): Scores of the head in shape (N, K). Defaults to None:
                all 1

        Returns:
            tuple:
            - keypoints (np.ndarray): Decoded coordinates in shape (N, K, 2), px, float32
            - scores (np.ndarray): The keypoint scores in shape (N, K), float32

        Raises:
            ValueError: a shape that is not the one above.
        """
        encoded = np.asarray(encoded, dtype=np.float64)
        _check_pairs(DECODE, 'encoded', encoded)
        keypoints = self._in_px(encoded, self.input_size).astype(np.float32)
        if scores is None:
            return keypoints, np.ones(encoded.shape[:2], dtype=np.float32)
        scores = np.asarray(scores, dtype=np.float32)
        if scores.shape != encoded.shape[:2]:
            rule = f'have shape (N, K) = {encoded.shape[:2]}'
            step = 'Pass one score per keypoint, or none'
            raise ValueError(message(DECODE, 'scores', rule, scores.shape, step))
        return keypoints, scores

    def _normalized(self, px: np.ndarray) -> np.ndarray:
        size = np.array(self.input_size)
        return px / size if self.coordinates == 'mmpose' else (2 * px + 1) / size - 1

    def _in_px(self, coords: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Return ``coords`` in px of an image or cells of a map of ``size``."""
        sides = np.array(size)
        return coords * sides if self.coordinates == 'mmpose' else ((coords + 1) * sides - 1) / 2

    def _gaussians(
        self, labels: np.ndarray, labelled: np.ndarray, size: tuple[int, int]
    ) -> np.ndarray:
        """Return the Gaussians (K, H, W) about ``labels`` (K, 2)."""
        means = self._in_px(labels, size)
        sigmas = np.broadcast_to(self.sigma, 2)  # type: ignore[arg-type]
        columns, rows = (
            _gaussian(np.arange(size[axis]) - means[:, axis, None], sigmas[axis], self.normalize)
            for axis in range(2)
        )
        rows[~labelled] = 0
        return (rows[:, :, None] * columns[:, None, :]).astype(np.float32)

    def _check_keypoints(
        self, keypoints: np.ndarray, keypoints_visible: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        keypoints = np.asarray(keypoints, dtype=np.float64)
        _check_pairs(ENCODE, 'keypoints', keypoints)
        if self.heatmap_size is not None and len(keypoints) != 1:
            rule = 'have shape (1, K, 2) with heatmap_size'
            step = 'Encode one instance at a time, or leave out heatmap_size and sigma'
            raise ValueError(message(ENCODE, 'keypoints', rule, keypoints.shape, step))
        if keypoints_visible is None:
            return keypoints, np.ones(keypoints.shape[:2])
        visible = np.asarray(keypoints_visible, dtype=np.float64)
        if visible.shape != keypoints.shape[:2]:
            rule = f'have shape (N, K) = {keypoints.shape[:2]}'
            step = 'Pass one visibility per keypoint; of (N, K, 2) take [..., 0]'
            raise ValueError(message(ENCODE, 'keypoints_visible', rule, visible.shape, step))
        _check_finite('keypoints_visible', visible[..., None])
        return keypoints, visible


def _gaussian(distance: np.ndarray, sigma: float, normalize: bool) -> np.ndarray:
    """Return the Gaussian of ``distance`` (K, cells) along one axis."""
    exponent = -0.5 * (distance / sigma) ** 2
    if not normalize:
        return np.exp(exponent)
    # A narrow Gaussian between two cells would otherwise underflow to a row of zeros.
    values = np.exp(exponent - exponent.max(axis=-1, keepdims=True))
    return values / values.sum(axis=-1, keepdims=True)


def _refuse_unknown(unknown: Mapping[str, Any]) -> None:
    for name, why in OF_MMPOSE.items():
        if name in unknown:
            rule = 'be one of ' + ', '.join(ARGUMENTS)
            raise TypeError(message(WHAT, 'argument', rule, repr(name), why))
    refuse_unknown(WHAT, unknown, ARGUMENTS)


def _check_size(name: str, size: Any) -> None:
    whole = is_pair(size) and all(
        isinstance(side, Integral) and not isinstance(side, bool) and side > 0 for side in size
    )
    if not whole:
        rule = 'be two positive whole numbers, (width, height)'
        raise ValueError(message(WHAT, name, rule, repr(size), 'Take for example (192, 256)'))


def _check_heatmaps(heatmap_size: Any, sigma: Any, normalize: Any) -> None:
    if not isinstance(normalize, bool):
        rule = 'be True or False'
        raise TypeError(message(WHAT, 'normalize', rule, repr(normalize), 'Pass a bool'))
    if heatmap_size is None and sigma is None:
        if normalize:
            return
        step = 'Give heatmap_size and sigma, or remove normalize'
        raise ValueError(message(WHAT, 'normalize', 'be True without heatmaps', normalize, step))
    if heatmap_size is None or sigma is None:
        missing, given = (
            ('heatmap_size', 'sigma') if heatmap_size is None else ('sigma', 'heatmap_size')
        )
        step = 'Give both for heatmaps; the sigma of a regulariser is an argument of its loss'
        raise ValueError(message(WHAT, missing, f'be given with {given}', None, step))
    _check_size('heatmap_size', heatmap_size)
    sigmas = (sigma, sigma) if isinstance(sigma, Real) else sigma
    if not is_pair(sigmas) or not all(is_number(value) and value > 0 for value in sigmas):
        rule = 'be a number of px of the map > 0 or two, (x, y)'
        raise ValueError(message(WHAT, 'sigma', rule, repr(sigma), 'Take for example 1.0'))


def _check_pairs(what: str, name: str, values: np.ndarray) -> None:
    if values.ndim == 3 and values.shape[-1] == 2:
        return
    step = f'Pass x and y of every keypoint; for one instance add {name}[None]'
    raise ValueError(message(what, name, 'have shape (N, K, 2)', values.shape, step))


def _check_finite(name: str, values: np.ndarray) -> None:
    broken = np.argwhere(~np.isfinite(values).all(axis=-1))
    if len(broken) == 0:
        return
    instance, keypoint = broken[0]
    got = f'{values[instance, keypoint].tolist()} at keypoint {keypoint} of instance {instance}'
    step = 'Repair the annotation or set its visibility to 0'
    raise ValueError(message(ENCODE, name, 'be finite', got, step))
