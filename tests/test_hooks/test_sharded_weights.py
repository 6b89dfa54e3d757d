"""What ShardedWeightsHook leaves alone and refuses; runs of it are in test_sharded_training.py."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import EMAHook
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import distributed as dist
from torch import nn
from torch.testing import assert_close

from mmloss_plugins.functional._ranks import shard_rows
from mmloss_plugins.hooks import ShardedWeightsHook


class Runner:
    """The parts of MMEngine's runner that the hook reads."""

    def __init__(self, weight, hooks=(), several=False):
        self.model = nn.Linear(2, 3)
        self.model.weight = nn.Parameter(weight)
        self.hooks = list(hooks)
        optimizer = torch.optim.SGD(self.model.parameters(), lr=1.0, momentum=0.9)
        self.optim_wrapper = OptimWrapper(optimizer, clip_grad=dict(max_norm=5.0))
        if several:
            self.optim_wrapper = OptimWrapperDict(a=self.optim_wrapper)
        self.message_hub = MessageHub.get_instance(f'{id(self)}')
        self.saved = []

    def save_checkpoint(self, name):
        self.saved.append(name)

    def resume(self, filename, resume_optimizer=True, map_location='default'):
        self.resumed = filename, map_location


@pytest.fixture
def sharded():
    """A weight that is sharded over a single rank."""
    from torch.distributed.device_mesh import init_device_mesh

    dist.init_process_group('gloo', store=dist.HashStore(), rank=0, world_size=1)
    yield shard_rows(torch.arange(6.0).reshape(3, 2), init_device_mesh('cpu', (1,)))
    dist.destroy_process_group()


def state_of(runner):
    state = runner.optim_wrapper.optimizer.state[runner.model.weight]
    return state['momentum_buffer']


def step(runner):
    runner.optim_wrapper.zero_grad()
    (runner.model.weight.to_local() * 3).sum().backward()
    # A gradient that no rank shards: 4, beside six times 3.
    runner.model.bias.grad = torch.tensor([4.0, 0.0, 0.0])
    runner.optim_wrapper.step()


def test_leaves_a_run_without_sharded_weights_alone():
    runner, hook = Runner(torch.ones(3, 2)), ShardedWeightsHook()
    clip = runner.optim_wrapper.clip_func
    hook.before_run(runner)
    hook.before_train(runner)
    assert runner.message_hub.runtime_info['ShardedWeightsHook'] is True
    assert 'ShardedWeightsHook' not in runner.message_hub.state_dict()['runtime_info']
    assert set(runner.model.state_dict()) == {'weight', 'bias'}
    assert runner.optim_wrapper.clip_func is clip
    assert 'save_checkpoint' not in vars(runner)


def test_checkpoints_hold_plain_tensors_and_are_taken_apart(sharded):
    runner, hook = Runner(sharded), ShardedWeightsHook()
    hook.before_run(runner)
    # What MMEngine broadcasts before it trains.
    assert set(runner.model.state_dict()) == {'bias'}
    hook.before_train(runner)
    assert set(runner.model.state_dict()) == {'weight', 'bias'}
    step(runner)
    # |gradient|^2 = 16 + 6 * 9: both kinds are clipped by its root.
    shrink = 5 / 70**0.5
    assert_close(state_of(runner).full_tensor(), torch.full((3, 2), 3 * shrink))
    assert_close(runner.model.bias.grad, torch.tensor([4 * shrink, 0, 0]))

    wrapper, found = runner.optim_wrapper, {}

    def save(name):
        found.update(state_dict=runner.model.state_dict(), optimizer=wrapper.state_dict())
        hook.before_save_checkpoint(runner, found)

    hook._save(runner, save, 'name')
    expected = torch.arange(6.0).reshape(3, 2) - 3 * shrink
    momentum = found['optimizer']['state'][0]['momentum_buffer']
    assert type(found['state_dict']['weight']) is type(momentum) is torch.Tensor
    assert_close(found['state_dict']['weight'], expected)
    assert_close(momentum, torch.full((3, 2), 3 * shrink))
    assert hook._full == {}

    hook.after_load_checkpoint(runner, found)
    wrapper.load_state_dict(found['optimizer'])
    step(runner)
    assert_close(state_of(runner).full_tensor(), torch.full((3, 2), (3 + 2.7) * shrink))


def test_a_second_run_begins_anew(sharded):
    runner, hook = Runner(sharded), ShardedWeightsHook()
    clip = runner.optim_wrapper.clip_func
    for _ in range(2):
        hook.before_run(runner)
        hook.before_val(runner)
        assert set(runner.model.state_dict()) == {'weight', 'bias'}
        runner.resume('a file')
        assert runner.resumed == ('a file', 'cpu')
        runner.resume('a file', map_location='cuda')
        assert runner.resumed == ('a file', 'cuda')
        assert runner.optim_wrapper.clip_func.args == (clip,)
        step(runner)
    runner.model.weight = nn.Parameter(torch.ones(3, 2))
    hook.before_run(runner)
    assert runner.optim_wrapper.clip_func is clip
    runner.resume('a file')
    assert runner.resumed == ('a file', 'default')


def test_pytorch_alone_does_not_clip_or_step(sharded):
    with pytest.raises(RuntimeError, match='mixed'):
        step(Runner(sharded))


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        (dict(hooks=[EMAHook()]), 'without EMAHook, got both. Leave EMAHook out'),
        (dict(several=True), 'with one optimizer, got several. Tell its groups apart'),
        (dict(), r"without a GradScaler, got one that is enabled\. .*dtype='bfloat16'"),
    ],
)
def test_refuses_what_it_cannot_save_or_step(sharded, options, text):
    runner = Runner(sharded, **options)
    runner.optim_wrapper.loss_scaler = SimpleNamespace(is_enabled=lambda: True)
    with pytest.raises(TypeError, match=f'sharded weights must come {text}'):
        ShardedWeightsHook().before_run(runner)
