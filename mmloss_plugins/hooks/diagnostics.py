"""Logs what a loss says about itself, such as ``simcc_ratio``."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from mmloss_plugins.errors import message
from mmloss_plugins.registry import HOOKS


@HOOKS.register_module()
class LossDiagnosticsHook(Hook):
    """Log the ``diagnostics`` of every loss in the model, without adding to the total loss.

    Every ``interval`` training iterations the losses that have a ``diagnostics`` method are asked
    for it with the arguments of their ``forward``; the values go to MMEngine's log under
    ``train/NAME``. MMEngine sums every key that contains "loss", so none of them does.

    Args:
        interval: iterations between two readings, each of which costs one more evaluation of
            the loss and a host-device sync. Give it the value of the LoggerHook.

    Raises:
        ValueError: ``interval`` is not a positive integer.
    """

    priority = 'NORMAL'

    def __init__(self, interval: int = 10) -> None:
        if not isinstance(interval, int) or interval < 1:
            raise ValueError(
                message(
                    'LossDiagnosticsHook',
                    'interval',
                    'be a positive integer',
                    repr(interval),
                    'Give it the interval of the LoggerHook',
                )
            )
        self.interval = interval
        self._due = False
        self._values: dict[str, Tensor] = {}

    def before_train(self, runner: Runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        for module in model.modules():
            if hasattr(module, 'diagnostics'):
                module.register_forward_hook(self._read, with_kwargs=True)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        self._due = self.every_n_train_iters(runner, self.interval)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        for name, value in self._values.items():
            runner.message_hub.update_scalar(f'train/{name}', value)
        self._values.clear()

    def _read(self, module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        if self._due and torch.is_grad_enabled():
            self._values.update(module.diagnostics(*args, **kwargs))
