"""A trained top-down pose model with its val images: what is labelled and what is predicted."""

from __future__ import annotations

import copy
import importlib
import re
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from mmloss_plugins.errors import message

WHAT = 'visualization'
# Of checkpoints that were saved from a distributed model.
STRIPPED = (r'^module\.', '')


@dataclass(frozen=True)
class Sample:
    """One labelled instance of the val set and its prediction, in px of the image.

    Attributes:
        name: file name of the image.
        image: shape (H, W, 3), RGB, uint8.
        bbox: x1, y1, x2, y2.
        labels: shape (K, 2).
        visibility: shape (K,); 0 not labelled, 1 labelled but occluded, 2 visible.
        keypoints: predictions, shape (K, 2).
        scores: of the predictions, shape (K,).
    """

    name: str
    image: np.ndarray
    bbox: np.ndarray
    labels: np.ndarray
    visibility: np.ndarray
    keypoints: np.ndarray
    scores: np.ndarray

    @property
    def labelled(self) -> np.ndarray:
        """Which keypoints have a label, shape (K,), bool."""
        return self.visibility > 0

    def errors(self) -> np.ndarray:
        """Return distances over the longer side of the box, shape (K,); NaN without a label."""
        side = (self.bbox[2:] - self.bbox[:2]).max()
        errors = np.linalg.norm(self.keypoints - self.labels, axis=-1) / side
        return np.where(self.labelled, errors, np.nan)

    def pck(self, thr: float = 0.05) -> float:
        """Return the share of labelled keypoints that are nearer than ``thr`` box sides, 0 to 1.

        The same as MMPose's ``PCKAccuracy(thr, norm_item='bbox')`` on this instance alone.
        """
        errors = self.errors()[self.labelled]
        return float((errors < thr).mean()) if errors.size else float('nan')


class PoseRun:
    """A config and a checkpoint, ready to predict instances of the config's val set.

    Args:
        config: file name or loaded config of any top-down MMPose model.
        checkpoint: file name or URL of its weights.
        device: where the model runs.

    Raises:
        FileNotFoundError: the config, the checkpoint or the data set is missing.
        ValueError: not a top-down MMPose config, or a checkpoint of another model.
    """

    def __init__(self, config: Any, checkpoint: str | Path, device: str = 'cpu') -> None:
        import_host('mmpose', 'run a pose model')
        self.config = load_config(config)
        self.checkpoint = check_checkpoint(checkpoint)
        check_data(self.config)
        self.model = _load_model(self.config, self.checkpoint, device)
        self.dataset = _build_dataset(self.config)
        self.meta = self.dataset.metainfo

    def spread(self, num: int) -> list[int]:
        """Return the indices of ``num`` labelled instances, evenly spaced over the val set.

        Raises:
            ValueError: ``num`` is not positive, or no instance has a labelled keypoint.
        """
        if num < 1:
            raise ValueError(message(WHAT, 'num', 'be at least 1', num, 'Ask for one image'))
        labelled = [index for index in range(len(self.dataset)) if self._is_labelled(index)]
        if not labelled:
            raise ValueError(
                message(
                    WHAT,
                    'val_dataloader.dataset',
                    'hold an instance with a labelled keypoint',
                    f'{len(self.dataset)} instances without one',
                    'Name another annotation file',
                )
            )
        places = np.linspace(0, len(labelled) - 1, min(num, len(labelled)))
        return [labelled[place] for place in places.round().astype(int)]

    def predict(self, indices: Iterable[int]) -> list[Sample]:
        """Return the instances with what the model predicts for them, as in ``mim test``."""
        samples = []
        for batch in self.batches(indices):
            for result in self.model.test_step(batch):
                keypoints = result.pred_instances.keypoints[0]
                scores = result.pred_instances.keypoint_scores[0]
                samples.append(make_sample(result, keypoints, scores))
        return samples

    def batches(self, indices: Iterable[int], size: int = 32) -> Iterator[dict]:
        """Yield the instances as the batches of a data loader, ``size`` at a time."""
        from mmengine.dataset import pseudo_collate

        indices = list(indices)
        for start in range(0, len(indices), size):
            yield pseudo_collate([self.dataset[index] for index in indices[start : start + size]])

    def _is_labelled(self, index: int) -> bool:
        return bool(np.any(self.dataset.get_data_info(index)['keypoints_visible'] > 0))


