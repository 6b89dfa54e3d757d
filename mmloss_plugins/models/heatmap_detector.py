"""Detector for the heads of CenterNet and ExtremeNet, with flip and multi-scale tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmdet.models.detectors import SingleStageDetector
from torch import Tensor
from torch.nn.functional import interpolate

from mmloss_plugins.errors import message
from mmloss_plugins.heads._peak_head import PeakHead
from mmloss_plugins.heads._peak_options import check_counts
from mmloss_plugins.registry import MODELS

WHAT = 'HeatmapDetector'
DEFAULTS = dict(flip_test=False, scales=(1.0,), size_divisor=32)


@MODELS.register_module()
class HeatmapDetector(SingleStageDetector):
    """MMDetection's ``SingleStageDetector`` that tests on mirrored images and several scales.

    For :class:`CenterNetHead` and :class:`ExtremeNetHead`. As the authors have it, CenterNet
    averages the maps of the image and of the mirrored one, ExtremeNet joins the detections; those
    of all scales are joined before soft-NMS, so set ``nms`` with several scales. The test-time
    augmentation of MMDetection (``tta_model``) is another way to the same, which loads and
    transforms each image once per scale and direction::

        model = dict(
            type='mmloss_plugins.HeatmapDetector', backbone=..., neck=...,
            bbox_head=dict(type='mmloss_plugins.CenterNetHead', ...),
            test_cfg=dict(
                flip_test=True, scales=(0.5, 0.75, 1, 1.25, 1.5),
                nms=dict(type='soft_nms', iou_threshold=0.5, method='gaussian')))

    Args:
        backbone (Config): As many feature maps as the head has stacks, or a neck that does
        neck (Config, optional): Defaults to None
        bbox_head (Config): ``CenterNetHead`` or ``ExtremeNetHead``
        train_cfg (Config, optional): Not read
        test_cfg (Config, optional): ``flip_test`` (bool), ``scales`` (Sequence[float]) of the
            input, ``size_divisor`` that the sides of inputs at another scale than 1 are rounded
            to; the other options are the head's. Defaults to no flip test, (1.0,) and 32
        detector_options: ``data_preprocessor``, ``init_cfg``

    Raises:
        TypeError: another head, ``flip_test`` that is no bool, or ``scales`` that are no sequence.
        ValueError: ``scales`` are none or not positive, or several without ``nms``.
    """

    def __init__(
        self,
        backbone: Mapping[str, Any],
        neck: Mapping[str, Any] | None = None,
        bbox_head: Mapping[str, Any] | None = None,
        train_cfg: Mapping[str, Any] | None = None,
        test_cfg: Mapping[str, Any] | None = None,
        **detector_options: Any,
    ) -> None:
        given = dict(test_cfg or {})
        options = {name: given.pop(name, default) for name, default in DEFAULTS.items()}
        _check_options(**options)
        super().__init__(
            backbone, neck, dict(bbox_head or {}), train_cfg, given, **detector_options
        )
        self._check_head(len(options['scales']))
        self.flip_test = options['flip_test']
        self.scales = tuple(options['scales'])
        self.size_divisor = options['size_divisor']

    def predict(
        self, batch_inputs: Tensor, batch_data_samples: Sequence[Any], rescale: bool = True
    ) -> Sequence[Any]:
        """Return the samples with ``pred_instances``.

        Args:
            batch_inputs (Tensor): Images (B, 3, H, W)
            batch_data_samples (Sequence[DetDataSample]): The data samples
            rescale (bool): Boxes in px of the images as they were loaded. Defaults to True
        """
        found = [self._detect(batch_inputs, scale) for scale in self.scales]
        joined = {name: torch.cat([each[name] for each in found], 1) for name in found[0]}
        metas = [sample.metainfo for sample in batch_data_samples]
        results = self.bbox_head.results(joined, metas, rescale)
        return self.add_pred_to_datasample(batch_data_samples, results)

    def _detect(self, inputs: Tensor, scale: float) -> dict[str, Tensor]:
        """Return the candidates at one scale, in px of the input at scale 1."""
        size = inputs.shape[-2:]
        if scale != 1:
            inputs = interpolate(
                inputs, [self._rounded(side * scale) for side in size], mode='bilinear'
            )
        if self.flip_test:
            inputs = torch.cat((inputs, inputs.flip(-1)))
        (stacks,) = self.bbox_head(self.extract_feat(inputs))
        # Of the input at scale 1, so that all scales give boxes in its px.
        stride = self.bbox_head.stride(stacks, size)
        return self.bbox_head.detect(stacks, stride, mirrored=self.flip_test)

    def _rounded(self, side: float) -> int:
        return max(1, round(side / self.size_divisor)) * self.size_divisor

    def _check_head(self, num_scales: int) -> None:
        if not isinstance(self.bbox_head, PeakHead):
            rule, step = (
                'be CenterNetHead or ExtremeNetHead',
                "Set type='mmloss_plugins.CenterNetHead'",
            )
            raise TypeError(message(WHAT, 'bbox_head', rule, type(self.bbox_head).__name__, step))
        if num_scales > 1 and self.bbox_head.test_cfg['nms'] is None:
            step = "Set nms=dict(type='soft_nms', iou_threshold=0.5, method='gaussian')"
            rule = 'be set to join several scales'
            raise ValueError(message(WHAT, 'test_cfg.nms', rule, None, step))


def _check_options(flip_test: Any, scales: Any, size_divisor: Any) -> None:
    if not isinstance(flip_test, bool):
        step = 'True tests on mirrored images, too'
        raise TypeError(message(WHAT, 'test_cfg.flip_test', 'be a bool', repr(flip_test), step))
    step = 'Leave it out, or take the (0.5, 0.75, 1, 1.25, 1.5) of the authors'
    if not isinstance(scales, Sequence) or isinstance(scales, str):
        raise TypeError(message(WHAT, 'test_cfg.scales', 'be a sequence', repr(scales), step))
    if not scales or not all(scale > 0 for scale in scales):
        raise ValueError(message(WHAT, 'test_cfg.scales', 'be positive numbers', scales, step))
    step = 'The strides of backbone and neck together, such as 32'
    check_counts(WHAT, {'test_cfg.size_divisor': size_divisor}, step)
