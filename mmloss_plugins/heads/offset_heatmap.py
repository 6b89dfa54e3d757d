"""Head of G-RMI: a binary disk and two offset maps per keypoint."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.structures import PixelData
from mmpose.models.heads import HeatmapHead
from torch import Tensor

from mmloss_plugins.errors import message
from mmloss_plugins.functional import split_offset_maps
from mmloss_plugins.losses import OffsetHeatmapLoss
from mmloss_plugins.registry import MODELS

WHAT = 'OffsetHeatmapHead'


@MODELS.register_module()
class OffsetHeatmapHead(HeatmapHead):
    """Top-down head that predicts disks and offsets, and decodes them by Hough voting.

    See `Towards Accurate Multi-person Pose Estimation in the Wild`_ by Papandreou et al. (2017).
    Its layers are those of MMPose's ``HeatmapHead``, of which it takes the arguments; channels,
    loss, flip test and the order of the maps are made to fit
    :class:`mmloss_plugins.codecs.OffsetHeatmap`. No layer depends on the resolution.

    The paper's auxiliary loss at half depth and its upsampling of the maps to the size of the
    input are left out: votes meet on the grid of the maps, between whose cells positions are found.

    Args:
        in_channels (int): Channels of the last feature map
        out_channels (int): Number of keypoints K; the head has 3K channels
        deconv_out_channels (Sequence[int], optional): Output channels of each deconvolution.
            Defaults to None: none, as in the paper
        prior_prob (float): Probability of the disk that the head starts with, by its bias. Disks
            are a few cells of many, and from 0.5 the first steps are spent on the empty ones.
            Defaults to 0.01
        loss (Config): Loss of the 3K maps; of :class:`OffsetHeatmapLoss` the terms are logged as
            ``loss_heatmap`` and ``loss_offset``. Defaults to ``OffsetHeatmapLoss`` in the order of
            ``decoder``
        decoder (Config, optional): Codec config. Defaults to None
        head_options: ``deconv_kernel_sizes``, ``conv_out_channels``, ``conv_kernel_sizes``,
            ``final_layer`` and ``init_cfg`` of ``HeatmapHead``

    Raises:
        ValueError: ``prior_prob`` outside (0, 1), a final layer without bias, or an order of the
            loss that is not that of the decoder.

    .. _`Towards Accurate Multi-person Pose Estimation in the Wild`:
        https://arxiv.org/abs/1701.01779
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        deconv_out_channels: Sequence[int] | None = None,
        prior_prob: float = 0.01,
        loss: Mapping[str, Any] | None = None,
        decoder: Mapping[str, Any] | None = None,
        **head_options: Any,
    ) -> None:
        order = (decoder or {}).get('order', 'grouped')
        super().__init__(
            in_channels=in_channels,
            out_channels=3 * out_channels,
            deconv_out_channels=deconv_out_channels,
            loss=loss or dict(type='mmloss_plugins.OffsetHeatmapLoss', order=order),
            decoder=decoder,
            **head_options,
        )
        self.out_channels = out_channels
        self.prior_prob = prior_prob
        self.order = getattr(self.decoder, 'order', getattr(self.loss_module, 'order', order))
        self._check()

    def init_weights(self) -> None:
        """Initialise the layers, then the bias of the disks, unless ``init_cfg`` loads them."""
        again = self.is_init
        super().init_weights()
        configs = self.init_cfg if isinstance(self.init_cfg, list) else [self.init_cfg]
        if again or any(config and config['type'] == 'Pretrained' for config in configs):
            return
        bias = self.final_layer.bias.detach()
        disks, _ = split_offset_maps(bias.view(1, -1, 1, 1), self.order)
        disks.fill_(math.log(self.prior_prob / (1 - self.prior_prob)))

    def loss(
        self,
        feats: tuple[Tensor, ...],
        batch_data_samples: Sequence[Any],
        train_cfg: Mapping[str, Any] | None = None,
    ) -> dict[str, Tensor]:
        """Return the terms of the loss, and ``offset_error_px`` in place of MMPose's accuracy.

        Args:
            feats (Tuple[Tensor]): The multi-stage features
            batch_data_samples (List[:obj:`PoseDataSample`]): The batch data samples
            train_cfg (dict): ``compute_acc=False`` leaves ``offset_error_px`` out; it needs no
                host-device sync. Defaults to None

        Returns:
            dict: ``loss_heatmap`` and ``loss_offset``, or ``loss_kpt`` of any other loss.
        """
        maps = self.forward(feats)
        target = torch.stack([sample.gt_fields.heatmaps for sample in batch_data_samples])
        weight = torch.cat(
            [sample.gt_instance_labels.keypoint_weights for sample in batch_data_samples]
        )
        if not isinstance(self.loss_module, OffsetHeatmapLoss):
            return {'loss_kpt': self.loss_module(maps, target, weight)}
        losses = self.loss_module.terms(maps, target, weight)
        if (train_cfg or {}).get('compute_acc', True):
            losses.update(self.loss_module.diagnostics(maps, target, weight))
        return losses

    def predict(
        self,
        feats: Any,
        batch_data_samples: Sequence[Any],
        test_cfg: Mapping[str, Any] | None = None,
    ) -> Any:
        """Predict keypoints; see ``HeatmapHead.predict``.

        Args:
            feats (Tuple[Tensor] | List[Tuple[Tensor]]): The multi-stage features, or those of
                the image and of the mirrored one for the flip test
            batch_data_samples (List[:obj:`PoseDataSample`]): The batch data samples
            test_cfg (dict): ``flip_test``; ``output_heatmaps`` to return the probabilities of
                the disks, (K, H, W), too. ``flip_mode`` is not read: this head knows its maps.
                Defaults to None

        Returns:
            List[InstanceData], or the tuple of it and a list of PixelData

        Raises:
            ValueError: ``shift_heatmap=True`` in a flip test: the cells of the mirrored image
                coincide with those of the image, and a shift would move all keypoints.
        """
        test_cfg = test_cfg or {}
        maps = self._flip_test(feats, batch_data_samples, test_cfg)
        preds = self.decode(maps)
        if not test_cfg.get('output_heatmaps', False):
            return preds
        disks, _ = split_offset_maps(maps.detach(), self.order)
        return preds, [PixelData(heatmaps=disk) for disk in disks.sigmoid()]

    def _flip_test(
        self, feats: Any, batch_data_samples: Sequence[Any], test_cfg: Mapping[str, Any]
    ) -> Tensor:
        if not test_cfg.get('flip_test', False):
            return self.forward(feats)
        if test_cfg.get('shift_heatmap', False):
            rule = 'be False: the cells of the mirrored image coincide with those of the image'
            step = 'Set model.test_cfg.shift_heatmap=False'
            raise ValueError(message(WHAT, 'shift_heatmap', rule, True, step))
        plain, mirrored = (self.forward(each) for each in feats)
        indices = batch_data_samples[0].metainfo['flip_indices']
        return (plain + flip_offset_maps(mirrored, indices, self.order)) * 0.5

    def _check(self) -> None:
        if not 0 < self.prior_prob < 1:
            step = 'Take about the share of cells in a disk, such as 0.01'
            raise ValueError(message(WHAT, 'prior_prob', 'be in (0, 1)', self.prior_prob, step))
        if getattr(self.final_layer, 'bias', None) is None:
            rule, step = 'be a convolution with a bias', 'prior_prob is set by it'
            raise ValueError(message(WHAT, 'final_layer', rule, self.final_layer, step))
        order = getattr(self.loss_module, 'order', self.order)
        if order != self.order:
            rule = f'have the order of the decoder, {self.order!r}'
            step = 'Give loss and codec the same order, or leave the loss out'
            raise ValueError(message(WHAT, 'loss', rule, repr(order), step))


def flip_offset_maps(maps: Tensor, flip_indices: Sequence[int], order: str = 'grouped') -> Tensor:
    """Return the maps of an image from those of its mirror image.

    Args:
        maps (Tensor): Disks and offsets in shape (B, 3K, H, W)
        flip_indices (Sequence[int]): For each keypoint the one that takes its place
        order (str): Of the channels

    Returns:
        Tensor: mirrored maps of swapped keypoints, offsets along x with the other sign
    """
    mirrored = maps.flip(-1)
    result = torch.empty_like(mirrored)
    sources, targets = (split_offset_maps(each, order) for each in (mirrored, result))
    for source, target in zip(sources, targets):
        target.copy_(source[:, flip_indices])
    targets[1][:, :, 0].neg_()
    return result
