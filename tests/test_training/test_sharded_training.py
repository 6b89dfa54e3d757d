"""A digits mini with sharded classes: two processes of torchrun, one checkpoint for any number."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from tests.test_training import sharded_run

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = ['-W', 'ignore', '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2']
pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Where two processes have trained, resumed, and been refused."""
    folder = tmp_path_factory.mktemp('sharded')
    script = Path(sharded_run.__file__)
    env = {'GLOO_SOCKET_IFNAME': 'lo', **os.environ, 'OMP_NUM_THREADS': '1'}
    env['PYTHONPATH'] = str(ROOT)
    done = subprocess.run(
        [sys.executable, *LAUNCH, str(script), str(folder)],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope='module')
def ranks(folder):
    return [torch.load(folder / f'{rank}.pt') for rank in range(2)]


@pytest.fixture(scope='module')
def checkpoint(folder):
    return torch.load(folder / 'whole' / 'iter_6.pth', weights_only=False)


def test_a_resumed_run_goes_on_as_the_one_that_was_not_stopped(ranks):
    for rank in ranks:
        whole, resumed = rank['whole'], rank['resumed']
        for name in ('loss', 'grad_norm', 'acc_cls'):
            assert len(whole[name]) == len(resumed[name]) == sharded_run.STEPS
            # Of the first three steps the checkpoint has the log of the first rank.
            assert resumed[name][3:] == whole[name][3:]
        assert resumed['accuracy'] == whole['accuracy']
        assert resumed['end'] == whole['end']
    first, second = (rank['whole'] for rank in ranks)
    assert first['loss'] != second['loss']
    # Of all ranks, so that all clip alike.
    assert first['grad_norm'] == second['grad_norm']
    assert first['accuracy'] == second['accuracy']


def test_a_checkpoint_holds_plain_tensors_of_all_classes(folder, ranks, checkpoint):
    assert [rank['rows'] for rank in ranks] == [5, 5]
    weight = checkpoint['state_dict']['head.weight']
    assert type(weight) is torch.Tensor
    assert_close(weight, torch.tensor(ranks[0]['whole']['end']), rtol=0, atol=0)
    states = [s for s in checkpoint['optimizer']['state'].values() if s['exp_avg'].shape == (10, 2)]
    assert len(states) == 1
    for key in ('exp_avg', 'exp_avg_sq'):
        assert type(states[0][key]) is torch.Tensor
        assert states[0][key].ne(0).all()
    (file,) = (folder / 'whole').glob('best_*.pth')
    best = torch.load(file, weights_only=False)
    assert_close(best['state_dict']['head.weight'], weight, rtol=0, atol=0)
    assert 'optimizer' not in best


def test_one_process_loads_and_resumes_it(folder, ranks):
    runner = sharded_run.build(
        folder,
        'alone',
        load_from=str(folder / 'whole' / 'iter_6.pth'),
        resume=True,
        **{
            'train_cfg.max_iters': 7,
            'train_cfg.val_interval': 7,
            # MMEngine's CheckpointHook looks for it in a validation alone, and has no folder yet.
            'default_hooks.checkpoint.save_best': None,
        },
    )
    metrics = runner.val()
    assert metrics['class/accuracy'] == ranks[0]['whole']['accuracy']
    runner.train()
    weight = runner.model.head.weight
    assert type(weight) is torch.nn.Parameter
    # One step of Adam with the averages of six.
    assert 0 < (weight.detach() - torch.tensor(ranks[0]['whole']['end'])).abs().max() < 5e-3
    state = runner.optim_wrapper.optimizer.state[weight]
    assert state['step'] == 7


def test_runs_that_would_lose_classes_are_refused(ranks):
    for rank in ranks:
        assert rank['no hook'].startswith('ArcFaceHead: shard_classes=True must come with the Sha')
        assert rank['EMA'].startswith('ShardedWeightsHook: sharded weights must come without EMAH')
