"""What each process of the distributed law runs: its share of the batch, for every loss."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._pytree import tree_map

from tests.contract.cases import CASES
from tests.contract.subject import Subject, loss_and_gradients
from tests.contract.trees import Tree

BATCH, UNITS = 8, 4
WORLDS = (2, 4)

# How many samples count: the ranks have uneven numbers of them and the last one has none.
VALID_SAMPLES = {2: 4, 4: 5}


def subjects() -> dict[str, Subject]:
    """Return every variant of every case, by name."""
    return {
        f'{name}-{row}': Subject(name, case, variant)
        for name, case in CASES.items()
        for row, variant in case.variants.items()
    }


def whole_batch(subject: Subject, world: int, nothing: bool) -> tuple[Tree, Tree, Tensor]:
    """Return (pred, target, weight) of the whole batch, the same in every process."""
    pred, target = subject.make(BATCH, UNITS)
    weight = subject.weight(BATCH, UNITS)
    weight[0 if nothing else VALID_SAMPLES[world] :] = 0
    return pred, target, weight


def share(tree: Tree, rank: int, world: int) -> Tree:
    """Return the samples of ``rank`` from every tensor that has the dimension of samples."""
    size = BATCH // world
    return tree_map(
        lambda leaf: leaf[rank * size :][:size] if leaf.shape[:1] == (BATCH,) else leaf, tree
    )


def options_of(subject: Subject) -> dict[str, dict[str, Any]]:
    """Return the configurations whose result must not depend on the number of processes."""
    options: dict[str, dict[str, Any]] = {'sum': {'reduction': 'sum'}, 'mean': {}}
    if subject.variant.can_mean_over_valid:
        options['valid'] = {'mean_over': 'valid'}
        options['valid and weighted'] = {'mean_over': 'valid', 'loss_weight': 0.5}
    return options


def run_rank(rank: int, folder: str) -> None:
    """Join a group of 2 and then a group of 4 processes and save what came out in each."""
    os.environ.setdefault('GLOO_SOCKET_IFNAME', 'lo')
    torch.set_num_threads(1)
    for world in WORLDS:
        if rank >= world:
            continue
        store = Path(folder) / f'store_{world}'
        dist.init_process_group('gloo', f'file://{store}', rank=rank, world_size=world)
        torch.save(results_of_rank(rank, world), Path(folder) / f'{world}_{rank}.pt')
        dist.barrier()
        dist.destroy_process_group()


def results_of_rank(rank: int, world: int) -> dict[str, tuple[Tensor, list[Tensor]]]:
    """Return (loss, gradients) of this rank's share by loss, configuration and weights."""
    results = {}
    for name, subject in subjects().items():
        for nothing in (False, True):
            pred, target, weight = share(whole_batch(subject, world, nothing), rank, world)
            for row, options in options_of(subject).items():
                results[f'{name} {row} {nothing}'] = loss_and_gradients(
                    subject.build(**options), pred, target, weight
                )
    return results
