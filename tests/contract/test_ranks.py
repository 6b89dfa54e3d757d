"""Law 6: 2 and 4 processes give the loss and the total gradient of one."""

from __future__ import annotations

import pytest
import torch
from torch import multiprocessing
from torch.testing import assert_close

from tests.contract import ranks
from tests.contract.subject import loss_and_gradients


@pytest.fixture(scope='module')
def results(tmp_path_factory):
    """Results by (world size, rank), from one start of four processes."""
    folder = tmp_path_factory.mktemp('ranks')
    multiprocessing.spawn(ranks.run_rank, (str(folder),), nprocs=max(ranks.WORLDS))
    return {
        (world, rank): torch.load(folder / f'{world}_{rank}.pt')
        for world in ranks.WORLDS
        for rank in range(world)
    }


@pytest.mark.parametrize('nothing', [False, True], ids=['uneven', 'nothing valid'])
@pytest.mark.parametrize('world', ranks.WORLDS)
def test_as_one_process(subject, results, world, nothing):
    if subject.variant.per_rank:
        return
    name = next(name for name, other in ranks.subjects().items() if other == subject)
    pred, target, weight = ranks.whole_batch(subject, world, nothing)
    for row, options in ranks.options_of(subject).items():
        found = [results[world, rank][f'{name} {row} {nothing}'] for rank in range(world)]
        value, slopes = loss_and_gradients(subject.build(**options), pred, target, weight)
        divisor = divisor_of(subject, row, world)
        assert_close(sum(loss for loss, _ in found) / divisor, value)
        total = [torch.cat(parts) / divisor for parts in zip(*(parts for _, parts in found))]
        assert_close(total, slopes)
        assert (value == 0) == nothing


def divisor_of(subject, row, world):
    """Return what the ranks' sum is divided by: DistributedDataParallel averages gradients."""
    if row == 'sum':
        return 1
    if row != 'mean':
        return world
    share, whole = (
        subject.variant.mean_factor(subject.shape(batch, ranks.UNITS))
        for batch in (ranks.BATCH // world, ranks.BATCH)
    )
    return world * share / whole


@pytest.mark.parametrize('world', ranks.WORLDS)
def test_ranks_are_uneven_and_one_has_nothing(subject, world):
    _, _, weight = ranks.whole_batch(subject, world, nothing=False)
    counts = [int((part != 0).sum()) for part in weight.chunk(world)]
    assert counts[-1] == 0
    assert len(set(counts)) > 1
