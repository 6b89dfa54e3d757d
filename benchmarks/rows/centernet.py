"""CenterNet beside MMDetection's CenterNetHead: targets, loss, step of the head, decoding."""

from __future__ import annotations

import dataclasses
import functools
import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness import Bar, Contender, Row, Step

BATCH, OBJECTS, CLASSES, CELLS, STRIDE = 16, 30, 80, 128, 4
INPUT = CELLS * STRIDE
LOSS_BATCH = 8  # of the loss, whose gradients take several times the memory of the maps
CHANNELS = 64  # of the features and between the convolutions of the head
TOP_K = 100
OURS, PEER = 'ours', 'MMDet'
EVERYWHERE = 'ours, offsets and sizes in all cells'
HEATMAP_FLOOR = {
    'targets': 'floor: zeros of the heatmaps',
    'loss': 'floor: clone of the heatmaps',
    'head': 'floor: convolutions of the heatmap alone',
    'decode': 'floor: clone of the heatmaps',
}


def make_rows(device: torch.device, seed: int) -> list[Row]:
    """Return the rows of this family. On a GPU MMDetection's loop over the boxes waits for it."""
    scene = LazyScene(device, seed)
    return [
        make_row('targets', BATCH, scene.our_targets, scene.mmdet_targets, scene.zeros, 40),
        make_row('loss', LOSS_BATCH, scene.our_loss, scene.mmdet_loss, scene.clone, 3),
        head_row(scene),
        make_row('decode', BATCH, scene.our_boxes, scene.mmdet_boxes, scene.clone, 1),
    ]


def make_row(
    name: str,
    batch: int,
    ours: Callable[[int], Step],
    peer: Callable[[int], Step],
    floor: Callable[[int], Step],
    at_least: float,
) -> Row:
    """Return one row; all its contenders get the batch size and have to give one value."""
    title = {
        'targets': f'Targets of {batch} images with {OBJECTS} boxes',
        'loss': f'Targets, loss and gradient of the maps, {batch} images with {OBJECTS} boxes',
        'head': f'Step of the head on features of {CHANNELS} channels: convolutions, targets, loss '
        f'and gradient, {batch} images with {OBJECTS} boxes',
        'decode': f'Boxes of {batch} images, k = {TOP_K}',
    }[name]
    return Row(
        name=name,
        title=f'CenterNet. {title}, {CLASSES} classes, {CELLS} x {CELLS}',
        device=ours.__self__.device,  # type: ignore[attr-defined]
        contenders={
            OURS: Contender('ours', functools.partial(ours, batch), 1.0),
            PEER: Contender('peer', functools.partial(peer, batch), 1.0),
            HEATMAP_FLOOR[name]: Contender('floor', functools.partial(floor, batch)),
        },
        bars=[Bar(OURS, PEER, at_least)],
    )


def head_row(scene: LazyScene) -> Row:
    """Return the row of a training step of the head, with what its convolutions take.

    Those of the heatmap are the same on both sides and bound the ratio. The others ours computes
    in the cells of the objects; the second line does so in all cells, as MMDetection does.
    """
    row = make_row('head', LOSS_BATCH, scene.our_step, scene.mmdet_step, scene.heatmap_branch, 3)
    build = functools.partial(scene.our_step, LOSS_BATCH, everywhere=True)
    contenders = dict(row.contenders)
    peer, floor = contenders.pop(PEER), contenders.pop(HEATMAP_FLOOR['head'])
    contenders[EVERYWHERE] = Contender('ours', build, 1.0)
    contenders.update({PEER: peer, HEATMAP_FLOOR['head']: floor})
    return dataclasses.replace(row, contenders=contenders)


def mmdet_head(channels: int = 4) -> Any:
    """Return MMDetection's head; with 4 channels where its convolutions are not run."""
    config = importlib.import_module('mmengine.config').ConfigDict
    scope = importlib.import_module('mmengine.registry').DefaultScope
    heads = importlib.import_module('mmdet.models.dense_heads')
    test_cfg = config(topk=TOP_K, local_maximum_kernel=3, max_per_img=TOP_K)
    with scope.overwrite_default_scope('mmdet'):
        return heads.CenterNetHead(channels, channels, CLASSES, test_cfg=test_cfg)


