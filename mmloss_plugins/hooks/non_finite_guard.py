"""Stops a run, or leaves out an update, at a loss or gradient that is not finite."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from mmengine.hooks import CheckpointHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from mmloss_plugins.errors import check_choice, message
from mmloss_plugins.hooks._guarded_updates import GuardedUpdates, largest, optim_wrappers
from mmloss_plugins.hooks._non_finite_report import (
    HOOK,
    Reading,
    describe,
    describe_state,
    image_paths,
    read,
    stop_all_ranks,
)
from mmloss_plugins.registry import HOOKS


@HOOKS.register_module()
class NonFiniteGuardHook(Hook):
    """Name the loss term, the parameters and the images behind the first NaN or inf.

    Each iteration keeps, on the device, the value of each loss term and the largest gradient of
    each parameter. They are read back, together with the parameters and buffers, every
    ``interval`` iterations and before each checkpoint and validation, so that nothing broken is
    saved. A gradient counts although its loss is finite. All ranks decide alike.

    Args:
        interval: iterations between two checks, each of which is a host-device sync.
        action: 'stop' raises at the check. 'skip' leaves out the update of parameters and
            optimizer state and logs how many so far as ``train/skipped_updates``. It has to know
            before each update: a fused Adam or AdamW decides on the device; any other optimizer
            costs one sync per update, as with PyTorch's GradScaler.
        max_in_a_row: with 'skip', the most updates left out one after the other before the run
            stops. AmpOptimWrapper leaves out updates by itself while it searches for its loss
            scale: there non-finite gradients are let pass that often, with either action.

    Raises:
        ValueError: ``interval`` or ``max_in_a_row`` is not a positive integer, or ``action`` is
            unknown.
        FloatingPointError: from the training loop, as described; also where a parameter, or a
            buffer that was finite when training began, is not finite.

    Example:
        ``custom_hooks = [dict(type='mmloss_plugins.NonFiniteGuardHook', action='skip')]``
    """

    priority = 'ABOVE_NORMAL'  # EMAHook and CheckpointHook come later

    def __init__(self, interval: int = 50, action: str = 'stop', max_in_a_row: int = 20) -> None:
        for name, value in (('interval', interval), ('max_in_a_row', max_in_a_row)):
            if not isinstance(value, int) or value < 1:
                step = 'The default suits most runs'
                raise ValueError(message(HOOK, name, 'be a positive integer', repr(value), step))
        check_choice(HOOK, 'action', action, ('stop', 'skip'))
        self.interval = interval
        self.action = action
        self.max_in_a_row = max_in_a_row

    def before_train(self, runner: Runner) -> None:
        self._model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self._readings: list[Reading] = []
        self._left_out: list[Tensor] = []
        self._modules: dict[str, Tensor] = {}
        self._images: list[str] = []
        self._images_since_update: list[str] = []
        self._in_a_row = self._skipped = 0
        self._check_first_state()

        def report(names: list[str], values: Tensor, left_out: Tensor, scaled: bool) -> None:
            images, self._images_since_update = self._images_since_update, []
            self._readings.append(Reading(runner.iter + 1, images, names, values, True, scaled))
            self._left_out.append(left_out)

        names = {id(p): name for name, p in self._model.named_parameters()}
        self._updates = [
            GuardedUpdates(wrapper, names, self.action == 'skip', report)
            for wrapper in optim_wrappers(runner.optim_wrapper)
        ]
        self._handles = [
            module.register_forward_hook(partial(self._keep_output, name))
            for name, module in self._model.named_modules()
            if 'loss' in type(module).__name__.lower()
        ]

    def after_train(self, runner: Runner) -> None:
        for updates in self._updates:
            updates.release()
        for handle in self._handles:
            handle.remove()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        self._images = image_paths(data_batch)
        self._images_since_update = self._images_since_update + self._images

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        terms = {k: v for k, v in (outputs or {}).items() if 'loss' in k and torch.is_tensor(v)}
        modules, self._modules = self._modules, {}
        if terms:
            values = largest([*terms.values(), *modules.values()])
            reading = Reading(runner.iter + 1, self._images, list(terms), values)
            reading.modules = list(modules)
            self._readings.append(reading)
        if self._is_due(runner):
            self._check(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        self._check(runner)

    def before_val(self, runner: Runner) -> None:
        self._check(runner)

    def _keep_output(self, name: str, module: nn.Module, args: tuple, output: Any) -> None:
        """Keep the scalar that a loss returns: the terms inside of a MultiLoss are not logged."""
        if torch.is_tensor(output) and output.dim() == 0 and torch.is_grad_enabled():
            # Dense heads call one loss for each level of their features.
            self._modules[name] = self._modules.get(name, 0) + output.detach()

    def _is_due(self, runner: Runner) -> bool:
        if self.every_n_train_iters(runner, self.interval) or self.is_last_train_iter(runner):
            return True
        savers = [h for h in runner.hooks if isinstance(h, CheckpointHook) and not h.by_epoch]
        return any(self.every_n_train_iters(runner, h.interval, h.save_begin) for h in savers)

    def _check(self, runner: Runner) -> None:
        """Read everything since the last check; stop all ranks, or log what was left out."""
        if not self._readings:
            return
        readings, self._readings = self._readings, []
        left_out, self._left_out = self._left_out, []
        *values, flags = read([*(r.values for r in readings), largest(left_out)])
        found = [(r, wrong) for r, v in zip(readings, values) if (wrong := r.non_finite(v))]
        # The terms of an iteration say more than the gradients that follow from them.
        found.sort(key=lambda pair: (pair[0].iteration, pair[0].is_update))
        fatal = [describe(*pair) for pair in found if not self._tolerates(pair[0])]
        longest = self._count(flags)
        if longest > self.max_in_a_row:
            fatal += [f'{describe(*pair)} Updates left out in a row: {longest}.' for pair in found]
        state = self._read_state()
        if state:
            fatal.append(describe_state(state, readings[-1].iteration))
        stop_all_ranks(fatal[:1])
        if self.action == 'stop':
            return
        runner.message_hub.update_scalar('train/skipped_updates', self._skipped)
        if found:
            text = describe(*found[0])
            runner.logger.warning(f'{text} Updates left out so far: {self._skipped}.')

    def _tolerates(self, reading: Reading) -> bool:
        return self.action == 'skip' or reading.scaled

    def _count(self, flags: list[float]) -> int:
        """Count the updates left out; return the longest row that ends among ``flags``."""
        longest = 0
        for flag in flags:
            self._in_a_row = self._in_a_row + 1 if flag else 0
            longest = max(longest, self._in_a_row)
        self._skipped += int(sum(flags))
        return longest

    def _check_first_state(self) -> None:
        self._exempt: set[str] = set()
        wrong = self._read_state()
        # Masks of attention are buffers that hold inf from the start.
        self._exempt = set(wrong) & set(dict(self._model.named_buffers()))
        wrong = {name: value for name, value in wrong.items() if name not in self._exempt}
        stop_all_ranks([describe_state(wrong, 0)] if wrong else [])

    def _read_state(self) -> dict[str, float]:
        state = {**dict(self._model.named_parameters()), **dict(self._model.named_buffers())}
        watched = {n: t for n, t in state.items() if t.is_floating_point()}
        names = [name for name in watched if name not in self._exempt]
        (values,) = read([largest(watched[name] for name in names)])
        return {name: value for name, value in zip(names, values) if not math.isfinite(value)}
