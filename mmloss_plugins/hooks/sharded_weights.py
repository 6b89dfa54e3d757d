"""Checkpoints, resuming and optimizer steps of models with weights that are spread over ranks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any, Callable

from mmengine.hooks import EMAHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch import Tensor, nn

from mmloss_plugins.errors import message
from mmloss_plugins.functional._ranks import is_sharded, rows_on_first_rank, shard_rows
from mmloss_plugins.registry import HOOKS

HOOK = 'ShardedWeightsHook'


@HOOKS.register_module()
class ShardedWeightsHook(Hook):
    """Make MMEngine's runner work with DTensors of which each rank has some rows.

    What a head with ``shard_classes=True`` needs, and no more than a name in the message hub
    where no parameter is sharded, as in a single process::

        custom_hooks = [dict(type='mmloss_plugins.ShardedWeightsHook')]

    - Whatever saves a checkpoint, such as CheckpointHook with all of its options, writes one
      ordinary file: the first rank takes in the rows of one rank after the other, of weights and
      of optimizer state, and keeps them in host memory. Any number of processes can load it, one
      without this hook as well.
    - A resumed run goes on as the one that was stopped would have. Each process reads the whole
      file into host memory and keeps its rows.
    - Gradients are clipped by the norm over all ranks.

    Optimizers that treat each element by itself work: SGD, Adam, AdamW, RMSprop and others, but
    not those that need norms of a whole weight (LAMB) or factors of it (Adafactor).

    Raises:
        TypeError: on more than one process, from ``train()``: an EMAHook, several optimizers, or
            a GradScaler that is enabled.
    """

    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self._names: list[str] = []
        self._full: dict[str, Tensor] = {}
        self._full_states: list[tuple[int, str, Tensor]] = []
        self._undo = ExitStack()

    def before_run(self, runner: Runner) -> None:
        # update_info would save it: a run that resumes needs a hook of its own.
        runner.message_hub.runtime_info[HOOK] = True
        # Not at the end of a run: a validation after it may save its best checkpoint.
        self._undo.close()
        model = _bare(runner.model)
        self._names = [name for name, p in model.named_parameters() if is_sharded(p)]
        if not self._names:
            return
        if isinstance(runner.optim_wrapper, OptimWrapper):
            _check(runner)
            self._replicate(runner.optim_wrapper)
        self._replace(runner, 'save_checkpoint', partial(self._save, runner))
        self._replace(runner, 'resume', _resume)
        # MMEngine broadcasts the state of the first rank before it trains.
        self._hiding = model._register_state_dict_hook(partial(_without, self._names))
        self._undo.callback(self._hiding.remove)

    def before_train(self, runner: Runner) -> None:
        if self._names:
            self._hiding.remove()

    before_val = before_test = before_train

    def _replace(self, owner: Any, name: str, function: Callable[..., Any]) -> None:
        """Call ``function`` with the method ``name`` before its arguments, until the next run."""
        before = getattr(owner, name)
        setattr(owner, name, partial(function, before))
        self._undo.callback(setattr, owner, name, before)

    def _replicate(self, wrapper: OptimWrapper) -> None:
        """Let gradients that all ranks share take part in operations with sharded ones."""
        if wrapper.clip_grad_kwargs:
            self._replace(wrapper, 'clip_func', _clip)
        during = ExitStack()

        def enter(*_: Any) -> None:
            during.enter_context(_implicit_replication())

        def leave(*_: Any) -> None:
            during.close()

        self._undo.callback(wrapper.optimizer.register_step_pre_hook(enter).remove)
        self._undo.callback(wrapper.optimizer.register_step_post_hook(leave).remove)

    def _save(self, runner: Runner, save: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        """Save a checkpoint; all ranks get here, as ``save`` returns on all but the first."""
        parameters = dict(_bare(runner.model).named_parameters())
        for name in self._names:
            full = rows_on_first_rank(parameters[name])
            if full is not None:
                self._full[name] = full
        if kwargs.get('save_optimizer', True):
            for index, key, value in _sharded_states(runner.optim_wrapper):
                full = rows_on_first_rank(value)
                if full is not None:
                    self._full_states.append((index, key, full))
        save(*args, **kwargs)
        self._full, self._full_states = {}, []

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        checkpoint['state_dict'].update(self._full)
        for index, key, value in self._full_states:
            checkpoint['optimizer']['state'][index][key] = value

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Keep the own rows of optimizer states; the head takes those of the weights."""
        if 'optimizer' not in checkpoint or not isinstance(runner.optim_wrapper, OptimWrapper):
            return
        states = checkpoint['optimizer']['state']
        for index, parameter in enumerate(_parameters(runner.optim_wrapper)):
            if not is_sharded(parameter):
                continue
            for key, value in states.get(index, {}).items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    states[index][key] = shard_rows(value, parameter.device_mesh)


def _bare(model: nn.Module) -> nn.Module:
    return model.module if is_model_wrapper(model) else model


def _check(runner: Runner) -> None:
    if any(isinstance(hook, EMAHook) for hook in runner.hooks):
        rule, step = 'come without EMAHook', 'Leave EMAHook out of custom_hooks'
        raise TypeError(message(HOOK, 'sharded weights', rule, 'both', step))
    if isinstance(runner.optim_wrapper, OptimWrapperDict):
        rule, step = 'come with one optimizer', 'Tell its groups apart with paramwise_cfg'
        raise TypeError(message(HOOK, 'sharded weights', rule, 'several', step))
    scaler = getattr(runner.optim_wrapper, 'loss_scaler', None)
    if scaler is not None and scaler.is_enabled():
        rule = 'come without a GradScaler'
        step = "Set optim_wrapper to dtype='bfloat16', loss_scale=dict(enabled=False)"
        raise TypeError(message(HOOK, 'sharded weights', rule, 'one that is enabled', step))


def _implicit_replication() -> Any:
    # Not at the top: PyTorch before 2.5 has no such module.
    from torch.distributed.tensor.experimental import implicit_replication

    return implicit_replication()


def _clip(clip: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Clip by the norm over all ranks, and return it as a tensor that can be logged."""
    with _implicit_replication():
        norm = clip(*args, **kwargs)
    return norm.full_tensor() if hasattr(norm, 'full_tensor') else norm


def _resume(resume: Callable[..., None], filename: str, *args: Any, **kwargs: Any) -> None:
    """Resume from host memory: a device may have no room for the weights of all ranks."""
    if not args[2:] and kwargs.get('map_location', 'default') == 'default':
        kwargs['map_location'] = 'cpu'
    resume(filename, *args, **kwargs)


def _without(names: list[str], model: nn.Module, state: dict[str, Any], *_: Any) -> None:
    for name in names:
        state.pop(name, None)


def _parameters(wrapper: OptimWrapper) -> Iterator[Tensor]:
    """Yield the parameters in the order of their indices in a state_dict."""
    for group in wrapper.optimizer.param_groups:
        yield from group['params']


def _sharded_states(wrapper: OptimWrapper) -> Iterator[tuple[int, str, Any]]:
    """Yield index of the parameter, name and value of every state that is spread over ranks."""
    for index, parameter in enumerate(_parameters(wrapper)):
        state = wrapper.optimizer.state.get(parameter, {})
        yield from ((index, key, value) for key, value in state.items() if is_sharded(value))
