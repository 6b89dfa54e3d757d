"""CenterNet beside MMDetection's CenterNetHead: targets, the loss on given maps, decoding."""

from __future__ import annotations

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
TOP_K = 100
OURS, PEER = 'ours', 'MMDet'
HEATMAP_FLOOR = {
    'targets': 'floor: zeros of the heatmaps',
    'loss': 'floor: clone of the heatmaps',
    'decode': 'floor: clone of the heatmaps',
}


def make_rows(device: torch.device, seed: int) -> list[Row]:
    """Return the rows of this family. On a GPU MMDetection's loop over the boxes waits for it."""
    scene = LazyScene(device, seed)
    return [
        make_row('targets', BATCH, scene.our_targets, scene.mmdet_targets, scene.zeros, 40),
        make_row('loss', LOSS_BATCH, scene.our_loss, scene.mmdet_loss, scene.clone, 3),
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


def mmdet_head() -> Any:
    """Return MMDetection's head; its convolutions are not run."""
    config = importlib.import_module('mmengine.config').ConfigDict
    scope = importlib.import_module('mmengine.registry').DefaultScope
    heads = importlib.import_module('mmdet.models.dense_heads')
    test_cfg = config(topk=TOP_K, local_maximum_kernel=3, max_per_img=TOP_K)
    with scope.overwrite_default_scope('mmdet'):
        return heads.CenterNetHead(4, 4, CLASSES, test_cfg=test_cfg)


def sample(heatmap: Tensor) -> Tensor:
    """Return a sum over some cells: enough to compare, and cheap beside the targets."""
    return heatmap.view(-1)[::1009].sum()


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

        def drop_gradients() -> None:
            for leaf in leaves:
                leaf.grad = None

        return Step(
            forward=lambda: loss(*leaves),
            backward=lambda value: value.backward(),
            reset=drop_gradients,
        )

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
