"""Starts gloo processes that share one import of PyTorch and of the package."""

from __future__ import annotations

import multiprocessing as mp
import os

import torch
from torch import distributed as dist
from torch import multiprocessing

PRELOAD = ['torch.distributed.tensor', 'mmloss_plugins.heads', 'mmloss_plugins.models']


def run_ranks(function, world_size, folder):
    """Call ``function(rank, world_size, folder)`` in so many processes of a gloo group."""
    # Imports take seconds of a core in each process that is spawned; the server forks instead.
    mp.set_forkserver_preload(PRELOAD)
    multiprocessing.start_processes(
        _run, (function, world_size, str(folder)), nprocs=world_size, start_method='forkserver'
    )


def _run(rank, function, world_size, folder):
    os.environ.setdefault('GLOO_SOCKET_IFNAME', 'lo')
    torch.set_num_threads(1)
    dist.init_process_group('gloo', f'file://{folder}/store', rank=rank, world_size=world_size)
    function(rank, world_size, folder)
    dist.barrier()
    dist.destroy_process_group()
