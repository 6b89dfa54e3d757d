"""CenterNetHead on two gloo processes gives the loss and the gradients of one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

from tests.test_heads.centernet_cases import build, features, sample, samples, stirred

WORLD = 2
CASES = ('uneven', 'none on a rank', 'none')


def batch_of(case):
    """Two images: 3 and 2 objects, 3 and none, or none at all."""
    batch = samples()
    if case != 'uneven':
        batch[1] = sample(ignored=[])
    if case == 'none':
        batch[0] = sample(ignored=[])
    return batch


def the_head():
    """The same weights in every process."""
    torch.manual_seed(0)
    return stirred(build(num_stacks=2))


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
    for case in CASES:
        head = the_head()
        x = tuple(each[rank : rank + 1] for each in features(stacks=2))
        # Kept, because the gradients are averaged by hooks of this object.
        parallel = DistributedDataParallel(Step(head))
        losses = parallel(x, batch_of(case)[rank : rank + 1])
        sum(losses.values()).backward()
        losses = {name: value.detach() for name, value in losses.items()}
        results[case] = losses, [each.grad for each in head.parameters()]
    torch.save(results, Path(folder) / f'{rank}.pt')
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope='module')
def results(tmp_path_factory):
    """Losses and gradients of each rank."""
    folder = tmp_path_factory.mktemp('ranks')
    multiprocessing.spawn(run_rank, (str(folder),), nprocs=WORLD)
    return [torch.load(folder / f'{rank}.pt') for rank in range(WORLD)]


@pytest.mark.parametrize('case', CASES)
def test_two_processes_are_one(results, case):
    head = the_head()
    expected = head.loss(features(stacks=2), batch_of(case))
    sum(expected.values()).backward()
    slopes = [each.grad for each in head.parameters()]
    (first, gradients), (second, others) = (result[case] for result in results)
    if case == 'none':
        # One object is counted in total: each rank divides its sum by a half.
        assert expected['loss_size'] == first['loss_size'] == 0
    for name, value in expected.items():
        assert_close((first[name] + second[name]) / WORLD, value.detach())
    assert_close(gradients, others)
    assert_close(gradients, slopes)
    assert (slopes[0] != 0).any()
