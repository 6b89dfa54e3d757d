"""What NonFiniteGuardHook keeps of an iteration, and the text that it makes of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.dist import all_gather_object, all_reduce, get_world_size
from mmengine.structures import BaseDataElement
from torch import Tensor

from mmloss_plugins.errors import message

HOOK = 'NonFiniteGuardHook'
MAX_NAMES = 3
MAX_IMAGES = 8
LOSS_ADVICE = (
    'Look at these images and their labels; if they are sound, lower the learning rate or set '
    'clip_grad of optim_wrapper'
)
GRADIENT_ADVICE = (
    'Its loss is finite, so a backward pass is at fault, such as log or sqrt at 0 behind a mask: '
    'torch.autograd.set_detect_anomaly(True) names the operation'
)
START_ADVICE = 'Check load_from and init_cfg'
STATE_ADVICE = 'Leaving out updates does not repair it: check the images and the learning rate'


@dataclass
class Reading:
    """Values that are still on the device, with what they belong to."""

    iteration: int
    images: list[str]
    names: list[str]
    values: Tensor
    is_update: bool = False  # names are 'loss' and parameters, else terms of the loss
    scaled: bool = False  # by a GradScaler, which provokes inf in gradients
    modules: Sequence[str] = ()  # the last values are those of these losses

    def non_finite(self, values: Sequence[float]) -> dict[str, float]:
        """Return what is not finite by name; nothing where it is a value of a module alone."""
        names = [*self.names, *self.modules]
        wrong = {n: v for n, v in zip(names, values) if not math.isfinite(v)}
        return wrong if wrong.keys() & set(self.names) else {}


def read(vectors: Sequence[Tensor]) -> list[list[float]]:
    """Return the values of vectors of any length after one host-device sync."""
    if not vectors:
        return []
    values = torch.cat([vector.float().to(vectors[0].device) for vector in vectors]).tolist()
    found = iter(values)
    return [[next(found) for _ in range(len(vector))] for vector in vectors]


def image_paths(batch: Any) -> list[str]:
    """Return every ``img_path`` in a batch of MMPose or MMDetection, or any nesting of them."""
    if isinstance(batch, (Mapping, BaseDataElement)):
        found = batch.get('img_path')
        if found is not None:
            return [found] if isinstance(found, str) else [str(path) for path in found]
    items = batch.values() if isinstance(batch, Mapping) else batch
    if not isinstance(batch, (Mapping, list, tuple)):
        return []
    return [path for item in items for path in image_paths(item)]


def describe(reading: Reading, wrong: Mapping[str, float]) -> str:
    """Return the error text for what is not finite in a reading."""
    only_gradients = reading.is_update and 'loss' not in wrong
    if only_gradients:
        # Backward runs from the last parameter to the first, so where it began comes first.
        subject = f'gradient of {shorten(list(wrong)[::-1], MAX_NAMES, "parameters")}'
    else:
        # 'loss' is the sum of the others.
        terms = [name for name in wrong if name in reading.names and name != 'loss'] or ['loss']
        subject = ', '.join(terms) + innermost([name for name in wrong if name in reading.modules])
    images = shorten(reading.images, MAX_IMAGES, 'images') or 'a batch without img_path'
    return message(
        HOOK,
        f'{subject} at iteration {reading.iteration}',
        'be finite',
        f'{nan_or_inf(wrong)} for {images}',
        GRADIENT_ADVICE if only_gradients else LOSS_ADVICE,
    )


def describe_state(wrong: Mapping[str, float], iteration: int) -> str:
    """Return the error text for parameters and buffers; ``iteration`` 0 is before training."""
    when = f'after iteration {iteration}' if iteration else 'before training'
    names = shorten(list(wrong), MAX_NAMES, 'parameters and buffers')
    advice = STATE_ADVICE if iteration else START_ADVICE
    return message(HOOK, f'{names} {when}', 'be finite', nan_or_inf(wrong), advice)


def innermost(modules: list[str]) -> str:
    """Return the losses at fault without those that only contain them."""
    found = [m for m in modules if not any(other.startswith(f'{m}.') for other in modules)]
    return f' ({shorten(found, MAX_NAMES, "losses")})' if found else ''


def nan_or_inf(wrong: Mapping[str, float]) -> str:
    return 'nan' if any(math.isnan(value) for value in wrong.values()) else 'inf'


def shorten(names: list[str], most: int, what: str) -> str:
    more = f' and {len(names) - most} more {what}' if len(names) > most else ''
    return ', '.join(names[:most]) + more


def stop_all_ranks(texts: list[str]) -> None:
    """Raise on every rank if one of them has a text."""
    count = torch.tensor(float(len(texts)))
    all_reduce(count)
    if count == 0:
        return
    ranks = enumerate(all_gather_object(texts))
    lines = [(rank, text) for rank, found in ranks for text in found]
    if get_world_size() == 1:
        raise FloatingPointError(lines[0][1])
    raise FloatingPointError('\n'.join(f'rank {rank}: {text}' for rank, text in lines))