def make_sample(result: Any, keypoints: np.ndarray, scores: np.ndarray) -> Sample:
    """Return one ``PoseDataSample`` as a :class:`Sample`.

    Raises:
        ValueError: ``keypoints`` (K, 2) has another K than the labels.
    """
    import mmcv

    labels = np.asarray(result.gt_instances.keypoints[0], dtype=np.float64)
    if keypoints.shape[:1] != labels.shape[:1]:
        raise ValueError(
            message(
                WHAT,
                'the head',
                f'predict the {len(labels)} keypoints of the val set',
                len(keypoints),
                "Set the head's out_channels, or name a val set of that many keypoints",
            )
        )
    return Sample(
        name=Path(result.img_path).name,
        image=np.ascontiguousarray(mmcv.imread(result.img_path)[..., ::-1]),
        bbox=np.asarray(result.gt_instances.bboxes[0], dtype=np.float64),
        labels=labels[:, :2],
        visibility=_visibility(result),
        keypoints=np.asarray(keypoints, dtype=np.float64)[:, :2],
        scores=np.asarray(scores, dtype=np.float64),
    )


def read_config(config: Any) -> Any:
    """Return a copy of ``config``, read from a file if it is a name.

    Raises:
        FileNotFoundError: there is no such file.
    """
    from mmengine.config import Config

    if isinstance(config, (str, Path)):
        if not Path(config).is_file():
            next_step = 'Name the config of the model, for example the copy in its work folder'
            raise FileNotFoundError(
                message(WHAT, 'config', 'be a file', repr(str(config)), next_step)
            )
        config = Config.fromfile(config)
    # MMPose's init_model changes the config that it gets.
    return copy.deepcopy(config)


def load_config(config: Any) -> Any:
    """Return a copy of ``config``, read from a file if it is a name.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a config of a top-down MMPose model.
    """
    config = read_config(config)
    dataset = config.get('val_dataloader') and config.val_dataloader.get('dataset')
    mode = dataset and dataset.get('data_mode', 'topdown')
    if config.get('default_scope', 'mmpose') != 'mmpose':
        got = f'default_scope={config.default_scope!r}'
    elif not config.get('model') or 'head' not in config.model:
        got = 'no model with a head'
    elif not dataset:
        got = 'no val_dataloader'
    elif mode != 'topdown':
        got = f'data_mode={mode!r}'
    else:
        return config
    rule = 'be that of a top-down MMPose model with a val set'
    raise ValueError(message(WHAT, 'config', rule, got, 'Pass the config that the model had'))


def check_checkpoint(checkpoint: str | Path) -> str:
    """Return ``checkpoint`` as text.

    Raises:
        FileNotFoundError: it is no URL and there is no such file.
    """
    name = str(checkpoint)
    if '://' in name or Path(name).is_file():
        return name
    folder = Path(name).parent
    found = sorted(path.name for path in folder.glob('*.pth')) if folder.is_dir() else []
    next_step = f'In that folder: {", ".join(found)}' if found else 'Train the config first'
    raise FileNotFoundError(message(WHAT, 'checkpoint', 'be a file', repr(name), next_step))


def find_run(work_dir: str | Path) -> tuple[Path, Path]:
    """Return the config and the last checkpoint in the work folder of a run.

    Raises:
        FileNotFoundError: there is no config, more than one, or no checkpoint.
    """
    folder = Path(work_dir)
    configs = sorted(folder.glob('*.py'))
    if len(configs) != 1:
        got = f'{len(configs)} in {str(folder)!r}'
        step = 'Name the work folder of a run'
        raise FileNotFoundError(message(WHAT, 'work_dir', 'hold one config, *.py', got, step))
    last = folder / 'last_checkpoint'
    if not last.is_file():
        step = 'Train the config first'
        got = repr(str(folder))
        raise FileNotFoundError(message(WHAT, 'work_dir', 'hold last_checkpoint', got, step))
    # The name alone: the folder may have been moved.
    return configs[0], folder / Path(last.read_text().strip()).name


