"""Head of CenterNet: a heatmap of object centres, with offsets and sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mmloss_plugins import functional as F
from mmloss_plugins.errors import message, refuse_unknown
from mmloss_plugins.functional.closed_form import compute_dtype
from mmloss_plugins.heads._object_cells import numbered
from mmloss_plugins.heads._peak_head import Maps, PeakHead, box_tensor, ignore_boxes
from mmloss_plugins.heads._peak_options import check_counts
from mmloss_plugins.registry import MODELS

TEST_CFG = dict(topk=100, local_maximum_kernel=3, max_per_img=100, score_thr=0.0, nms=None)
# MMDetection's names of the branches, and ours.
MMDET_BRANCHES = {'heatmap_head': 'heatmap', 'wh_head': 'size_wh', 'offset_head': 'offset'}
# MMDetection's losses, and which of CtdetLoss does their work.
MMDET_LOSSES = {
    'loss_center_heatmap': "heatmap_loss=dict(type='mmloss_plugins.GaussianFocalLoss')",
    'loss_wh': "size_loss=dict(type='mmloss_plugins.RegL1Loss'), size_weight=0.1",
    'loss_offset': "offset_loss=dict(type='mmloss_plugins.RegL1Loss')",
}
LOSS = 'mmloss_plugins.CtdetLoss'
MAPS = ('heatmap', 'offset', 'size_wh')
OPTIONS = ('radius_impl', 'min_overlap', 'max_objects', 'class_specific_size', 'num_stacks')


@MODELS.register_module()
class CenterNetHead(PeakHead):
    """Head of CenterNet: objects are peaks of a heatmap of centres, one channel per class.

    The targets of a whole batch are made on the device at once, without a loop over boxes and
    without a sync; offsets and sizes are computed in the cells of the objects alone while
    training; maps are decoded for all images at once. See :func:`functional.center_targets`,
    :class:`CtdetLoss` and :func:`functional.decode_centers`. Stands where MMDetection's
    ``CenterNetHead`` does, whose checkpoints load unchanged::

        bbox_head=dict(
            type='mmloss_plugins.CenterNetHead', num_classes=80, in_channels=64, feat_channels=64),
        test_cfg=dict(topk=100, local_maximum_kernel=3, max_per_img=100)

    Differs from it: heatmaps stay logits up to the loss; all objects that share a cell count;
    the number of objects is averaged over ranks; regions to ignore are ignored; several stacks;
    results hold peaks alone, not cells of score 0 to fill up 100. MMDetection's targets are those
    of ``radius_impl='mmdet'``. Labels beyond ``num_classes`` stop the training with an index error
    of PyTorch: MMDetection's ``NumClassCheckHook`` compares the data set before the first step.

    Args:
        in_channels (int): Channels of each feature map
        feat_channels (int): Channels between the two convolutions of a branch
        num_classes (int): C, without background
        loss (Config, optional): Options of ``CtdetLoss``, such as ``dict(size_weight=0.2)``, or
            another loss with the method ``terms``; it may read offsets and sizes in the cells of
            objects alone. Defaults to None: ``CtdetLoss``
        radius_impl (str): Size of the Gaussians, 'centernet' for the authors' or 'mmdet'.
            Defaults to 'centernet'
        min_overlap (float, optional): See :func:`functional.gaussian_radius`. Defaults to None:
            that of ``radius_impl``
        max_objects (int, optional): Pad each batch to this number of objects per image, and leave
            out what an image has beyond it; the authors have 128. Defaults to None: as many as
            the batch has
        class_specific_size (bool): Predict a size for each class. Defaults to False
        num_stacks (int): Feature maps that are supervised. Defaults to 1
        prior_prob (float): Probability that the heatmap starts with. Defaults to 0.1
        train_cfg (Config, optional): Not read
        test_cfg (Config, optional): ``topk`` peaks that exceed the square of
            ``local_maximum_kernel`` cells around them; those above ``score_thr``; at most
            ``max_per_img`` after ``nms``, such as ``dict(type='soft_nms', iou_threshold=0.5,
            method='gaussian')``. Defaults to 100, 3, 0, 100 and None. For ``flip_test`` and
            ``scales`` see :class:`HeatmapDetector`
        init_cfg (Config, optional): See ``BaseModule``

    Raises:
        TypeError: an unknown argument or option of ``test_cfg``, or a loss without ``terms``.
        ValueError: a number or name outside of its range, or a ``size_loss`` that does not fit
            ``class_specific_size``.

    Reference:
        Zhou et al., Objects as Points, https://arxiv.org/abs/1904.07850
    """

    def __init__(
        self,
        in_channels: int,
        feat_channels: int,
        num_classes: int,
        loss: Mapping[str, Any] | None = None,
        radius_impl: str = 'centernet',
        min_overlap: float | None = None,
        max_objects: int | None = None,
        class_specific_size: bool = False,
        num_stacks: int = 1,
        prior_prob: float = 0.1,
        train_cfg: Any = None,
        test_cfg: Mapping[str, Any] | None = None,
        init_cfg: Any = None,
        **unknown: Any,
    ) -> None:
        _refuse_losses_of_mmdet(unknown)
        known = ('in_channels', 'feat_channels', 'num_classes', 'loss', *OPTIONS, 'prior_prob')
        refuse_unknown('CenterNetHead', unknown, (*known, 'train_cfg', 'test_cfg', 'init_cfg'))
        size_channels = 2 * num_classes if class_specific_size else 2
        super().__init__(
            in_channels,
            feat_channels,
            num_classes,
            branches=dict(heatmap=num_classes, offset=2, size_wh=size_channels),
            loss=_loss_config(loss, class_specific_size),
            num_stacks=num_stacks,
            prior_prob=prior_prob,
            test_cfg=test_cfg,
            known_test_cfg=TEST_CFG,
            train_cfg=train_cfg,
            init_cfg=init_cfg,
        )
        # Its errors belong to the start, not to the first batch.
        F.gaussian_radius(torch.ones(1, 2), radius_impl, min_overlap)
        if max_objects is not None:
            check_counts('CenterNetHead', dict(max_objects=max_objects), 'The authors have 128')
        F.local_maxima(torch.ones(1, 1, 1, 1), self.test_cfg['local_maximum_kernel'])
        self._check_size_loss(class_specific_size)
        self.radius_impl = radius_impl
        self.min_overlap = min_overlap
        self.max_objects = max_objects

    def targets(
        self,
        instances: Sequence[Any],
        map_size_hw: tuple[int, int],
        stride: tuple[float, float],
        ignored: Sequence[Any | None] | None = None,
    ) -> F.CenterTargets:
        """Return the target of ``CtdetLoss`` for a batch.

        Args:
            instances (Sequence[InstanceData]): ``bboxes`` and ``labels`` of each image
            map_size_hw (tuple[int, int]): H, W of the maps
            stride (tuple[float, float]): Px of the input per cell (x, y)
            ignored (Sequence[InstanceData], optional): ``bboxes`` to ignore of each image
        """
        # At least one, of padding: a branch without any cell would get no gradient.
        most = self.max_objects or max(1, *(len(each.labels) for each in instances))
        objects = F.pad_objects(
            [box_tensor(each.bboxes) for each in instances],
            [each.labels for each in instances],
            most,
        )
        return F.center_targets(
            *objects,
            self.num_classes,
            map_size_hw,
            stride,
            ignore_boxes=ignore_boxes(ignored),
            radius_impl=self.radius_impl,
            min_overlap=self.min_overlap,
        )

    def object_cells(self, target: F.CenterTargets) -> tuple[Mapping[str, Tensor], F.CenterTargets]:
        """Return that offsets and sizes are read in the cells of the objects."""
        cells = target.cell_index
        return dict(offset=cells, size_wh=cells), target._replace(cell_index=numbered(cells))

    def detect(
        self, stacks: Sequence[Maps], stride: tuple[float, float], mirrored: bool = False
    ) -> dict[str, Tensor]:
        """Return the best peaks of a batch; see :meth:`PeakHead.detect`."""
        # In half precision a box would be off by a cell.
        maps = [stacks[-1][name].to(compute_dtype(stacks[-1][name])) for name in MAPS]
        if mirrored:
            maps = F.average_mirrored(*maps)
        cells = maps[0].shape[1:].numel()
        found = F.decode_centers(
            *maps,
            stride,
            k=min(self.test_cfg['topk'], cells),
            kernel=self.test_cfg['local_maximum_kernel'],
            from_logits=not mirrored,
        )
        return dict(bboxes=found.boxes, scores=found.scores, labels=found.labels)

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Load a checkpoint of MMDetection's head, too."""
        for theirs, ours in MMDET_BRANCHES.items():
            old = f'{prefix}{theirs}.'
            for name in [name for name in state_dict if name.startswith(old)]:
                new = f'{prefix}stacks.0.{ours}.{name[len(old) :]}'
                state_dict[new] = state_dict.pop(name)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _check_size_loss(self, class_specific_size: bool) -> None:
        size_loss = getattr(self.loss_module, 'size_loss', None)
        found = getattr(size_loss, 'class_specific', class_specific_size)
        if found != class_specific_size:
            rule = f'have class_specific={class_specific_size} as class_specific_size of the head'
            step = f"Set size_loss=dict(type='mmloss_plugins.RegL1Loss', {rule.split()[1]})"
            raise ValueError(message('CenterNetHead', 'loss.size_loss', rule, found, step))


def _loss_config(loss: Mapping[str, Any] | None, class_specific_size: bool) -> dict[str, Any]:
    """Return the config of the loss, with sizes of the class where it is CtdetLoss."""
    loss = {'type': LOSS, **(loss or {})}
    if loss['type'] in (LOSS, 'CtdetLoss'):
        size = dict(type='mmloss_plugins.RegL1Loss', class_specific=class_specific_size)
        loss.setdefault('size_loss', size)
    return loss


def _refuse_losses_of_mmdet(unknown: Mapping[str, Any]) -> None:
    for theirs, ours in MMDET_LOSSES.items():
        if theirs in unknown:
            step = f"{theirs} is of MMDetection's head; here it is loss=dict({ours})"
            rule = 'be one of this head'
            raise TypeError(message('CenterNetHead', 'argument', rule, repr(theirs), step))
