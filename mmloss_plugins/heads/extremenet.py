"""Head of ExtremeNet: heatmaps of the four extreme points and of the centre of objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.structures import InstanceData
from torch import Tensor

from mmloss_plugins import functional as F
from mmloss_plugins.errors import message, refuse_unknown
from mmloss_plugins.functional.closed_form import compute_dtype
from mmloss_plugins.heads._object_cells import numbered
from mmloss_plugins.heads._peak_head import Maps, PeakHead, ignore_boxes
from mmloss_plugins.heads._peak_options import check_counts
from mmloss_plugins.losses.centernet import EXTREMES
from mmloss_plugins.registry import MODELS

WHAT = 'ExtremeNetHead'
TEST_CFG = dict(
    topk=40,
    num_dets=1000,
    point_thr=0.1,
    center_thr=0.1,
    aggr_weight=0.1,
    score_thr=0.0,
    nms=dict(type='soft_nms', iou_threshold=0.5, sigma=0.5, min_score=0.001, method='gaussian'),
    max_per_img=100,
    ghosts=dict(ratio=3.0),
    octagon_masks=False,
)
OPTIONS = ('class_agnostic', 'radius_impl', 'min_overlap', 'max_objects', 'num_stacks')
GHOSTS = ('ratio', 'include_self', 'factor', 'score_thr', 'order')


@MODELS.register_module()
class ExtremeNetHead(PeakHead):
    """Head of ExtremeNet: objects are groups of four extreme points around a centre.

    See :func:`functional.extreme_targets`, :class:`ExdetLoss`, :func:`functional.extreme_decode`,
    :func:`functional.suppress_ghosts` and :func:`functional.octagons`. The annotations need
    ``extreme_points``, which the pipeline makes from masks::

        dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
        ...  # what moves pixels
        dict(type='mmloss_plugins.AddExtremePoints'),
        dict(type='mmloss_plugins.PackExtremePoints'),

    and the model, in a :class:`HeatmapDetector` behind an hourglass of two stacks::

        bbox_head=dict(
            type='mmloss_plugins.ExtremeNetHead', num_classes=80, in_channels=256,
            feat_channels=256, num_stacks=2),
        test_cfg=dict(flip_test=True, octagon_masks=True)

    The defaults are the paper's. The authors' training code has its own offset loss and their test
    code its own rule for ghosts::

        loss=dict(
            type='mmloss_plugins.ExdetLoss',
            offset_loss=dict(
                type='mmloss_plugins.RegL1Loss', penalty='smooth_l1', mean_over='objects')),
        test_cfg=dict(ghosts=dict(ratio=3.0, include_self=True, order='sequential'))

    Args:
        in_channels (int): Channels of each feature map
        feat_channels (int): Channels between the two convolutions of a branch
        num_classes (int): C, without background
        loss (Config): Loss on the maps. Defaults to ``ExdetLoss``
        class_agnostic (bool): One map of each extreme point for all classes; the class is that of
            the centre. Defaults to False
        radius_impl (str): Size of the Gaussians, 'centernet' for the authors' or 'mmdet'.
            Defaults to 'centernet'
        min_overlap (float, optional): See :func:`functional.gaussian_radius`. Defaults to None:
            that of ``radius_impl``
        max_objects (int, optional): Pad each batch to this number of objects per image, and leave
            out what an image has beyond it. Defaults to None: as many as the batch has
        num_stacks (int): Feature maps that are supervised, 2 for a two-stack hourglass. Defaults
            to 1
        prior_prob (float): Probability that the heatmaps start with. Defaults to 0.1
        train_cfg (Config, optional): Not read
        test_cfg (Config, optional): In the order of the test: ``aggr_weight`` (0.1) of the edges;
            ``topk`` (40) points of each map of at least ``point_thr`` (0.1); ``num_dets`` (1000)
            groups with at least ``center_thr`` (0.1) in their middle; of these what has a score
            above ``score_thr`` (0); ``nms``, a soft-NMS with a Gaussian, or None; the
            ``max_per_img`` (100) best; ``ghosts``, the options of
            :func:`functional.suppress_ghosts` (``dict(ratio=3.0)``) or None.
            ``octagon_masks=True`` adds ``masks`` for ``CocoMetric(metric=['bbox', 'segm'])``. For
            ``flip_test`` and ``scales`` see :class:`HeatmapDetector`
        init_cfg (Config, optional): See ``BaseModule``

    Raises:
        TypeError: an unknown argument or option of ``test_cfg``.
        ValueError: a number or name outside of its range.

    Reference:
        Zhou, Zhuo, Kraehenbuehl, Bottom-up Object Detection by Grouping Extreme and Center
        Points, https://arxiv.org/abs/1901.08043
    """

    def __init__(
        self,
        in_channels: int,
        feat_channels: int,
        num_classes: int,
        loss: Mapping[str, Any] | None = None,
        class_agnostic: bool = False,
        radius_impl: str = 'centernet',
        min_overlap: float | None = None,
        max_objects: int | None = None,
        num_stacks: int = 1,
        prior_prob: float = 0.1,
        train_cfg: Any = None,
        test_cfg: Mapping[str, Any] | None = None,
        init_cfg: Any = None,
        **unknown: Any,
    ) -> None:
        refuse_unknown(WHAT, unknown, ('loss', *OPTIONS, 'prior_prob', 'test_cfg'))
        branches = {'center.heatmap': num_classes}
        for side in EXTREMES:
            branches[f'{side}.heatmap'] = 1 if class_agnostic else num_classes
            branches[f'{side}.offset'] = 2
        super().__init__(
            in_channels,
            feat_channels,
            num_classes,
            branches=branches,
            loss=loss or dict(type='mmloss_plugins.ExdetLoss'),
            num_stacks=num_stacks,
            prior_prob=prior_prob,
            test_cfg=test_cfg,
            known_test_cfg=TEST_CFG,
            train_cfg=train_cfg,
            init_cfg=init_cfg,
        )
        self.class_agnostic = class_agnostic
        self.radius_impl = radius_impl
        self.min_overlap = min_overlap
        self.max_objects = max_objects
        self._check_options()

    def targets(
        self,
        instances: Sequence[InstanceData],
        map_size_hw: tuple[int, int],
        stride: tuple[float, float],
        ignored: Sequence[InstanceData | None] | None = None,
    ) -> dict[str, dict[str, Tensor | None]]:
        """Return the target of ``ExdetLoss`` for a batch.

        Args:
            instances (Sequence[InstanceData]): ``extreme_points`` (n, 4, 2) and ``labels`` of
                each image
            map_size_hw (tuple[int, int]): H, W of the maps
            stride (tuple[float, float]): Px of the input per cell (x, y)
            ignored (Sequence[InstanceData], optional): ``bboxes`` to ignore of each image

        Raises:
            ValueError: an image without ``extreme_points``.
        """
        for each in instances:
            if 'extreme_points' not in each:
                rule = "have 'extreme_points'"
                step = 'End the pipeline with AddExtremePoints and PackExtremePoints'
                raise ValueError(message(WHAT, 'gt_instances', rule, sorted(each.keys()), step))
        # At least one, of padding: a branch without any cell would get no gradient.
        most = self.max_objects or max(1, *(len(each.labels) for each in instances))
        points, labels = ([each[key] for each in instances] for key in ('extreme_points', 'labels'))
        found = F.extreme_targets(
            *F.pad_objects(points, labels, most),
            self.num_classes,
            map_size_hw,
            stride,
            ignore_boxes=ignore_boxes(ignored),
            agnostic=self.class_agnostic,
            radius_impl=self.radius_impl,
            min_overlap=self.min_overlap,
        )
        return {
            **{
                side: dict(
                    heatmap=found.extreme_heatmaps[i],
                    weight=found.extreme_weights and found.extreme_weights[i],
                    cell_index=found.cell_index[i],
                    offset=found.offset[i],
                    mask=found.mask,
                )
                for i, side in enumerate(EXTREMES)
            },
            'center': dict(heatmap=found.center_heatmap, weight=found.center_weight),
        }

    def object_cells(
        self, target: dict[str, dict[str, Tensor | None]]
    ) -> tuple[Mapping[str, Tensor], dict[str, dict[str, Tensor | None]]]:
        """Return that offsets are read in the cells of the objects' points."""
        cells = {side: target[side]['cell_index'] for side in EXTREMES}
        sides = {side: {**target[side], 'cell_index': numbered(cells[side])} for side in EXTREMES}
        return {f'{side}.offset': cells[side] for side in EXTREMES}, {**target, **sides}

    def detect(
        self, stacks: Sequence[Maps], stride: tuple[float, float], mirrored: bool = False
    ) -> dict[str, Tensor]:
        """Return the groups of a batch, with ``extreme_points`` (B, N, 8), as :class:`PeakHead`.

        Those of the mirrored images are mirrored back and added, as the authors have it.
        """
        maps = stacks[-1]
        rows = F.extreme_decode(
            [_probabilities(maps[side]) for side in EXTREMES],
            _probabilities(maps['center']),
            [maps[side]['offset'] for side in EXTREMES],
            **self._decode_options(),
        )
        boxes, scores, points, labels = rows.split((4, 1, 8, 1), -1)
        if mirrored:
            boxes, points = _mirror_back(boxes, points, maps['center']['heatmap'].shape[-1])
            boxes, scores, points, labels = (
                torch.cat(each.chunk(2), 1) for each in (boxes, scores, points, labels)
            )
        px = rows.new_tensor(stride)
        return dict(
            bboxes=boxes * px.repeat(2),
            scores=scores.squeeze(-1),
            labels=labels.squeeze(-1).long(),
            extreme_points=points * px.repeat(4),
        )

    def _result(
        self, found: dict[str, Tensor], meta: Mapping[str, Any], rescale: bool
    ) -> InstanceData:
        """Return the detections of one image, with ghosts weakened, ``extreme_points`` and masks.

        As in the authors' test code, ghosts are looked for among the ``max_per_img`` best.
        """
        result = super()._result(found, meta, rescale)
        ghosts = self.test_cfg['ghosts']
        if ghosts is not None:
            boxes = result.bboxes, result.scores, result.labels
            result.scores = F.suppress_ghosts(*boxes, **ghosts)
            result = result[result.scores.argsort(descending=True, stable=True)]
        result.extreme_points = result.extreme_points.unflatten(-1, (4, 2))
        if self.test_cfg['octagon_masks']:
            size_hw = meta['ori_shape' if rescale else 'img_shape'][:2]
            result.masks = F.octagon_masks(F.octagons(result.extreme_points), size_hw)
        return result

    def _decode_options(self) -> dict[str, Any]:
        """Return what ``test_cfg`` says, in the words of :func:`functional.extreme_decode`."""
        options = {name: self.test_cfg[name] for name in ('num_dets', 'center_thr', 'aggr_weight')}
        return dict(**options, top_k=self.test_cfg['topk'], score_thr=self.test_cfg['point_thr'])

    def _check_options(self) -> None:
        """Raise here what would end the first batch, or the first test after an epoch."""
        if self.max_objects is not None:
            check_counts(WHAT, dict(max_objects=self.max_objects), 'The authors have 128')
        F.gaussian_radius(torch.ones(1, 2), self.radius_impl, self.min_overlap)
        F.extreme_decode(
            torch.zeros(4, 0, 1, 1, 1), torch.zeros(0, 1, 1, 1), **self._decode_options()
        )
        ghosts = dict(self.test_cfg['ghosts'] or {})
        unknown = {name: value for name, value in ghosts.items() if name not in GHOSTS}
        refuse_unknown(f'{WHAT}.test_cfg.ghosts', unknown, GHOSTS)
        F.suppress_ghosts(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0), **ghosts)


def _probabilities(maps: Maps) -> Tensor:
    logits = maps['heatmap']
    # In half precision scores near 1 would be 0.0005 apart, or 0.004.
    return logits.to(compute_dtype(logits)).sigmoid()


def _mirror_back(boxes: Tensor, points: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Return boxes and points of a batch whose second half was found in mirrored images."""
    plain, turned = boxes.chunk(2)
    x1, y1, x2, y2 = turned.unbind(-1)
    turned = torch.stack((width - x2, y1, width - x1, y2), -1)
    kept, found = points.unflatten(-1, (4, 2)).chunk(2)
    # The left point of the mirrored object is the right one of the object.
    x, y = found[..., (0, 3, 2, 1), :].unbind(-1)
    found = torch.stack((width - x, y), -1)
    return torch.cat((plain, turned)), torch.cat((kept, found)).flatten(-2)
