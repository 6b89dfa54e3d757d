"""A toy model that breaks on demand, and a Runner around it."""

from __future__ import annotations

import collections
import copy
import uuid

import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

NAN, INF = float('nan'), float('inf')


class ToyModel(BaseModel):
    """Two parameters and two losses; ``faults`` says what breaks in which call of forward."""

    def __init__(self, faults=None):
        super().__init__()
        self.first = nn.Parameter(torch.tensor([1.0, 2.0]))
        self.second = nn.Parameter(torch.tensor([3.0]))
        self.register_buffer('mean', torch.zeros(2))
        self.faults = faults or {}
        self.calls = 0

    def forward(self, inputs, data_samples=None, mode='loss'):
        if mode != 'loss':
            return data_samples
        self.calls += 1
        losses = dict(loss_a=(self.first**2).mean(), loss_b=(self.second**2).sum())
        fault = self.faults.get(self.calls)
        if fault is not None:
            fault(self, losses)
        losses['acc'] = torch.tensor(NAN)  # no loss, so nobody's business
        return losses


def nan_loss(model, losses):
    losses['loss_a'] = losses['loss_a'] * NAN


def inf_loss(model, losses):
    losses['loss_b'] = losses['loss_b'] * INF


def constant_nan_loss(model, losses):
    losses['loss_a'] = losses['loss_a'] + NAN


def nan_gradient(model, losses):
    losses['loss_b'] = losses['loss_b'] + 0 * (model.second - model.second).sqrt().sum()


def nan_buffer(model, losses):
    model.mean.fill_(NAN)


def nan_parameter(model, losses):
    model.first.data[1] = -INF
    losses['loss_a'] = losses['loss_b'] * 0


def toy_runner(model, work_dir, hook, *, iterations=6, accumulate=1, optimizer=None, **options):
    """Return a Runner; iteration n sees the images {n}a.png and {n}b.png."""
    names = [f'{n}{letter}.png' for n in range(1, iterations + 1) for letter in 'ab']
    samples = [
        dict(inputs=torch.zeros(2), data_samples=BaseDataElement(metainfo=dict(img_path=name)))
        for name in names
    ]
    # One name per Runner: MMEngine keeps visualizers, loggers and message hubs by name, and the id
    # of a model comes back when that model is gone.
    name = f'{work_dir.name}-{uuid.uuid4()}'
    arguments = dict(
        work_dir=str(work_dir),
        train_dataloader=dict(
            batch_size=2,
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=samples,
            collate_fn=dict(type='pseudo_collate'),
        ),
        train_cfg=dict(by_epoch=False, max_iters=iterations),
        optim_wrapper=dict(
            optimizer=optimizer or dict(type='SGD', lr=0.1, momentum=0.9),
            accumulative_counts=accumulate,
        ),
        default_hooks=dict(checkpoint=None, logger=dict(type='LoggerHook', interval=1)),
        custom_hooks=[]
        if hook is None
        else [dict(type='mmloss_plugins.NonFiniteGuardHook', **hook)],
        log_processor=dict(by_epoch=False),
        experiment_name=name,
        visualizer=dict(type='Visualizer', name=name),
    )
    return Runner(model, **{**arguments, **options})


class Recorder(Hook):
    """Keep a copy of parameters and optimizer state after each iteration."""

    def __init__(self):
        self.states = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        parameters = copy.deepcopy(dict(runner.model.named_parameters()))
        optimizer = runner.optim_wrapper.optimizer.state_dict()['state']
        self.states.append((parameters, copy.deepcopy(optimizer)))


def scalar(runner, name):
    return runner.message_hub.get_scalar(f'train/{name}').current()


class Syncs(TorchDispatchMode):
    """Count by iteration how often a value is read back from the device."""

    def __init__(self, runner, monkeypatch):
        super().__init__()
        self.runner = runner
        self.counts = collections.Counter()
        tolist = torch.Tensor.tolist

        # On CPU tolist reads the memory without an operator.
        def counted(tensor):
            self.counts[runner.iter + 1] += 1
            return tolist(tensor)

        monkeypatch.setattr(torch.Tensor, 'tolist', counted)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        device_to_host = name == '_to_copy' and (kwargs or {}).get('device') is not None
        if name in ('_local_scalar_dense', 'is_nonzero', 'equal', 'nonzero') or device_to_host:
            self.counts[self.runner.iter + 1] += 1
        return func(*args, **(kwargs or {}))
