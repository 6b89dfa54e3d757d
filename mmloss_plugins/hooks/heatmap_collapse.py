"""Logs how far heatmaps rise above their background, and says so where they do not."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from mmloss_plugins.errors import check_choice, message
from mmloss_plugins.hooks._heatmap_reading import (
    ACTIVATIONS,
    LOSSES,
    VALUES,
    Reading,
    activation_of,
    arguments_of,
    heatmap_of,
    measure,
    names_of,
    positives_of,
    respond,
)
from mmloss_plugins.registry import HOOKS

HOOK = 'HeatmapCollapseHook'
POSITIVES_ADVICE = (
    'Likely the codec centres its Gaussians between pixels (an UDPHeatmap peaks at 0.978): set '
    "the loss's pos_threshold to 0.9. Otherwise compare the values of the target with the "
    'threshold (a MegviiHeatmap goes to 255)'
)
FLAT_ADVICE = (
    'Likely, in this order: no prior on a sigmoid (prior_prob=0.01 of the head), so that the '
    'background drowns the keypoints; a learning rate that killed the last ReLU or is far too '
    'low; a ReLU or a norm behind the last layer; a loss without a balance of foreground and '
    'background (take GaussianFocalLoss, SpatialSoftmaxCELoss or foreground_weight)'
)


@HOOKS.register_module()
class HeatmapCollapseHook(Hook):
    """Log whether heatmaps respond to keypoints, and warn once if they cannot or do not.

    Watched are the losses listed in ``LOSSES``, by class name and including subclasses, whenever
    prediction and target are both (B, K, H, W). Over the maps of visible keypoints (weight above
    0; without weights those with any target) it logs, every ``interval`` training iterations:

    - ``train/heatmap_peak``: highest response of a map, mean over maps;
    - ``train/heatmap_mean``: mean response;
    - ``train/heatmap_positives``: number of pixels that the loss calls positive, that is: its
      ``positives``, its ``pos_threshold``, equal to 1 for the focal losses of the hosts, or any
      target above 0;
    - ``train/heatmap_contrast``: peak minus mean, relative to that of the target; 0 is flat.

    Further maps (stages, levels) of the same iteration follow as ``heatmap2_peak`` and so on; a
    MultiLoss gives one set. The values are those of the own process.

    Args:
        interval: iterations between two readings, each of which is a host-device sync. Give it
            a multiple of the value of the LoggerHook.
        patience: warn after so many flat readings in a row.
        flatness: a reading is flat if its contrast is below this.
        activation: what turns the loss's prediction into responses: 'none', 'sigmoid', 'softmax'
            (over channels) or 'spatial_softmax' (over H x W). 'auto' asks the loss:
            ``from_logits``, ``activated`` or ``activation`` of those that have it, else by name.
        losses: class names of further losses to watch.

    Raises:
        ValueError: a number is out of range or ``activation`` is unknown.

    Example:
        ``custom_hooks = [dict(type='mmloss_plugins.HeatmapCollapseHook', interval=50)]``
    """

    priority = 'NORMAL'

    def __init__(
        self,
        interval: int = 50,
        patience: int = 10,
        flatness: float = 0.05,
        activation: str = 'auto',
        losses: Sequence[str] = (),
    ) -> None:
        for name, value in (('interval', interval), ('patience', patience)):
            if not isinstance(value, int) or value < 1:
                step = 'The default suits most runs'
                raise ValueError(message(HOOK, name, 'be a positive integer', repr(value), step))
        if not 0 < flatness < 1:
            step = '0 is a constant map, 1 as high as the target'
            raise ValueError(message(HOOK, 'flatness', 'lie between 0 and 1', flatness, step))
        check_choice(HOOK, 'activation', activation, ACTIVATIONS)
        self.interval = interval
        self.patience = patience
        self.flatness = flatness
        self.activation = activation
        self.losses = {*LOSSES, *losses}
        self._due = False

    def before_train(self, runner: Runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self._readings: dict[tuple[int, int], Reading] = {}
        self._flat: dict[int, int] = {}
        self._warned: set[str] = set()
        self._handles = [
            module.register_forward_hook(partial(self._read, name), with_kwargs=True)
            for name, module in model.named_modules()
            if self.losses.intersection(names_of(module))
        ]

    def after_train(self, runner: Runner) -> None:
        for handle in self._handles:
            handle.remove()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        self._due = self.every_n_train_iters(runner, self.interval)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        readings, self._readings = list(self._readings.values()), {}
        if not readings:
            return
        table = torch.stack([reading.values for reading in readings]).tolist()
        for number, (reading, (*values, visible)) in enumerate(zip(readings, table), start=1):
            if visible == 0:
                continue
            found = dict(zip(VALUES, values))
            prefix = f'train/heatmap{number if number > 1 else ""}_'
            for key, value in found.items():
                runner.message_hub.update_scalar(prefix + key, value)
            self._judge(runner, number, reading.loss, found, int(visible))

    def _read(self, name: str, loss: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        if not self._due or not torch.is_grad_enabled():
            return
        pred, target, weight = arguments_of(loss, args, kwargs)
        heatmap = heatmap_of(pred, target)
        if heatmap is None:
            return
        activation = activation_of(loss) if self.activation == 'auto' else self.activation
        with torch.no_grad():
            responses, labels = respond(pred, heatmap, activation, getattr(loss, 'beta', 1.0))
            positives = positives_of(loss, pred, target, heatmap)
            values = measure(responses, labels, positives, weight)
        key = (pred.data_ptr(), heatmap.data_ptr())
        if key in self._readings:
            # Terms of one MultiLoss: the strictest idea of a positive is the one that can fail.
            values = torch.minimum(values, self._readings[key].values)
        label = f'{name} ({type(loss).__name__})'
        self._readings[key] = Reading(label, values, (pred.detach(), heatmap))

    def _judge(
        self, runner: Runner, number: int, loss: str, found: dict[str, float], visible: int
    ) -> None:
        when = f'in iteration {runner.iter + 1}'
        if found['positives'] == 0:
            got = f'none for {visible} visible keypoints {when}'
            rule = 'hold pixels that count as positive'
            text = message(HOOK, f'target of {loss}', rule, got, POSITIVES_ADVICE)
            self._warn_once(runner, 'positives', text)
        self._flat[number] = (
            self._flat.get(number, 0) + 1 if found['contrast'] < self.flatness else 0
        )
        if self._flat[number] >= self.patience:
            got = f'peak {found["peak"]:.3g} and mean {found["mean"]:.3g} {when}'
            rule = f'rise above their mean within {self.patience} readings'
            text = message(HOOK, f'responses of {loss}', rule, got, FLAT_ADVICE)
            self._warn_once(runner, 'flat', text)

    def _warn_once(self, runner: Runner, cause: str, text: str) -> None:
        if cause not in self._warned:
            runner.logger.warning(text)
        self._warned.add(cause)
