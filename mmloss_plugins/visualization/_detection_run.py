"""A trained MMDetection detector with its val images: what is labelled and what is found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

import numpy as np
import torch
from torch import Tensor

from mmloss_plugins.errors import message
from mmloss_plugins.visualization._run import (
    WHAT,
    check_checkpoint,
    check_data,
    find_run,
    import_host,
    load_weights,
    quiet,
    read_config,
)
from mmloss_plugins.visualization.heatmap_panels import evenly

# A work folder, or a config (file name or loaded) and a checkpoint.
Run = Union[str, Path, tuple[Any, Union[str, Path]]]
IOU_THR = 0.5
SIDES = ('top', 'left', 'bottom', 'right')


@dataclass(frozen=True)
class Detections:
    """One val image with its labelled objects and with what a detector found there.

    Boxes are x1, y1, x2, y2 in px of the image; pixel i covers [i, i + 1).

    Attributes:
        name: file name of the image.
        image: shape (H, W, 3), RGB, uint8.
        truth: boxes of the N labelled objects, shape (N, 4).
        truth_labels: their classes, shape (N,).
        ignored: boxes of regions that do not count, shape (I, 4).
        ignored_labels: their classes, shape (I,).
        boxes: of the M detections, best first, shape (M, 4).
        labels: their classes, shape (M,).
        scores: shape (M,).
        extreme_points: x and y of the top, left, bottom and right one, shape (M, 4, 2); None if
            the head finds none.
    """

    name: str
    image: np.ndarray
    truth: np.ndarray
    truth_labels: np.ndarray
    ignored: np.ndarray
    ignored_labels: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    extreme_points: np.ndarray | None = None

    def match(self, iou_thr: float = IOU_THR) -> Matches:
        """Return which detections are right and which objects are found, as COCO counts it.

        Best detections first, each takes the object of its class with the largest IoU that is
        still free, of at least ``iou_thr``. One that is left over and lies in a region to ignore,
        with at least ``iou_thr`` of its area, is neither right nor wrong.
        """
        right, wrong = np.zeros((2, len(self.boxes)), dtype=bool)
        found = np.zeros(len(self.truth), dtype=bool)
        overlaps = overlap(self.boxes, self.truth)
        # Of its own area, as COCO has it for crowds.
        covered = overlap(self.boxes, self.ignored, of_first=True)
        for index in np.argsort(-self.scores, kind='stable'):
            free = np.where((self.truth_labels == self.labels[index]) & ~found, overlaps[index], -1)
            if free.size and free.max() >= iou_thr:
                found[free.argmax()] = right[index] = True
                continue
            same = self.ignored_labels == self.labels[index]
            wrong[index] = not (covered[index][same] >= iou_thr).any()
        return Matches(right, wrong, found)


@dataclass(frozen=True)
class Matches:
    """Which of M detections are right or wrong, shapes (M,), and of N objects found, (N,)."""

    right: np.ndarray
    wrong: np.ndarray
    found: np.ndarray


@dataclass(frozen=True)
class PeakMaps:
    """Heatmaps of one image, the largest of all classes in each cell.

    Attributes:
        maps: probabilities (h, w) by name: 'center', for ExtremeNet also the four sides.
        edges: left, top, right, bottom of the maps in px of the image, over which they may reach.
    """

    maps: dict[str, np.ndarray]
    edges: tuple[float, float, float, float]


class DetectionRun:
    """A config and a checkpoint, ready to find objects in the config's val set.

    Args:
        run: work folder with a config and its last checkpoint, or the two, of any MMDetection
            model that finds boxes.
        device: where the model runs.
        cfg_options: settings that replace those of the config.

    Raises:
        FileNotFoundError: the config, the checkpoint or the data set is missing.
        ModuleNotFoundError: MMDetection is not installed.
        ValueError: not a config of MMDetection, or a checkpoint of another model.
    """

    def __init__(
        self, run: Run, device: str = 'cpu', cfg_options: Mapping[str, Any] | None = None
    ) -> None:
        import_host('mmdet', 'run a detector')
        config, checkpoint = run if isinstance(run, tuple) else find_run(run)
        self.config = check_detector(read_config(config))
        self.config.merge_from_dict(dict(cfg_options or {}))
        self.checkpoint = check_checkpoint(checkpoint)
        check_data(self.config)
        self.model = _build_model(self.config, self.checkpoint, device)
        self.dataset = _build_dataset(self.config)
        self.classes = tuple(self.dataset.metainfo['classes'])

    @property
    def name(self) -> str:
        """Name of the config, without its folder."""
        return Path(self.config.filename or 'model').stem

    @property
    def title(self) -> str:
        """Names of the config and the checkpoint."""
        return f'{self.name}, {Path(self.checkpoint).name}'

    def image_name(self, index: int) -> str:
        """Return the file name of a val image."""
        return Path(self.dataset.get_data_info(index)['img_path']).name

    def spread(self, num: int) -> list[int]:
        """Return the indices of ``num`` images with objects, evenly spaced over the val set.

        Raises:
            ValueError: ``num`` is not positive, or no image has an object.
        """
        if num < 1:
            raise ValueError(message(WHAT, 'num', 'be at least 1', num, 'Ask for one image'))
        labelled = np.flatnonzero(self._counts())
        return labelled[evenly(num, len(labelled))].tolist()

    def typical(self) -> int:
        """Return the index of the first image with as many objects as the median one has."""
        counts = self._counts()
        median = np.median(counts[counts > 0])
        return int(np.argmin(np.abs(counts - median)))

    def check_indices(self, indices: Sequence[int]) -> list[int]:
        """Return ``indices`` of val images as a list.

        Raises:
            ValueError: there is none, or no such image.
        """
        for index in indices:
            if not 0 <= index < len(self.dataset):
                rule = f'be from 0 to {len(self.dataset) - 1}'
                step = 'Take images of the val set'
                raise ValueError(message(WHAT, 'indices', rule, index, step))
        if not indices:
            step = 'Leave them out for images that are evenly spaced over the val set'
            raise ValueError(message(WHAT, 'indices', 'be at least one', 'none', step))
        return list(indices)

    def predict(self, index: int, score_thr: float) -> Detections:
        """Return a val image with the detections above ``score_thr``, as in ``mim test``.

        Raises:
            ValueError: the model finds no boxes, or of classes that the val set does not have.
        """
        import mmcv

        (result,) = self.model.test_step(self._batch(index))
        found = getattr(result, 'pred_instances', None)
        if found is None or not {'bboxes', 'labels', 'scores'} <= set(found.keys()):
            step = 'Pass a model that finds boxes'
            raise ValueError(message(WHAT, 'the model', 'find boxes', type(result).__name__, step))
        found = found[found.scores > score_thr]
        found = found[found.scores.argsort(descending=True, stable=True)].cpu().numpy()
        if len(found) and found.labels.max() >= len(self.classes):
            rule = f'be that of the val set, {len(self.classes)}'
            step = 'Pass the config that the model had'
            got = f'the class {found.labels.max()} of a detection'
            raise ValueError(message(WHAT, 'num_classes', rule, got, step))
        path, *truth = self._truth(index)
        return Detections(
            Path(path).name,
            np.ascontiguousarray(mmcv.imread(path)[..., ::-1]),
            *truth,
            np.asarray(found.bboxes, dtype=np.float64).reshape(-1, 4),
            np.asarray(found.labels),
            np.asarray(found.scores, dtype=np.float64),
            found.get('extreme_points'),
        )

    def peak_maps(self, index: int) -> PeakMaps | None:
        """Return the heatmaps of a val image, no flip test; None if the head has none."""
        head = getattr(self.model, 'bbox_head', None)
        if head is None:
            return None
        with torch.no_grad():
            data = self.model.data_preprocessor(self._batch(index), False)
            outputs = head(self.model.extract_feat(data['inputs']))
        maps = _find_maps(outputs, head)
        if not maps:
            return None
        largest = {name: value[0].float().amax(0).cpu().numpy() for name, value in maps.items()}
        size = data['inputs'].shape[-2:]
        edges = image_edges(data['data_samples'][0].metainfo, size)
        return PeakMaps(largest, edges)

    def _batch(self, index: int) -> dict:
        from mmengine.dataset import pseudo_collate

        return pseudo_collate([self.dataset[index]])

    def _counts(self) -> np.ndarray:
        counts = np.array([len(self._truth(index)[1]) for index in range(len(self.dataset))])
        if counts.any():
            return counts
        got = f'{len(counts)} images without one'
        step = 'Name another annotation file, and the classes that are in it'
        raise ValueError(message(WHAT, 'val_dataloader.dataset', 'hold an object', got, step))

    def _truth(self, index: int) -> tuple[str, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return path, objects, classes, and regions to ignore with theirs, in px of the image.

        As annotated: pipelines load the annotations before they resize the image, or after.
        """
        info = self.dataset.get_data_info(index)
        found = info['instances']
        boxes = np.array([each['bbox'] for each in found], dtype=np.float64).reshape(-1, 4)
        labels = np.array([each['bbox_label'] for each in found], dtype=int)
        ignored = np.array([each.get('ignore_flag', 0) for each in found], dtype=bool)
        return info['img_path'], boxes[~ignored], labels[~ignored], boxes[ignored], labels[ignored]


