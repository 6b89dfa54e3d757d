"""LossDiagnosticsHook through a real Runner."""

from __future__ import annotations

import re

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn

from mmloss_plugins.losses import KLDiscretLoss
from mmloss_plugins.visualization.curves import read_scalars

BINS = 8


class TinySimCC(BaseModel):
    """Predicts the same logits for every sample; learning rate 0 keeps them uniform."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(1, 2, BINS))
        self.loss_module = KLDiscretLoss()

    def forward(self, labels, mode='tensor'):
        pred = self.logits.expand(len(labels), -1, -1)
        weight = torch.tensor([[1.0, 0.0]]).expand(len(labels), -1)
        return dict(loss_kpt=self.loss_module((pred, pred), (labels, labels), weight))


def run(work_dir, lr, interval=2, iterations=4):
    labels = torch.softmax(torch.arange(2.0 * BINS).reshape(2, BINS) % 5, -1)
    runner = Runner(
        TinySimCC(),
        work_dir=str(work_dir),
        train_dataloader=dict(
            batch_size=3,
            sampler=dict(type='InfiniteSampler', shuffle=False),
            dataset=[labels] * 6,
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=dict(by_epoch=False, max_iters=iterations),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=lr)),
        default_hooks=dict(logger=dict(type='LoggerHook', interval=2), checkpoint=None),
        custom_hooks=[dict(type='mmloss_plugins.LossDiagnosticsHook', interval=interval)],
        log_processor=dict(by_epoch=False),
        experiment_name=f'{work_dir.name}-{lr}-{interval}',
    )
    runner.model.data_preprocessor = nn.Identity()
    runner.model.train_step = lambda data, optim_wrapper: step(runner.model, data, optim_wrapper)
    runner.train()
    return read_scalars(work_dir)


def step(model, labels, optim_wrapper):
    losses = model(labels, mode='loss')
    total, log = model.parse_losses(losses)
    optim_wrapper.update_params(total)
    return log


def test_uniform_prediction_reads_one_and_stays_out_of_the_loss(tmp_path):
    scalars = run(tmp_path, lr=0.0)
    assert scalars.series('simcc_ratio') == ([2, 4], pytest.approx([1.0, 1.0]))
    assert scalars.series('loss') == scalars.series('loss_kpt')


def test_learning_lowers_the_ratio(tmp_path):
    _, (first, last) = run(tmp_path, lr=10.0).series('simcc_ratio')
    assert last < first < 1


@pytest.mark.parametrize('interval', [0, -1, 1.5, 'ten'])
def test_interval_must_be_positive(interval):
    text = f'LossDiagnosticsHook: interval must be a positive integer, got {interval!r}.'
    with pytest.raises(ValueError, match=re.escape(text)):
        HOOKS.build(dict(type='mmloss_plugins.LossDiagnosticsHook', interval=interval))
