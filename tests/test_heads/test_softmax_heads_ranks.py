"""The softmax family on two gloo processes gives the loss and the gradients of one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

from tests.test_heads.softmax_cases import HEADS, SMOOTH, build, features

WORLD = 2
# What each process gets of the five samples.
SHARES = (slice(0, 3), slice(3, 5))
CASES = {
    'uneven': torch.tensor([0, 3, 6, -1, 1]),
    'none on a rank': torch.tensor([0, -1, 6, -1, -1]),
    'none': torch.full((5,), -1),
}
OPTIONS = {'plain': {}, 'smooth': dict(loss=SMOOTH)}
RUNS = [(head, name, case) for head in HEADS for name in OPTIONS for case in CASES]


class Step(torch.nn.Module):
    """The loss of a head as DistributedDataParallel calls it."""

    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, x, labels):
        return self.head.loss(x, labels)['loss_cls']


def run_rank(rank, folder):
    """Save the loss and the averaged gradients of one share per process."""
    os.environ.setdefault('GLOO_SOCKET_IFNAME', 'lo')
    torch.set_num_threads(1)
    dist.init_process_group('gloo', f'file://{folder}/store', rank=rank, world_size=WORLD)
    results = []
    for head, name, case in RUNS:
        # A name of its own: without one it is gone before it can average the gradients.
        model = DistributedDataParallel(Step(build(head, **OPTIONS[name])))
        loss = model(features().detach()[SHARES[rank]], CASES[case][SHARES[rank]])
        loss.backward()
        results.append((loss.detach(), [p.grad for p in model.parameters()]))
    torch.save(results, Path(folder) / f'{rank}.pt')
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope='module')
def results(tmp_path_factory):
    """Loss and gradients of each rank."""
    folder = tmp_path_factory.mktemp('ranks')
    multiprocessing.spawn(run_rank, (str(folder),), nprocs=WORLD)
    return [torch.load(folder / f'{rank}.pt') for rank in range(WORLD)]


@pytest.mark.parametrize('run', RUNS, ids=lambda run: f'{run[0].__name__}-{run[1]}-{run[2]}')
def test_as_one_process(results, run):
    kind, name, case = run
    head = build(kind, **OPTIONS[name])
    loss = head.loss(features().detach(), CASES[case])['loss_cls']
    expected = torch.autograd.grad(loss, list(head.parameters()))
    first, second = (each[RUNS.index(run)] for each in results)
    assert_close((first[0] + second[0]) / WORLD, loss.detach())
    assert (loss.item() == 0) is (case == 'none')
    for found in (first[1], second[1]):
        for ours, other in zip(found, expected):
            assert_close(ours, other, rtol=1e-4, atol=1e-6)
