"""What the heads of CenterNet and ExtremeNet share: branches of convolutions, and results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmcv.ops import batched_nms
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.utils import unpack_gt_instances
from mmengine.model import bias_init_with_prob, normal_init
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmloss_plugins import functional as F
from mmloss_plugins.errors import message
from mmloss_plugins.heads._object_cells import at_cells
from mmloss_plugins.heads._peak_options import check_counts, checked_test_cfg
from mmloss_plugins.registry import MODELS

Maps = Mapping[str, Any]
# Rows of x and y in px.
POSITIONS = {'bboxes', 'extreme_points'}


class PeakHead(BaseDenseHead):
    """Head that finds objects as peaks of heatmaps, one set of branches per stack: not registered.

    Each branch is a 3x3 convolution, a ReLU and a 1x1 convolution. A subclass lists its branches,
    makes the targets of a batch (:meth:`targets`) and turns maps into boxes (:meth:`detect`). It
    may name the cells that a loss reads (:meth:`object_cells`): a training step then computes the
    branches without heatmap there alone, with the same values and gradients.

    Args:
        in_channels: channels of each feature map.
        feat_channels: channels between the two convolutions of a branch.
        num_classes: C, without background.
        branches: channels of each branch, by dotted name such as 'top.offset'.
        loss: config of the loss on the maps, see :meth:`loss_by_feat`.
        num_stacks: feature maps that are supervised, 2 for a two-stack hourglass; the last one is
            tested.
        prior_prob: probability that the heatmaps start with, by their bias.
        test_cfg: options of the test; see the subclass.
        known_test_cfg: the options that there are, and their defaults.
        train_cfg: not read; MMDetection's detectors pass it.
        init_cfg: see ``BaseModule``.

    Raises:
        TypeError: an unknown option of ``test_cfg``, or a loss without terms.
        ValueError: a number outside of its range, or an ``nms`` that mmcv does not know.
    """

    def __init__(
        self,
        in_channels: int,
        feat_channels: int,
        num_classes: int,
        branches: Mapping[str, int],
        loss: Mapping[str, Any],
        num_stacks: int,
        prior_prob: float,
        test_cfg: Mapping[str, Any] | None,
        known_test_cfg: Mapping[str, Any],
        train_cfg: Any = None,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        what = type(self).__name__
        check_counts(
            what,
            dict(
                in_channels=in_channels,
                feat_channels=feat_channels,
                num_classes=num_classes,
                num_stacks=num_stacks,
            ),
            'num_classes is that of the data set, in_channels that of the neck',
        )
        if not 0 < prior_prob < 1:
            step = "The authors' bias of -2.19 is 0.1"
            raise ValueError(message(what, 'prior_prob', 'be in (0, 1)', prior_prob, step))
        self.num_classes = num_classes
        self.num_stacks = num_stacks
        self.prior_prob = prior_prob
        self.test_cfg = checked_test_cfg(f'{what}.test_cfg', test_cfg or {}, known_test_cfg)
        self.train_cfg = train_cfg
        self.stacks = nn.ModuleList(
            nn.ModuleDict(
                {
                    name.replace('.', '_'): _branch(in_channels, feat_channels, channels)
                    for name, channels in branches.items()
                }
            )
            for _ in range(num_stacks)
        )
        self.branch_names = tuple(branches)
        self.loss_module = MODELS.build(dict(loss))
        if not hasattr(self.loss_module, 'terms'):
            step = 'Set the losses of its terms instead, such as loss=dict(heatmap_loss=...)'
            got = type(self.loss_module).__name__
            raise TypeError(message(what, 'loss', 'be CtdetLoss or ExdetLoss', got, step))

    def init_weights(self) -> None:
        """Start heatmaps at the prior and other maps near 0, unless ``init_cfg`` loads them."""
        again = self.is_init
        super().init_weights()
        configs = self.init_cfg if isinstance(self.init_cfg, list) else [self.init_cfg]
        if again or any(config and config['type'] == 'Pretrained' for config in configs):
            return
        for stack in self.stacks:
            for name, branch in stack.items():
                if name.endswith('heatmap'):
                    nn.init.constant_(branch[-1].bias, bias_init_with_prob(self.prior_prob))
                    continue
                for conv in (branch[0], branch[-1]):
                    normal_init(conv, std=0.001)

    def forward(self, x: Sequence[Tensor]) -> tuple[list[Maps]]:
        """Return the maps of each stack.

        Args:
            x (Sequence[Tensor]): Feature maps (B, in_channels, H, W), one per stack

        Returns:
            tuple[list[dict]]: One list, of one nested dict of maps per stack; heatmaps are logits
        """
        return ([self._maps(stack, feature, {}) for stack, feature in self._by_stack(x)],)

    def loss(self, x: Sequence[Tensor], batch_data_samples: Sequence[Any]) -> dict[str, Tensor]:
        """Return each term of the loss, the training step of MMDetection's detectors.

        Gives what :meth:`loss_by_feat` gives on the maps of :meth:`forward`, without the cells of
        offsets and sizes that the loss does not read.

        Args:
            x (Sequence[Tensor]): Feature maps (B, in_channels, H, W), one per stack
            batch_data_samples (Sequence[DetDataSample]): With ``gt_instances`` and, where there
                are regions to ignore, ``ignored_instances``

        Returns:
            dict: The terms by name
        """
        by_stack = self._by_stack(x)
        instances, ignored, metas = unpack_gt_instances(batch_data_samples)
        size = tuple(x[-1].shape[-2:])
        target = self.targets(
            instances, size, _px_per_cell(size, metas[0]['batch_input_shape']), ignored
        )
        cells, target = self.object_cells(target)
        stacks = [self._maps(stack, feature, cells) for stack, feature in by_stack]
        return self.loss_module.terms(stacks, target)

    def loss_by_feat(
        self,
        stacks: Sequence[Maps],
        batch_gt_instances: Sequence[InstanceData],
        batch_img_metas: Sequence[Mapping[str, Any]],
        batch_gt_instances_ignore: Sequence[InstanceData | None] | None = None,
    ) -> dict[str, Tensor]:
        """Return each term of the loss on given maps.

        Args:
            stacks (Sequence[dict]): What :meth:`forward` returns
            batch_gt_instances (Sequence[InstanceData]): ``bboxes`` (n, 4) and ``labels`` (n,)
            batch_img_metas (Sequence[dict]): ``batch_input_shape`` is read
            batch_gt_instances_ignore (Sequence[InstanceData], optional): ``bboxes`` of regions
                whose background does not count

        Returns:
            dict: The terms by name
        """
        target = self.targets(
            batch_gt_instances,
            self._map_size(stacks),
            self.stride(stacks, batch_img_metas[0]['batch_input_shape']),
            batch_gt_instances_ignore,
        )
        return self.loss_module.terms(stacks, target)

    def predict_by_feat(
        self,
        stacks: Sequence[Maps],
        batch_img_metas: Sequence[Mapping[str, Any]],
        rescale: bool = False,
        cfg: Mapping[str, Any] | None = None,
    ) -> list[InstanceData]:
        """Return the detections of each image, best first.

        Args:
            stacks (Sequence[dict]): What :meth:`forward` returns
            batch_img_metas (Sequence[dict]): ``batch_input_shape``, and where they are there
                ``border``, ``scale_factor``
            rescale (bool): Return boxes in px of the image as it was loaded. Defaults to False
            cfg (Config, optional): Has to be None; detectors of two stages pass their own

        Returns:
            list[InstanceData]: ``bboxes`` (n, 4), ``scores`` and ``labels`` (n,); more where the
            subclass says so
        """
        if cfg is not None:
            step = 'Set test_cfg of the head'
            raise ValueError(message(type(self).__name__, 'cfg', 'be None', dict(cfg), step))
        found = self.detect(stacks, self.stride(stacks, batch_img_metas[0]['batch_input_shape']))
        return self.results(found, batch_img_metas, rescale)

    def targets(
        self,
        instances: Sequence[InstanceData],
        map_size_hw: tuple[int, int],
        stride: tuple[float, float],
        ignored: Sequence[InstanceData | None] | None,
    ) -> Any:
        """Return the target of the loss for a batch."""
        raise TypeError(f'{type(self).__name__} has to implement targets')

    def object_cells(self, target: Any) -> tuple[Mapping[str, Tensor], Any]:
        """Return which cells of a branch the loss reads, and the target of these cells alone.

        Args:
            target: what :meth:`targets` returns.

        Returns:
            cell_index (B, N), N >= 1, by the name of the branch; and the target for maps
            (B, channels, 1, N) of these branches, whose cells are ``numbered``. Branches that
            are not named are computed everywhere.
        """
        return {}, target

    def detect(
        self, stacks: Sequence[Maps], stride: tuple[float, float], mirrored: bool = False
    ) -> dict[str, Tensor]:
        """Return the candidates of a batch, in px of the input.

        Args:
            stacks: what :meth:`forward` returns; the last one is read.
            stride: px of the input per cell (x, y).
            mirrored: the second half of the batch are the images of the first half, mirrored.

        Returns:
            ``bboxes`` (B, N, 4), ``scores`` (B, N), ``labels`` (B, N) and more of the shape
            (B, N, ...)
        """
        raise TypeError(f'{type(self).__name__} has to implement detect')

    def results(
        self,
        found: Mapping[str, Tensor],
        batch_img_metas: Sequence[Mapping[str, Any]],
        rescale: bool,
    ) -> list[InstanceData]:
        """Return what is left of candidates after soft-NMS, in px of each image."""
        return [
            self._result({name: value[i] for name, value in found.items()}, meta, rescale)
            for i, meta in enumerate(batch_img_metas)
        ]

    def suppress(self, result: InstanceData) -> InstanceData:
        """Return the detections of one image after ``nms`` of ``test_cfg``."""
        nms = self.test_cfg['nms']
        if nms is None:
            return result
        # Two boxes without area at one place have an overlap of 0 / 0: their scores become NaN.
        result = result[~(result.bboxes[:, 2:] <= result.bboxes[:, :2]).any(-1)]
        if not len(result):
            return result
        boxes, kept = batched_nms(result.bboxes, result.scores, result.labels, dict(nms))
        result = result[kept]
        result.scores = boxes[:, -1]
        return result

    def _result(
        self, found: dict[str, Tensor], meta: Mapping[str, Any], rescale: bool
    ) -> InstanceData:
        shift, scale = (0.0, 0.0), (1.0, 1.0)
        if 'border' in meta:
            shift = (float(meta['border'][2]), float(meta['border'][0]))
        if rescale and 'scale_factor' in meta:
            scale = tuple(meta['scale_factor'])
        for name in POSITIONS & found.keys():
            points = found[name].unflatten(-1, (-1, 2))
            points = (points - points.new_tensor(shift)) / points.new_tensor(scale)
            found[name] = points.flatten(-2)
        result = InstanceData(**found)
        # Not scores > score_thr: maps with NaN have to show.
        result = self.suppress(result[~(result.scores <= self.test_cfg['score_thr'])])
        best = result.scores.argsort(descending=True, stable=True)
        return result[best[: self.test_cfg['max_per_img']]]

    def _by_stack(self, x: Sequence[Tensor]) -> list[tuple[nn.ModuleDict, Tensor]]:
        """Return the branches of each stack with its features."""
        what, sizes = type(self).__name__, [tuple(feature.shape[-2:]) for feature in x]
        if len(x) != self.num_stacks:
            rule = f'be num_stacks={self.num_stacks} feature maps'
            step = 'Set num_stacks to the number of maps that backbone and neck return'
            raise ValueError(message(what, 'x', rule, len(x), step))
        if len(set(sizes)) > 1:
            step = 'Levels of a pyramid are no stacks: return one of them, by out_indices'
            raise ValueError(message(what, 'x', 'be feature maps of one size', sizes, step))
        return list(zip(self.stacks, x))

    def _maps(self, stack: nn.ModuleDict, feature: Tensor, cells: Mapping[str, Tensor]) -> Maps:
        """Return the maps of a stack; those of branches in ``cells`` hold these cells alone."""
        maps: dict[str, Any] = {}
        for name in self.branch_names:
            branch = stack[name.replace('.', '_')]
            value = at_cells(branch, feature, cells[name]) if name in cells else branch(feature)
            group, _, rest = name.rpartition('.')
            (maps.setdefault(group, {}) if group else maps)[rest] = value
        return maps

    def stride(self, stacks: Sequence[Maps], size_hw: tuple[int, int]) -> tuple[float, float]:
        """Return px of an input of ``size_hw`` per cell (x, y)."""
        return _px_per_cell(self._map_size(stacks), size_hw)

    def _map_size(self, stacks: Sequence[Maps]) -> tuple[int, int]:
        maps: Any = stacks[-1]
        while not isinstance(maps, Tensor):
            maps = next(iter(maps.values()))
        return tuple(maps.shape[-2:])


def ignore_boxes(ignored: Sequence[InstanceData | None] | None) -> Tensor | None:
    """Return the regions to ignore of each image, padded (B, M, 4); None where there are none."""
    boxes = [None if each is None else box_tensor(each.bboxes) for each in ignored or ()]
    found = [box for box in boxes if box is not None and len(box)]
    if not found:
        return None
    return F.pad_rows([found[0][:0] if box is None else box for box in boxes])


def box_tensor(boxes: Any) -> Tensor:
    """Return (n, 4) corners; the boxes of MMDetection may wrap a tensor."""
    return getattr(boxes, 'tensor', boxes)


def _px_per_cell(map_size_hw: tuple[int, int], size_hw: Sequence[int]) -> tuple[float, float]:
    return size_hw[1] / map_size_hw[1], size_hw[0] / map_size_hw[0]


def _branch(in_channels: int, feat_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, feat_channels, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(feat_channels, out_channels, 1),
    )
