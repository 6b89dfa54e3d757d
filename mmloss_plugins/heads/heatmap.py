"""MMPose's heatmap head for losses on logits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmpose.models.heads import HeatmapHead as MMPoseHeatmapHead
from torch import Tensor, nn

from mmloss_plugins.errors import check_choice, message
from mmloss_plugins.registry import MODELS

ACTIVATIONS = ('none', 'sigmoid', 'spatial_softmax', 'pixel_softmax')


@MODELS.register_module()
class HeatmapHead(MMPoseHeatmapHead):
    """``mmpose.HeatmapHead`` that trains on logits and decodes what they mean.

    The stock head hands the same maps to the loss and to the codec. With a loss on logits those
    maps are negative nearly everywhere, and MMPose's codecs call every maximum that is not
    positive missing, (-1, -1). Here :meth:`loss` works on the logits, while :meth:`forward`, and
    with it prediction, flip test and ONNX export, returns the activated maps (B, K, H, W).

    MSRAHeatmap (``unbiased`` or not) and the Gaussian UDPHeatmap encode and decode maps within
    [0, 1], which is what the activations give. MegviiHeatmap encodes [0, 255]: divide or take
    ``activation='none'``.

    Args:
        in_channels: as in MMPose, as are ``deconv_*``, ``conv_*`` and ``final_layer``.
        out_channels: number of keypoints K, also for 'pixel_softmax', which adds the background
            channel by itself.
        activation: 'none' for losses on the maps themselves (HeatmapMSELoss); 'sigmoid' for a
            logistic loss per pixel (focal, Gaussian focal, balanced BCE, Dice);
            'spatial_softmax' for SpatialSoftmaxCELoss; 'pixel_softmax' for PixelSoftmaxCELoss,
            with the background as the last channel of the logits.
        prior_prob: probability that every pixel starts with: the bias of the last layer is
            ``-log((1 - p) / p)``. For 'sigmoid' alone, where it defaults to 0.01; 0.5 is no prior.
        score_scale: factor on the maps of 'spatial_softmax', whose values sum to 1, so that a map
            equal to its label peaks at 1 and scores compare with those of other heads: MMPose's
            COCO metric drops keypoints below 0.2. By default it comes from a label that the
            decoder encodes, and is 1 for ``label='one_hot'``.
        target_threshold: hand the loss disks, 1 where the codec's heatmap is at least this and
            0 elsewhere, instead of Gaussians: the hard labels of a plain focal loss. Their radius
            is ``sigma * sqrt(-2 ln(target_threshold))`` cells.
        train_accuracy: log ``acc_pose``, the share of keypoints whose maximum lies within 0.05 of
            the map of that of the target, computed on the device. ``train_cfg``'s ``compute_acc``
            of False also switches it off.
        loss: config of the loss.
        decoder: config of the codec.
        init_cfg: as in MMPose.
        options: further arguments of ``mmpose.HeatmapHead``.

    Raises:
        ValueError: an unknown activation, a prior outside (0, 1), without 'sigmoid' or without a
            bias to put it in, or a ``score_scale`` or ``target_threshold`` out of range.
    """

    def __init__(
        self,
        in_channels: int | Sequence[int],
        out_channels: int,
        *,
        activation: str = 'none',
        prior_prob: float | None = None,
        score_scale: float | None = None,
        target_threshold: float | None = None,
        train_accuracy: bool = True,
        loss: dict | None = None,
        **options: Any,
    ) -> None:
        name = type(self).__name__
        check_choice(name, 'activation', activation, ACTIVATIONS)
        background = 1 if activation == 'pixel_softmax' else 0
        loss = dict(type='mmloss_plugins.HeatmapMSELoss') if loss is None else loss
        super().__init__(in_channels, out_channels + background, loss=loss, **options)
        self.out_channels = out_channels
        self.activation = activation
        self.target_threshold = target_threshold
        self.train_accuracy = train_accuracy
        if prior_prob is None and activation == 'sigmoid':
            prior_prob = 0.01
        self._check_prior(name, prior_prob)
        if target_threshold is not None and not 0 < target_threshold <= 1:
            rule, step = 'lie in (0, 1]', 'Take 0.5, or leave it out for the heatmaps as they are'
            raise ValueError(message(name, 'target_threshold', rule, target_threshold, step))
        self.prior_prob = prior_prob
        self.score_scale = self._find_score_scale(name, score_scale)

    def init_weights(self) -> None:
        """Initialise as ``init_cfg`` says, then put the prior into the bias of the last layer."""
        super().init_weights()
        if self.prior_prob is None or self._is_pretrained():
            return
        prior = self.prior_prob
        nn.init.constant_(self.final_layer.bias, -math.log((1 - prior) / prior))

    def logits(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Return what the loss gets, (B, K, H, W); (B, K + 1, H, W) for 'pixel_softmax'."""
        return super().forward(feats)

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Return what the decoder gets, (B, K, H, W)."""
        return self.activate(self.logits(feats))

    def activate(self, logits: Tensor) -> Tensor:
        """Turn logits into the maps that the decoder reads.

        Args:
            logits: shape (B, K, H, W), or (B, K + 1, H, W) for 'pixel_softmax'.

        Returns:
            Shape (B, K, H, W), float32 unless the activation is 'none'.
        """
        if self.activation == 'none':
            return logits
        # In float16 a sigmoid is 1.0 from 8.4 on: the maximum would be the first of a plateau.
        logits = logits.float()
        if self.activation == 'sigmoid':
            return logits.sigmoid()
        if self.activation == 'pixel_softmax':
            return logits.softmax(1)[:, :-1]
        return logits.flatten(2).softmax(-1).reshape(logits.shape) * self.score_scale

    def loss(
        self,
        feats: tuple[Tensor, ...],
        batch_data_samples: list,
        train_cfg: dict | None = None,
    ) -> dict[str, Tensor]:
        """Return ``loss_kpt`` on the logits and, if asked for, ``acc_pose`` on the maps."""
        logits = self.logits(feats)
        target = torch.stack([sample.gt_fields.heatmaps for sample in batch_data_samples])
        weight = torch.cat(
            [sample.gt_instance_labels.keypoint_weights for sample in batch_data_samples]
        )
        losses = dict(loss_kpt=self.loss_module(logits, self._label(target), weight))
        if self.train_accuracy and (train_cfg or {}).get('compute_acc', True):
            losses['acc_pose'] = heatmap_pck(self.activate(logits.detach()), target, weight)
        return losses

    def _label(self, target: Tensor) -> Tensor:
        if self.target_threshold is None:
            return target
        return (target >= self.target_threshold).to(target.dtype)

    def _check_prior(self, name: str, prior_prob: float | None) -> None:
        if prior_prob is None:
            return
        if not 0 < prior_prob < 1:
            rule, got, step = 'lie between 0 and 1', prior_prob, 'Take 0.01, or 0.5 for no prior'
        elif self.activation != 'sigmoid':
            rule = "be None without activation='sigmoid'"
            got, step = prior_prob, 'Drop it: a softmax starts out uniform by itself'
        elif getattr(self.final_layer, 'bias', None) is None:
            rule, got = 'have a bias of final_layer to go into', 'a final_layer without bias'
            step = 'Leave out final_layer, or its bias=False'
        else:
            return
        raise ValueError(message(name, 'prior_prob', rule, got, step))

    def _is_pretrained(self) -> bool:
        """A prior must not overwrite the bias that a checkpoint of this head brought."""
        configs = self.init_cfg if isinstance(self.init_cfg, (list, tuple)) else [self.init_cfg]
        return any(config and config['type'] == 'Pretrained' for config in configs)

    def _find_score_scale(self, name: str, score_scale: float | None) -> float:
        if score_scale is not None and not score_scale > 0:
            rule, step = 'be positive', 'Leave it out to take it from the decoder'
            raise ValueError(message(name, 'score_scale', rule, score_scale, step))
        if score_scale is not None:
            return score_scale
        one_hot = getattr(self.loss_module, 'label', 'soft') == 'one_hot'
        if self.activation != 'spatial_softmax' or self.decoder is None or one_hot:
            return 1.0
        # Encoded in the middle, where no border cuts the Gaussian.
        centre = np.array(self.decoder.input_size, dtype=np.float32)[None, None] / 2
        label = self.decoder.encode(centre, np.ones((1, 1), dtype=np.float32))['heatmaps']
        return float(label.sum() / label.max())


@torch.no_grad()
def heatmap_pck(
    pred: Tensor, target: Tensor, weight: Tensor | None = None, thr: float = 0.05
) -> Tensor:
    """Return the share of keypoints whose maximum lies near the maximum of the target.

    Args:
        pred: heatmaps, shape (B, K, H, W).
        target: heatmaps, same shape.
        weight: (B, K); keypoints of weight 0 and those with an empty target do not count.
        thr: smallest distance that is a miss, as a share of the map: dx in widths, dy in heights.

    Returns:
        0-d float32: mean over keypoints of the share of samples, 0 where nothing counts. No
        host-device sync. MMPose's ``pose_pck_accuracy`` divides dx by the height and dy by the
        width, and counts every maximum that is not positive as a miss.
    """
    height, width = pred.shape[-2:]
    found, wanted = (maps.flatten(2).max(-1) for maps in (pred, target))
    dx = (found.indices % width - wanted.indices % width) / width
    dy = (
        found.indices.div(width, rounding_mode='floor')
        - wanted.indices.div(width, rounding_mode='floor')
    ) / height
    counts = wanted.values > 0
    if weight is not None:
        counts = counts & (weight > 0)
    return mean_share((dx.square() + dy.square()).sqrt() < thr, counts)


def mean_share(near: Tensor, counts: Tensor) -> Tensor:
    """Return the mean over keypoints of the share of the samples that count which are near.

    Both are boolean, (B, K); 0 where nothing counts. No host-device sync.
    """
    per_keypoint = (near & counts).sum(0) / counts.sum(0).clamp(min=1)
    return per_keypoint.sum() / counts.any(0).sum().clamp(min=1)