def sample(heatmap: Tensor) -> Tensor:
    """Return a sum over some cells: enough to compare, and cheap beside the targets."""
    return heatmap.view(-1)[::1009].sum()


def with_backward(forward: Callable[[], Tensor], leaves: list[Tensor]) -> Step:
    """Return a step that computes the gradients of ``leaves`` and drops them."""

    def drop_gradients() -> None:
        for leaf in leaves:
            leaf.grad = None

    return Step(forward, lambda value: value.backward(), drop_gradients)


class LazyScene:
    """Boxes and maps of one batch, made on first use and shared by the contenders."""

    def __init__(self, device: torch.device, seed: int) -> None:
        self.device, self.seed = device, seed

    @functools.cached_property
    def boxes(self) -> tuple[list[Tensor], list[Tensor]]:
        """Boxes of 8 px to the whole image and labels, one tensor per image."""
        generator = torch.Generator().manual_seed(self.seed)
        boxes, labels = [], []
        for _ in range(BATCH):
            corners = torch.rand(OBJECTS, 2, generator=generator) * (INPUT - 8)
            sizes = 8 + torch.rand(OBJECTS, 2, generator=generator) ** 2 * (INPUT - 8)
            box = torch.cat((corners, (corners + sizes).clamp(max=INPUT)), 1)
            boxes.append(box.to(self.device))
            labels.append(torch.randint(CLASSES, (OBJECTS,), generator=generator).to(self.device))
        return boxes, labels

    @functools.cached_property
    def maps(self) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of the heatmap, offsets and sizes of a head that has learnt little."""
        generator = torch.Generator().manual_seed(self.seed)
        shape = (BATCH, CLASSES, CELLS, CELLS)
        logits = torch.randn(shape, generator=generator) - 3
        offset = torch.rand(BATCH, 2, CELLS, CELLS, generator=generator)
        size = 20 * torch.rand(BATCH, 2, CELLS, CELLS, generator=generator)
        return logits.to(self.device), offset.to(self.device), size.to(self.device)

    def our_targets(self, batch: int) -> Step:
        return Step(forward=lambda: sample(self.targets(batch).heatmap))

    def targets(self, batch: int) -> Any:
        functional = importlib.import_module('mmloss_plugins.functional')
        boxes, labels = (part[:batch] for part in self.boxes)
        padded = functional.pad_objects(boxes, labels)
        return functional.center_targets(
            *padded, CLASSES, (CELLS, CELLS), STRIDE, radius_impl='mmdet'
        )

    def mmdet_targets(self, batch: int) -> Step:
        head = mmdet_head()
        shape = (batch, CLASSES, CELLS, CELLS)
        boxes, labels = (part[:batch] for part in self.boxes)

        def forward() -> Tensor:
            targets, _ = head.get_targets(boxes, labels, shape, (INPUT, INPUT))
            return sample(targets['center_heatmap_target'])

        return Step(forward=forward)

    def our_loss(self, batch: int) -> Step:
        loss = importlib.import_module('mmloss_plugins.losses').CtdetLoss()

        def forward(logits: Tensor, offset: Tensor, size: Tensor) -> Tensor:
            maps = {'heatmap': logits, 'offset': offset, 'size_wh': size}
            value: Tensor = loss(maps, self.targets(batch))
            return value

        return self.training_step(forward, batch)

    def mmdet_loss(self, batch: int) -> Step:
        head = mmdet_head()
        instance = importlib.import_module('mmengine.structures').InstanceData
        boxes, labels = (part[:batch] for part in self.boxes)
        objects = [instance(bboxes=box, labels=label) for box, label in zip(boxes, labels)]
        metas = [{'batch_input_shape': (INPUT, INPUT)}] * batch

        def forward(logits: Tensor, offset: Tensor, size: Tensor) -> Tensor:
            terms = head.loss_by_feat([logits.sigmoid()], [size], [offset], objects, metas)
            return torch.stack(list(terms.values())).sum()

        return self.training_step(forward, batch)

    def training_step(self, loss: Callable[..., Tensor], batch: int) -> Step:
        leaves = [part[:batch].clone().requires_grad_() for part in self.maps]
        return with_backward(lambda: loss(*leaves), leaves)

    @functools.cached_property
    def features(self) -> Tensor:
        """What a neck gives to the head."""
        generator = torch.Generator().manual_seed(self.seed)
        shape = (LOSS_BATCH, CHANNELS, CELLS, CELLS)
        return torch.randn(shape, generator=generator).relu().to(self.device)

    @functools.cached_property
    def checkpoint(self) -> dict[str, Tensor]:
        """Weights of both heads."""
        torch.manual_seed(self.seed)
        head = mmdet_head(CHANNELS)
        head.init_weights()
        return dict(head.state_dict())

    def samples(self, batch: int) -> list[Any]:
        """Annotated images as MMDetection's data preprocessor leaves them."""
        sample_type = importlib.import_module('mmdet.structures').DetDataSample
        instance = importlib.import_module('mmengine.structures').InstanceData
        found = []
        for boxes, labels in list(zip(*self.boxes))[:batch]:
            found.append(sample_type(metainfo={'batch_input_shape': (INPUT, INPUT)}))
            found[-1].gt_instances = instance(bboxes=boxes, labels=labels)
        return found

    def our_step(self, batch: int, everywhere: bool = False) -> Step:
        head = self.our_head()
        samples, (features, leaves) = self.samples(batch), self.leaves(head, batch)
        objects, metas = ([each.gt_instances for each in samples], [s.metainfo for s in samples])

        def forward() -> Tensor:
            if everywhere:
                terms = head.loss_by_feat(*head((features,)), objects, metas)
            else:
                terms = head.loss((features,), samples)
            return torch.stack(list(terms.values())).sum()

        return with_backward(forward, leaves)

    def our_head(self) -> Any:
        heads = importlib.import_module('mmloss_plugins.heads')
        head = heads.CenterNetHead(CHANNELS, CHANNELS, CLASSES, radius_impl='mmdet')
        head.load_state_dict(self.checkpoint)
        return head.to(self.device)

    def mmdet_step(self, batch: int) -> Step:
        head = mmdet_head(CHANNELS).to(self.device)
        head.load_state_dict(self.checkpoint)
        samples, (features, leaves) = self.samples(batch), self.leaves(head, batch)

        def forward() -> Tensor:
            return torch.stack(list(head.loss((features,), samples).values())).sum()

        return with_backward(forward, leaves)

    def heatmap_branch(self, batch: int) -> Step:
        """The convolutions that neither side can do without."""
        branch = self.our_head().stacks[0]['heatmap']
        features, leaves = self.leaves(branch, batch)
        return with_backward(lambda: branch(features).sum(), leaves)

    def leaves(self, module: Any, batch: int) -> tuple[Tensor, list[Tensor]]:
        """Return features that need a gradient, and all that gets one."""
        features = self.features[:batch].clone().requires_grad_()
        return features, [features, *module.parameters()]

    def our_boxes(self, batch: int) -> Step:
        functional = importlib.import_module('mmloss_plugins.functional')
        maps = [part[:batch] for part in self.maps]

        def forward() -> Tensor:
            found = functional.decode_centers(*maps, STRIDE, k=TOP_K)
            return found.boxes.mean()

        return Step(forward=forward)

    def mmdet_boxes(self, batch: int) -> Step:
        """From logits as well: MMDetection's forward applies the sigmoid. One image at a time."""
        head = mmdet_head()
        logits, offset, size = (part[:batch] for part in self.maps)
        meta = {'batch_input_shape': (INPUT, INPUT), 'border': [0.0] * 4}

        def forward() -> Tensor:
            maps = [logits.sigmoid()], [size], [offset]
            found = head.predict_by_feat(*maps, [meta] * batch, rescale=False)
            return torch.stack([result.bboxes for result in found]).mean()

        return Step(forward=torch.no_grad()(forward))

    def zeros(self, batch: int) -> Step:
        shape = (batch, CLASSES, CELLS, CELLS)
        return Step(forward=lambda: torch.zeros(shape, device=self.device))

    def clone(self, batch: int) -> Step:
        return Step(forward=self.maps[0][:batch].clone)
