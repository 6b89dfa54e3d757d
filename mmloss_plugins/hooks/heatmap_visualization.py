"""Draws what a DSNT head has learned while it trains: its heatmaps with mean and spread."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmloss_plugins.errors import message
from mmloss_plugins.registry import HOOKS
from mmloss_plugins.visualization.heatmap_panels import (
    Keypoints,
    choose_keypoints,
    evenly,
    heatmaps_of,
    make_panels,
    render,
)

HOOK = 'HeatmapVisualizationHook'
NUM_KEYPOINTS = 4


@HOOKS.register_module()
class HeatmapVisualizationHook(Hook):
    """Draw normalised heatmaps with their mean and covariance ellipses at validation.

    One picture per image goes to the runner's visualizer, so to whatever backends it has: files
    of LocalVisBackend, images of TensorBoard. It shows a few keypoints over what the network got:
    the cells of the map (bright: its peak), the mean (cross), the ellipses of its covariance
    (lines), the label (green circle) if there is one, and above it the spread
    sqrt(trace(covariance) / 2) in px of the map. Images and keypoints stay the same, so that the
    steps of a training can be compared; a validation set that is shuffled defeats that.

    The head has to give heatmaps that sum to 1: ours, or MMPose's DSNTHead and
    IntegralRegressionHead. The hook switches ``model.test_cfg.output_heatmaps`` on for the batches
    that it draws, and with a flip test draws the average map that is decoded. Without such maps it
    says so once and draws nothing. Only the main process draws.

    Args:
        interval: validations from one drawing to the next; the first one is drawn.
        num_images: how many, evenly spaced over the validation set.
        keypoints: names or indices; four evenly spaced ones if not given.
        sigmas: standard deviations at which an ellipse is drawn.
        name: of the pictures, which are ``{name}_0``, ``{name}_1``, ...; the step is the iteration.

    Raises:
        ValueError: ``interval`` or ``num_images`` is not a positive integer, ``sigmas`` are not
            positive, ``keypoints`` is empty, or ``name`` cannot be that of a file. When training
            or validation begins: the data set has no such keypoint.

    Example:
        ``custom_hooks = [dict(type='mmloss_plugins.HeatmapVisualizationHook', num_images=2)]``
    """

    priority = 'NORMAL'

    def __init__(
        self,
        interval: int = 1,
        num_images: int = 4,
        keypoints: Keypoints | None = None,
        sigmas: Sequence[float] = (1, 2),
        name: str = 'heatmaps',
    ) -> None:
        for argument, value in (('interval', interval), ('num_images', num_images)):
            if not isinstance(value, int) or value < 1:
                step = 'The default suits most runs'
                raise ValueError(
                    message(HOOK, argument, 'be a positive integer', repr(value), step)
                )
        if isinstance(keypoints, str) or (keypoints is not None and len(keypoints) == 0):
            step = 'Give a list of names or indices, or leave it out'
            raise ValueError(message(HOOK, 'keypoints', 'be a list', repr(keypoints), step))
        if any(sigma <= 0 for sigma in sigmas):
            step = 'An empty list draws no ellipse'
            raise ValueError(message(HOOK, 'sigmas', 'be positive', tuple(sigmas), step))
        if not name or '/' in name or '\\' in name:
            # LocalVisBackend would write nothing, without a word.
            step = 'Pictures lie side by side in one folder'
            raise ValueError(message(HOOK, 'name', 'be part of a file name', repr(name), step))
        self.interval = interval
        self.num_images = num_images
        self.keypoints = keypoints
        self.sigmas = tuple(sigmas)
        self.name = name
        self._validations = 0
        self._chosen: list[int] = []
        self._due: list[tuple[int, int]] = []
        self._warned = False

    def before_train(self, runner: Runner) -> None:
        if runner.val_loop is None:
            step = 'Give the config a val_dataloader, val_cfg and val_evaluator'
            self._warn(runner, message(HOOK, 'the run', 'have a validation', 'none', step))
        else:
            self._check_keypoints(runner)

    def before_val(self, runner: Runner) -> None:
        draws = self._validations % self.interval == 0 and is_main_process()
        self._validations += 1
        self._seen = 0
        self._chosen = []
        if draws:
            self._check_keypoints(runner)
            self._chosen = evenly(self.num_images, _num_samples(runner.val_loop.dataloader))

    def before_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        first, self._seen = self._seen, self._seen + len(data_batch['inputs'])
        self._due = [
            (number, index - first)
            for number, index in enumerate(self._chosen)
            if first <= index < self._seen
        ]
        if not self._due:
            return
        self._test_cfg = _test_cfg_of(runner)
        self._before = self._test_cfg.get('output_heatmaps', False)
        self._test_cfg['output_heatmaps'] = True

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if not self._due:
            return
        self._test_cfg['output_heatmaps'] = self._before
        names = _names_of(runner)
        for number, place in self._due:
            result = outputs[place]
            try:
                total = len(heatmaps_of(result))
            except ValueError as error:
                self._chosen = []
                self._warn(runner, f'{HOOK} draws nothing. {error}')
                return
            names = names if len(names) == total else {}
            keypoints = choose_keypoints(self.keypoints or NUM_KEYPOINTS, total, names)
            panels = make_panels(result, data_batch['inputs'][place], keypoints, names)
            picture = render(panels, self.sigmas)
            runner.visualizer.add_image(f'{self.name}_{number}', picture, runner.iter)

    def _check_keypoints(self, runner: Runner) -> None:
        """Refuse unknown keypoints before the first iteration, not after the first epoch."""
        names = _names_of(runner)
        if names and self.keypoints is not None:
            choose_keypoints(self.keypoints, len(names), names)

    def _warn(self, runner: Runner, text: str) -> None:
        if not self._warned and is_main_process():
            runner.logger.warning(text)
        self._warned = True


def _num_samples(dataloader: Any) -> int:
    """Return how many samples this process gets."""
    return len(dataloader.sampler if hasattr(dataloader, 'sampler') else dataloader.dataset)


def _names_of(runner: Runner) -> Mapping[int, str]:
    meta = getattr(runner.val_loop.dataloader.dataset, 'metainfo', None) or {}
    return meta.get('keypoint_id2name') or {}


def _test_cfg_of(runner: Runner) -> MutableMapping[str, Any]:
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    test_cfg = getattr(model, 'test_cfg', None)
    # Of a model that never asks for it: the maps will not be there, which is said then.
    return {} if test_cfg is None else test_cfg