def is_detector(config: Any) -> bool:
    """Return whether ``config`` is one of MMDetection."""
    return config.get('default_scope') == 'mmdet'


def check_detector(config: Any) -> Any:
    """Return ``config``.

    Raises:
        ValueError: not one of MMDetection.
    """
    loader = config.get('val_dataloader')
    if not is_detector(config):
        got = f'default_scope={config.get("default_scope")!r}'
    elif not config.get('model'):
        got = 'no model'
    elif not loader or not loader.get('dataset'):
        got = 'no val_dataloader'
    else:
        return config
    rule = 'be that of an MMDetection model with a val set'
    step = 'Pass the config of a detector; a pose model is drawn without the word before it'
    raise ValueError(message(WHAT, 'config', rule, got, step))


def overlap(boxes: np.ndarray, others: np.ndarray, of_first: bool = False) -> np.ndarray:
    """Return the IoU of boxes (M, 4) and others (N, 4), or the share of the first; (M, N)."""
    low = np.maximum(boxes[:, None, :2], others[:, :2])
    high = np.minimum(boxes[:, None, 2:], others[:, 2:])
    common = (high - low).clip(min=0).prod(-1)
    area = (boxes[:, 2:] - boxes[:, :2]).clip(min=0).prod(-1)[:, None]
    whole = area if of_first else area + (others[:, 2:] - others[:, :2]).prod(-1) - common
    return common / np.where(whole > 0, whole, 1)


