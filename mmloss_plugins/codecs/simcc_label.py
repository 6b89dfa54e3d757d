"""SimCC labels at sub-pixel positions, and their decoding with a probability as score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from mmpose.codecs.base import BaseKeypointCodec
from mmpose.codecs.utils.refinement import refine_simcc_dark

from mmloss_plugins.errors import message
from mmloss_plugins.registry import KEYPOINT_CODECS

from . import _simcc_decoding as decoding
from ._simcc_arguments import (
    check_flag,
    check_number,
    check_options,
    count_bins,
    pair_of_sigmas,
)
from ._simcc_encoding import gaussian_labels, two_hot_labels

# MMPose's configs use normalize=False only with KLDiscretLoss(label_softmax=True, label_beta=10.).
LABEL_BETA = 10.0

ENCODE, DECODE = 'SimCCLabel.encode', 'SimCCLabel.decode'


@KEYPOINT_CODECS.register_module()
class SimCCLabel(BaseKeypointCodec):
    r"""Generate and decode SimCC labels: one distribution over bins per keypoint and axis.

    See `SimCC: a Simple Coordinate Classification Perspective for Human Pose Estimation`_ by
    Li et al. (2022). Bin ``i`` is centred on ``i / simcc_split_ratio`` px, so a coordinate falls
    on bin :math:`\mu = \mathrm{px} \cdot \mathrm{ratio}`, which is not rounded::

        pixel centres     0       1       2              w-1
                          |       |       |               |
        bins, ratio 2     0   1   2   3   4   5   ...    W-2  W-1
        bins, ratio 1     0       1       2       ...    W-1

    Note:

        - instance number: N
        - keypoint number: K
        - keypoint dimension: 2
        - image size: [w, h]
        - bins: Wx = w * simcc_split_ratio, Wy = h * simcc_split_ratio

    Encoded:

        - keypoint_x_labels (np.ndarray): The labels along x in shape (N, K, Wx), float32
        - keypoint_y_labels (np.ndarray): The labels along y in shape (N, K, Wy), float32
        - keypoint_weights (np.ndarray): The target weights in shape (N, K), float32

    The arguments, up to ``decode_beta``, and the encoded keys are those of MMPose's class, so a
    config switches by changing ``type`` alone.

    Args:
        input_size (tuple): Input image size in [w, h], px. Both times ``simcc_split_ratio`` must
            be whole numbers of bins.
        smoothing_type (str): ``'gaussian'``, or ``'standard'`` for the two bins next to the
            keypoint with label smoothing. Defaults to ``'gaussian'``
        sigma (float | tuple): Standard deviation of the Gaussian in bins, at least 0.1, for both
            axes or as (x, y). Defaults to 6.0
        simcc_split_ratio (float): Bins per pixel. Defaults to 2.0
        label_smooth_weight (float): Mass :math:`\epsilon` in [0, 1] that ``'standard'`` spreads
            over the bins, so that the label of a whole :math:`\mu` is MMPose's. Defaults to 0.0
        normalize (bool): Gaussian labels sum to 1 over the bins, at the borders too; False keeps
            the value 1 at the keypoint, for losses with ``label_softmax``. Defaults to True
        use_dark (bool): Refine the peak with MMPose's DARK instead of as ``decode_mode`` says; it
            needs a sigma of at least 0.8. Less exact at the borders. Defaults to False
        decode_visibility (bool): Also decode the visibility of MMPose's class: the largest
            probability after a softmax of ``decode_beta * sigma * logits``. Defaults to False
        decode_beta (float): The factor of the visibility. Defaults to 150.0
        decode_mode (str): ``'expectation'`` finds the sub-bin position from the bins around the
            peak; ``'argmax'`` takes the peak. Defaults to ``'expectation'``
        beta (float, optional): The ``beta`` of the loss: ``softmax(beta * logits)`` are the
            predicted probabilities. Defaults to None: 1 with ``normalize=True``, and 10, the value
            of the RTMPose configs, with ``normalize=False``

    Raises:
        TypeError: an unknown argument, or one of the wrong type.
        ValueError: a value outside the ranges above.

    .. _`SimCC: a Simple Coordinate Classification Perspective for Human Pose Estimation`:
        https://arxiv.org/abs/2107.03332
    """

    label_mapping_table: ClassVar[dict[str, str]] = {
        'keypoint_x_labels': 'keypoint_x_labels',
        'keypoint_y_labels': 'keypoint_y_labels',
        'keypoint_weights': 'keypoint_weights',
    }

    def __init__(
        self,
        input_size: tuple[int, int],
        smoothing_type: str = 'gaussian',
        sigma: float | Sequence[float] = 6.0,
        simcc_split_ratio: float = 2.0,
        label_smooth_weight: float = 0.0,
        normalize: bool = True,
        use_dark: bool = False,
        decode_visibility: bool = False,
        decode_beta: float = 150.0,
        decode_mode: str = 'expectation',
        beta: float | None = None,
        **unknown: Any,
    ) -> None:
        super().__init__()
        check_options(unknown, smoothing_type, decode_mode, label_smooth_weight)
        self.simcc_split_ratio = check_number('simcc_split_ratio', simcc_split_ratio)
        self.num_bins = count_bins(input_size, self.simcc_split_ratio)
        self.normalize = check_flag('normalize', normalize)
        self.use_dark = check_flag('use_dark', use_dark)
        self.decode_visibility = check_flag('decode_visibility', decode_visibility)
        self.sigma = pair_of_sigmas(sigma, 0.8 if self.use_dark else 0.1)
        self.decode_beta = check_number('decode_beta', decode_beta)
        self.beta = check_number('beta', self._default_beta() if beta is None else beta)
        self.input_size = input_size
        self.smoothing_type = smoothing_type
        self.label_smooth_weight = label_smooth_weight
        self.decode_mode = decode_mode

    def encode(self, keypoints: np.ndarray, keypoints_visible: np.ndarray | None = None) -> dict:
        """Encode keypoints, given in px of the input image, into SimCC labels.

        A keypoint has a label if its visibility is at least 0.5 and it lies in range: for
        ``'gaussian'``, some bin within 3 sigma (MMPose's rule, on the unrounded position); for
        ``'standard'``, a position in [0, W) bins, of which (W - 1, W) goes to the last bin. All
        others get rows of zeros and weight 0.

        Args:
            keypoints (np.ndarray): Keypoint coordinates in shape (N, K, 2), px
            keypoints_visible (np.ndarray, optional): Keypoint visibilities in shape (N, K), kept
                as weights of the labelled keypoints. Defaults to None: all 1

        Returns:
            dict:
            - keypoint_x_labels (np.ndarray): The labels along x in shape (N, K, Wx), float32
            - keypoint_y_labels (np.ndarray): The labels along y in shape (N, K, Wy), float32
            - keypoint_weights (np.ndarray): The target weights in shape (N, K), float32

        Raises:
            ValueError: a wrong shape, or a visible keypoint or a visibility that is NaN or inf.
        """
        keypoints, visible = self._check_keypoints(keypoints, keypoints_visible)
        labelled = visible >= 0.5
        _check_finite('keypoints', keypoints, labelled)
        mu = np.where(labelled[..., None], keypoints, 0.0) * self.simcc_split_ratio
        labelled &= self._in_range(mu).all(axis=-1)
        unlabelled = ~labelled
        mu[unlabelled] = 0.0
        labels = [self._axis_labels(mu[..., axis], axis) for axis in range(2)]
        for label in labels:
            label[unlabelled] = 0.0
        return {
            'keypoint_x_labels': labels[0],
            'keypoint_y_labels': labels[1],
            'keypoint_weights': np.where(labelled, visible, 0.0).astype(np.float32),
        }

    def decode(
        self, simcc_x: np.ndarray, simcc_y: np.ndarray, from_logits: bool = True
    ) -> tuple[np.ndarray, Any]:
        """Decode keypoints, in px of the input image, from distributions over the bins.

        The peak is the largest bin. ``'expectation'`` takes the Gaussian whose mean over the bins
        within 3 sigma of the peak is the predicted one, which inverts :meth:`encode` at the
        borders too; for ``'standard'``, the expectation over three bins above their smallest
        value. Positions are limited to [-1, W] bins, and to one bin from a peak within one sigma
        of a border. The score is the predicted probability that the keypoint lies within 3 sigma
        of the peak (``'standard'``: within one pixel), the smaller one of the two axes, in [0, 1].

        Args:
            simcc_x (np.ndarray): Logits along x in shape (K, Wx) or (N, K, Wx)
            simcc_y (np.ndarray): Logits along y in shape (K, Wy) or (N, K, Wy)
            from_logits (bool): False if both are probabilities or labels; a row of zeros then
                decodes to bin 0 with score 0. Defaults to True

        Returns:
            tuple:
            - keypoints (np.ndarray): Decoded coordinates in shape (N, K, 2), px, float32. NaN
              where the prediction holds NaN or +inf.
            - scores (np.ndarray): The keypoint scores in shape (N, K), float32; with
              ``decode_visibility`` the tuple (scores, visibility), both in shape (N, K)

        Raises:
            ValueError: shapes that do not fit each other or the codec, or a negative probability.
        """
        axes = self._check_predictions(simcc_x, simcc_y, from_logits)
        if from_logits:
            parts = [decoding.relative_from_logits(values, self.beta) for values in axes]
        else:
            parts = [decoding.relative_from_probabilities(values) for values in axes]
        relatives = [relative for relative, _ in parts]
        broken = parts[0][1] | parts[1][1]
        peaks = decoding.find_peaks(relatives, self._radii())
        bins = self._positions(relatives, peaks, from_logits)
        keypoints = np.where(broken[..., None], np.nan, bins / self.simcc_split_ratio)
        keypoints = keypoints.astype(np.float32)
        scores = self._smaller(peaks.mass, broken)
        if self.decode_visibility:
            return keypoints, (scores, self._smaller(self._visibilities(relatives), broken))
        return keypoints, scores

    def _default_beta(self) -> float:
        return 1.0 if self.normalize else LABEL_BETA

    def _in_range(self, mu: np.ndarray) -> np.ndarray:
        if self.smoothing_type == 'standard':
            return (mu >= 0) & (mu < self.num_bins)
        reach = 3 * self.sigma
        return (mu - reach < self.num_bins) & (mu + reach + 1 >= 0)

    def _axis_labels(self, mu: np.ndarray, axis: int) -> np.ndarray:
        num_bins = int(self.num_bins[axis])
        if self.smoothing_type == 'standard':
            return two_hot_labels(mu, num_bins, self.label_smooth_weight)
        return gaussian_labels(mu, num_bins, float(self.sigma[axis]), self.normalize)

    def _radii(self) -> list[int]:
        if self.smoothing_type == 'standard':
            return [max(1, round(self.simcc_split_ratio))] * 2
        return [int(np.ceil(3 * sigma)) for sigma in self.sigma]

    def _positions(
        self, relatives: list[np.ndarray], peaks: decoding.Peaks, from_logits: bool
    ) -> np.ndarray:
        """Return positions in bins, shape (N, K, 2)."""
        if self.use_dark:
            return self._dark_positions(relatives, peaks.bins)
        if self.decode_mode == 'argmax':
            return peaks.bins
        if self.smoothing_type == 'standard':
            positions = [
                decoding.three_bin_position(relative, peaks.bins[..., axis])
                for axis, relative in enumerate(relatives)
            ]
            return np.stack(positions, axis=-1)
        # The loss drives the prediction to softmax(label_beta * label) where labels are not
        # normalised; around the peak that is narrower than the label by sqrt(label_beta).
        narrowed = from_logits and not self.normalize
        sigmas = self.sigma / LABEL_BETA**0.5 if narrowed else self.sigma
        return decoding.gaussian_positions(peaks, self.num_bins, sigmas)

    def _dark_positions(self, relatives: list[np.ndarray], bins: np.ndarray) -> np.ndarray:
        refined = []
        for axis, relative in enumerate(relatives):
            kernel = int((self.sigma[axis] * 20 - 7) // 3)
            kernel -= 1 - kernel % 2
            # The function overwrites both arguments.
            peak, values = bins[..., axis].astype(np.float32), relative.astype(np.float32)
            refined.append(refine_simcc_dark(peak, values, kernel))
        # A flat top has no curvature and would throw the point out of the image.
        reach = np.array(self._radii())
        refined = np.clip(np.stack(refined, axis=-1), bins - reach, bins + reach)
        return np.clip(refined, -1, self.num_bins)

    def _visibilities(self, relatives: list[np.ndarray]) -> np.ndarray:
        powers = self.decode_beta * self.sigma / self.beta
        parts = [
            relative.max(axis=-1) / np.maximum((relative**power).sum(axis=-1), 1.0)
            for relative, power in zip(relatives, powers)
        ]
        return np.stack(parts, axis=-1)

    @staticmethod
    def _smaller(per_axis: np.ndarray, broken: np.ndarray) -> np.ndarray:
        return np.where(broken, np.nan, per_axis.min(axis=-1)).astype(np.float32)

    def _check_keypoints(
        self, keypoints: np.ndarray, keypoints_visible: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        keypoints = np.asarray(keypoints, dtype=np.float64)
        if keypoints.ndim != 3 or keypoints.shape[-1] != 2:
            next_step = 'Pass x and y of every keypoint in px; for one instance add keypoints[None]'
            raise ValueError(
                message(ENCODE, 'keypoints', 'have shape (N, K, 2)', keypoints.shape, next_step)
            )
        if keypoints_visible is None:
            return keypoints, np.ones(keypoints.shape[:2])
        visible = np.asarray(keypoints_visible, dtype=np.float64)
        if visible.shape != keypoints.shape[:2]:
            rule = f'have shape (N, K) = {keypoints.shape[:2]}'
            next_step = 'Pass one visibility per keypoint; of (N, K, 2) take [..., 0]'
            raise ValueError(message(ENCODE, 'keypoints_visible', rule, visible.shape, next_step))
        _check_finite('keypoints_visible', visible[..., None], np.ones(visible.shape, bool))
        return keypoints, visible

    def _check_predictions(
        self, simcc_x: np.ndarray, simcc_y: np.ndarray, from_logits: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        axes = np.asarray(simcc_x), np.asarray(simcc_y)
        for axis, values in enumerate(axes):
            self._check_axis(values, axis, from_logits)
        if axes[0].shape[:-1] != axes[1].shape[:-1]:
            rule = f'have the N and K of simcc_x, {axes[0].shape[:-1]}'
            next_step = 'Pass both axes of the same keypoints'
            raise ValueError(message(DECODE, 'simcc_y', rule, axes[1].shape[:-1], next_step))
        return tuple(values if values.ndim == 3 else values[None] for values in axes)

    def _check_axis(self, values: np.ndarray, axis: int, from_logits: bool) -> None:
        name, num_bins = f'simcc_{"xy"[axis]}', int(self.num_bins[axis])
        if values.ndim not in (2, 3):
            rule = f'have shape (K, {num_bins}) or (N, K, {num_bins})'
            next_step = 'Pass the head output of one sample or of a batch'
            raise ValueError(message(DECODE, name, rule, values.shape, next_step))
        if values.shape[-1] != num_bins:
            rule = (
                f'have {num_bins} bins (input_size[{axis}]={self.input_size[axis]} x '
                f'simcc_split_ratio={self.simcc_split_ratio:g})'
            )
            next_step = 'Give the head the input_size and simcc_split_ratio of the codec'
            raise ValueError(message(DECODE, name, rule, values.shape[-1], next_step))
        if not from_logits and (values < 0).any():
            next_step = 'Pass logits with from_logits=True'
            raise ValueError(
                message(DECODE, name, 'hold no negative value', values.min(), next_step)
            )


def _check_finite(name: str, values: np.ndarray, needed: np.ndarray) -> None:
    broken = needed & ~np.isfinite(values).all(axis=-1)
    if not broken.any():
        return
    instance, keypoint = (int(index) for index in np.argwhere(broken)[0])
    rule = 'be finite'
    got = f'{values[instance, keypoint].tolist()} at instance {instance}, keypoint {keypoint}'
    next_step = 'Repair the annotation or set its visibility to 0'
    raise ValueError(message(ENCODE, name, rule, got, next_step))
