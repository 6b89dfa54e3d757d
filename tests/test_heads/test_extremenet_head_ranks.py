"""ExtremeNetHead on two gloo processes gives the loss and the gradients of one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

from tests.test_heads.extreme_cases import LABELS, RINGS, build, features, pack

WORLD = 2
CROWD = [(0, 0), (24, 0), (24, 40)]
CASES = ('uneven', 'none on a rank', 'none')
LOSSES = {
    'l1': None,
    'smooth_l1 per object': dict(
        type='mmloss_plugins.ExdetLoss',
        offset_loss=dict(type='mmloss_plugins.RegL1Loss', penalty='smooth_l1', mean_over='objects'),
    ),
}


def batch_of(case):
    """Two images: 3 objects and 1 with a crowd beside it, 3 and none, or none at all."""
    if case == 'none':
        return [pack([], []), pack([], [])]
    if case == 'none on a rank':
        return [pack(), pack([], [])]
    return [pack(), pack([RINGS[2], CROWD], LABELS[1:], ignore=[False, True])]


def the_head(loss):
    """The same weights in every process, with offsets that are not near zero."""
    torch.manual_seed(0)
    head = build(num_stacks=2, loss=LOSSES[loss])
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return head


class Step(torch.nn.Module):
    """The loss of a head as DistributedDataParallel calls it."""

    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, x, batch):
        return self.head.loss(x, batch)


def run_rank(rank, folder):
    """Save losses and averaged gradients of one image per process."""
    os.environ.setdefault('GLOO_SOCKET_IFNAME', 'lo')
    torch.set_num_threads(1)
    dist.init_process_group('gloo', f'file://{folder}/store', rank=rank, world_size=WORLD)
    results = {}
    for loss in LOSSES:
        for case in CASES:
            head = the_head(loss)
            x = [each[rank : rank + 1] for each in features(stacks=2)]
            # A name of its own: without one it is gone before it can average the gradients.
            model = DistributedDataParallel(Step(head))
            losses = model(x, batch_of(case)[rank : rank + 1])
            sum(losses.values()).backward()
            # Raises where a parameter got no gradient, as a branch that no object reads.
            model(x, batch_of(case)[rank : rank + 1])
            losses = {name: value.detach() for name, value in losses.items()}
            results[loss, case] = losses, [each.grad for each in head.parameters()]
    torch.save(results, Path(folder) / f'{rank}.pt')
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope='module')
def results(tmp_path_factory):
    """Losses and gradients of each rank."""
    folder = tmp_path_factory.mktemp('ranks')
    multiprocessing.spawn(run_rank, (str(folder),), nprocs=WORLD)
    return [torch.load(folder / f'{rank}.pt') for rank in range(WORLD)]


@pytest.mark.parametrize('loss', LOSSES)
@pytest.mark.parametrize('case', CASES)
def test_two_processes_are_one(results, case, loss):
    head = the_head(loss)
    expected = head.loss(features(stacks=2), batch_of(case))
    sum(expected.values()).backward()
    slopes = [each.grad for each in head.parameters()]
    (first, gradients), (second, others) = (result[loss, case] for result in results)
    for name, value in expected.items():
        assert_close((first[name] + second[name]) / WORLD, value.detach())
        if case == 'none' and 'offset' in name:
            assert value == first[name] == second[name] == 0
    assert_close(gradients, others)
    assert_close(gradients, slopes, rtol=1e-5, atol=1e-5)
    assert (slopes[0] != 0).any()