def import_host(name: str, purpose: str) -> None:
    """Import MMPose or MMDetection.

    Raises:
        ModuleNotFoundError: it is not installed; says what to do.
    """
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        next_step = 'Install it, or see: python -m mmloss_plugins doctor'
        raise ModuleNotFoundError(
            message(WHAT, name, f'be installed to {purpose}', 'none', next_step), name=name
        ) from error


def check_data(config: Any) -> None:
    """Refuse a config whose annotations of the val set are not there.

    Raises:
        FileNotFoundError: says how to get them, if a hook of the config knows.
    """
    dataset = config.val_dataloader.dataset
    if 'ann_file' not in dataset:
        return
    # As MMEngine joins them; mmengine.fileio knows remote paths, which are left to it.
    path = Path(dataset.get('data_root') or '', dataset.ann_file)
    if '://' in str(dataset.get('data_root')) or path.is_file():
        return
    hooks = [hook for hook in config.get('custom_hooks') or [] if 'next_step' in hook]
    next_step = hooks[0]['next_step'] if hooks else 'Set val_dataloader.dataset.data_root'
    raise FileNotFoundError(
        message(WHAT, 'val_dataloader.dataset.ann_file', 'be a file', repr(str(path)), next_step)
    )


def _load_model(config: Any, checkpoint: str, device: str) -> Any:
    from mmpose.apis import init_model

    with quiet():
        model = init_model(config, device=device)
    load_weights(model, checkpoint)
    return model


def load_weights(model: Any, checkpoint: str) -> None:
    """Load the weights of a checkpoint, or refuse it if they do not fit.

    MMEngine only prints what does not fit, and a picture would show random weights.

    Raises:
        ValueError: a weight of the model is missing or of another shape, or a head has more.
    """
    from mmengine.runner import CheckpointLoader

    import mmloss_plugins.compat  # noqa: F401  (torch >= 2.6 refuses MMEngine's checkpoints)

    with quiet():
        loaded = CheckpointLoader.load_checkpoint(checkpoint, 'cpu', logger='silent')
    loaded = loaded.get('state_dict', loaded)
    weights = OrderedDict((re.sub(*STRIPPED, name), value) for name, value in loaded.items())
    # Versions, by which modules load what older ones have saved.
    weights._metadata = getattr(loaded, '_metadata', OrderedDict())
    try:
        missing, unknown = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        unfit = re.findall(r'size mismatch for (\S+):', str(error))
        if not unfit:
            raise
    else:
        unfit = [name for name in missing if not name.endswith('num_batches_tracked')]
        # A heatmap head can be a part of a SimCC head; losses may have weights of their own.
        unfit += [name for name in unknown if 'head.' in name and 'loss' not in name]
    if not unfit:
        return
    got = f'{checkpoint!r}, in which {len(unfit)} do not fit, such as {unfit[0]}'
    rule = f'hold the {len(model.state_dict())} weights of the model'
    next_step = 'Pass the config that this checkpoint was trained with'
    raise ValueError(message(WHAT, 'checkpoint', rule, got, next_step))


def _build_dataset(config: Any) -> Any:
    from mmpose.registry import DATASETS

    options = dict(config.val_dataloader.dataset, test_mode=True)
    # Boxes of a detector come without labels to compare with: take the labelled boxes.
    options.pop('bbox_file', None)
    options.pop('filter_cfg', None)
    with quiet():
        dataset = DATASETS.build(options)
    # Labels in px of the input, as the pipeline has transformed them; see simcc._in_input.
    dataset.pipeline.transforms[-1].pack_transformed = True
    return dataset


@contextmanager
def quiet() -> Iterator[None]:
    """Keep pycocotools' prints and MMPose's warning that it found its own metainfo to itself."""
    with redirect_stdout(StringIO()), warnings.catch_warnings():
        warnings.simplefilter('ignore', UserWarning)
        yield


def _visibility(result: Any) -> np.ndarray:
    """Return COCO's flags of the annotation, or 0 and 2 for data sets that have none."""
    visible = np.asarray(result.gt_instances.keypoints_visible[0], dtype=np.float64)
    visible = visible[:, 0] if visible.ndim == 2 else visible
    flags: Sequence[float] = (result.get('raw_ann_info') or {}).get('keypoints', ())
    if len(flags) == 3 * len(visible):
        return np.where(visible > 0, np.maximum(flags[2::3], 1), 0).astype(int)
    return np.where(visible > 0, 2, 0)
