"""Watches the updates of an MMEngine OptimWrapper and leaves out those that are not finite."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial
from typing import Any, Callable

import torch
from mmengine.dist import all_reduce
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import Tensor

from mmloss_plugins.functional._ranks import is_sharded

#: Called before each update with the names of ``values``: 'loss' for each loss since the last
#: update, then one name per parameter; whether the update is left out, as a 0-d tensor of 0 or 1;
#: and whether a GradScaler scales the gradients.
Report = Callable[[list[str], Tensor, Tensor, bool], None]


class GuardedUpdates:
    """Reports each update of a wrapper to ``report``; everything stays on the device.

    Args:
        wrapper: its ``backward`` and ``step`` are replaced until :meth:`release`.
        names: name of each parameter by its id.
        skip: leave out the updates that are not finite.
        report: see :data:`Report`.
    """

    def __init__(
        self, wrapper: OptimWrapper, names: dict[int, str], skip: bool, report: Report
    ) -> None:
        self.wrapper = wrapper
        self.names = names
        self.skip = skip
        self.report = report
        self.scaled = hasattr(wrapper, 'loss_scaler')
        self._losses: list[Tensor] = []
        self.release()  # a run that raised may have left its own there
        wrapper.backward = partial(self._backward, wrapper.backward)
        wrapper.step = partial(self._step, wrapper.step)

    def release(self) -> None:
        vars(self.wrapper).pop('backward', None)
        vars(self.wrapper).pop('step', None)

    def _backward(self, backward: Callable[..., None], loss: Tensor, **kwargs: Any) -> None:
        self._losses.append(loss.detach())
        backward(loss, **kwargs)

    def _step(self, step: Callable[..., None], **kwargs: Any) -> None:
        # Before the step, as clipping by a norm of NaN spreads NaN to every parameter.
        groups = self.wrapper.optimizer.param_groups
        parameters = [p for group in groups for p in group['params'] if p.grad is not None]
        names = ['loss'] * len(self._losses)
        names += [self.names.get(id(p), 'a parameter outside the model') for p in parameters]
        values = largest([*self._losses, *(p.grad for p in parameters)])
        broken = ~values.isfinite()
        bad = torch.stack([broken[: len(self._losses)].any(), broken.any()]).float()
        if self.skip:
            # Under DDP a loss may be bad on one rank alone; all have to leave the update out.
            all_reduce(bad, op='max')
        bad_loss, left_out = bad
        self._losses = []
        self.report(names, values, left_out, self.scaled)
        if not self.skip:
            step(**kwargs)
            return
        # A GradScaler leaves out non-finite gradients itself and has to see them for its scale.
        step_unless(bad_loss if self.scaled else left_out, self.wrapper.optimizer, step, kwargs)


def step_unless(
    bad: Tensor, optimizer: torch.optim.Optimizer, step: Callable[..., None], kwargs: dict
) -> None:
    """Take the step unless ``bad``; otherwise parameters and optimizer state stay as they are."""
    # Not for PyTorch's fused SGD, which would take its momentum from uninitialised memory.
    on_device = isinstance(optimizer, (torch.optim.Adam, torch.optim.AdamW))
    if on_device and optimizer.defaults.get('fused'):
        optimizer.grad_scale, optimizer.found_inf = None, bad
        step(**kwargs)
        del optimizer.grad_scale, optimizer.found_inf
        return
    if not bad:
        step(**kwargs)


def largest(tensors: Iterable[Tensor]) -> Tensor:
    """Return the largest absolute value of each tensor, NaN if it holds one; 1-D, float32."""
    # Of what is sharded each rank reads its own rows.
    found = [tensor.to_local() if is_sharded(tensor) else tensor for tensor in tensors]
    if not found:
        return torch.zeros(0)
    # The maximum of no element is an error, so give empty tensors one.
    found = [tensor if tensor.numel() else tensor.new_zeros(1) for tensor in found]
    # Few kernels on a GPU; on a CPU that norm takes fifteen times as long as the two extremes.
    if found[0].is_cuda:
        norms = list(torch._foreach_norm(found, math.inf))
    else:
        norms = [torch.stack(tensor.detach().aminmax()).abs().amax() for tensor in found]
    return torch.stack([norm.detach().float().to(norms[0].device) for norm in norms])


def optim_wrappers(wrapper: OptimWrapper | OptimWrapperDict) -> list[OptimWrapper]:
    return list(wrapper.values()) if isinstance(wrapper, OptimWrapperDict) else [wrapper]