def image_edges(
    meta: Mapping[str, Any], input_size_hw: Sequence[int]
) -> tuple[float, float, float, float]:
    """Return left, top, right, bottom of a network's input in px of the image.

    Args:
        meta: of the sample: how the image was resized (``scale_factor``, x and y) and then placed
            on a larger canvas (``border``: first and last row, first and last column); padding at
            the right and below needs no entry.
        input_size_hw: H, W of the input.
    """
    top, _, left, _ = meta.get('border', (0, 0, 0, 0))
    across, down = meta.get('scale_factor', (1, 1))[:2]
    height, width = input_size_hw
    return (
        float(-left / across),
        float(-top / down),
        float((width - left) / across),
        float((height - top) / down),
    )


def _find_maps(outputs: Any, head: Any) -> dict[str, Tensor]:
    """Return probabilities (B, C, h, w) by name, of the last stack; none of other heads."""
    first = outputs[0] if isinstance(outputs, (tuple, list)) and outputs else None
    last = first[-1] if isinstance(first, (tuple, list)) and first else None
    if isinstance(last, Mapping) and 'heatmap' in last:
        return dict(center=last['heatmap'].sigmoid())
    if isinstance(last, Mapping) and {*SIDES, 'center'} <= last.keys():
        return {name: last[name]['heatmap'].sigmoid() for name in (*SIDES, 'center')}
    # MMDetection's CenterNetHead returns probabilities.
    if isinstance(last, Tensor) and hasattr(head, 'heatmap_head'):
        return dict(center=last)
    return {}


def _build_model(config: Any, checkpoint: str, device: str) -> Any:
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules
    from mmengine.model import revert_sync_batchnorm

    with quiet():
        register_all_modules(init_default_scope=True)
        model = revert_sync_batchnorm(MODELS.build(config.model))
    load_weights(model, checkpoint)
    return model.to(device).eval()


def _build_dataset(config: Any) -> Any:
    from mmdet.registry import DATASETS

    with quiet():
        return DATASETS.build(dict(config.val_dataloader.dataset, test_mode=True))
