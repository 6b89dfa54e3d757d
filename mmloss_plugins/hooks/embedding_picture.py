"""Draws two-dimensional embeddings while they are trained."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmloss_plugins.errors import message
from mmloss_plugins.registry import HOOKS
from mmloss_plugins.visualization._embedding_panels import render

HOOK = 'EmbeddingPictureHook'


@HOOKS.register_module()
class EmbeddingPictureHook(Hook):
    """Draw the embeddings of the validation set after a validation.

    The picture, a panel of :func:`mmloss_plugins.visualization.draw_embeddings`, goes to the
    runner's visualizer, so to whatever backends it has: files of LocalVisBackend, images of
    TensorBoard. The set is read once more for it, as a validation gives embeddings of length 1
    where the head compares directions. Only the main process draws, of distributed runs its part
    of the set.

    Args:
        interval: validations from one picture to the next; the first one is drawn.
        name: of the pictures; the step is the iteration.

    Raises:
        ValueError: ``interval`` is not a positive integer, or ``name`` cannot be that of a file.
            Before training: another model than ``EmbeddingClassifier``, or embeddings of other
            than two dimensions.

    Example:
        ``custom_hooks = [dict(type='mmloss_plugins.EmbeddingPictureHook', interval=5)]``
    """

    def __init__(self, interval: int = 1, name: str = 'embeddings') -> None:
        if type(interval) is not int or interval < 1:
            step = 'The default suits most runs'
            raise ValueError(message(HOOK, 'interval', 'be a positive integer', interval, step))
        if not name or '/' in name or '\\' in name:
            # LocalVisBackend would write nothing, without a word.
            step = 'Pictures lie side by side in one folder'
            raise ValueError(message(HOOK, 'name', 'be part of a file name', repr(name), step))
        self.interval = interval
        self.name = name
        self._validations = 0

    def before_run(self, runner: Runner) -> None:
        # Brings in every head and with them the hosts, which other hooks can do without.
        from mmloss_plugins.visualization._embedding_run import check_model

        check_model(HOOK, _model_of(runner))

    def after_val_epoch(self, runner: Runner, metrics: Any = None) -> None:
        due = self._validations % self.interval == 0
        self._validations += 1
        if not due or not is_main_process():
            return
        from mmloss_plugins.visualization._embedding_run import collect

        # An iterator over a loader takes a seed from the random numbers of the training.
        with torch.random.fork_rng(devices=[]):
            found = collect(_model_of(runner), runner.val_dataloader)
        picture = render(found, f'iteration {runner.iter}')
        runner.visualizer.add_image(self.name, picture, runner.iter)


def _model_of(runner: Runner) -> Any:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model
