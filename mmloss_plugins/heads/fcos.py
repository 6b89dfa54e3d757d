"""MMDetection's FCOSHead with a classification loss that is divided image by image."""

from __future__ import annotations

import torch
from mmdet.models.dense_heads import FCOSHead as MMDetFCOSHead
from mmengine.structures import InstanceData
from torch import Tensor

from mmloss_plugins.losses.focal import PER_IMAGE
from mmloss_plugins.registry import MODELS


@MODELS.register_module()
class FCOSHead(MMDetFCOSHead):
    """``mmdet.FCOSHead`` that leaves the normaliser of the classification to its loss.

    The stock head divides the sum over all points of the batch by the number of positive points
    of the batch, whatever ``mean_over`` says. With
    ``loss_cls=dict(type='mmloss_plugins.SigmoidFocalLoss', use_sigmoid=True,
    mean_over='positives_per_image')`` this one divides the sum of each image by its own positives,
    at least 1, and takes the mean over images, so that an object counts more in an image with few
    of them. Costs a second assignment of targets. With every other loss it is the stock head, which
    takes :class:`SigmoidFocalLoss` as well.

    The loss of the boxes and that of the centre-ness are the stock head's in either case.

    Args:
        args: as in MMDetection.
        kwargs: as in MMDetection.

    Reference:
        github.com/VectXmy/FCOS.Pytorch (per image); Tian et al., FCOS,
        https://arxiv.org/abs/1904.01355, equation 2 (the batch).
    """

    def loss_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        centernesses: list[Tensor],
        batch_gt_instances: list[InstanceData],
        batch_img_metas: list[dict],
        batch_gt_instances_ignore: list[InstanceData] | None = None,
    ) -> dict[str, Tensor]:
        """Return ``loss_cls``, ``loss_bbox`` and ``loss_centerness``, scalars.

        Args:
            cls_scores: logits of each level, (B, C, H, W).
            bbox_preds: distances to the four sides, (B, 4, H, W).
            centernesses: logits (B, 1, H, W).
            batch_gt_instances: ``bboxes`` (N, 4) and ``labels`` (N,) of each image.
            batch_img_metas: not read by the stock head either.
            batch_gt_instances_ignore: not read.
        """
        losses = super().loss_by_feat(
            cls_scores,
            bbox_preds,
            centernesses,
            batch_gt_instances,
            batch_img_metas,
            batch_gt_instances_ignore,
        )
        if getattr(self.loss_cls, 'mean_over', None) == PER_IMAGE:
            labels = self._labels_of_images(bbox_preds, batch_gt_instances)
            logits = torch.cat([scores.flatten(2) for scores in cls_scores], dim=2)
            losses['loss_cls'] = self.loss_cls(logits, labels)
        return losses

    @torch.no_grad()
    def _labels_of_images(
        self, bbox_preds: list[Tensor], batch_gt_instances: list[InstanceData]
    ) -> Tensor:
        """Return the class of every point, C for background: (B, points of all levels)."""
        points = self.prior_generator.grid_priors(
            [level.shape[-2:] for level in bbox_preds],
            dtype=bbox_preds[0].dtype,
            device=bbox_preds[0].device,
        )
        labels, _ = self.get_targets(points, batch_gt_instances)
        images = len(batch_gt_instances)
        return torch.cat([level.view(images, -1) for level in labels], dim=1)
