"""Rows of a matrix spread over the ranks of a process group: samples, or classes of a DTensor."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch import distributed as dist


class Batches(NamedTuple):
    """How the samples of one step are spread over ranks.

    Attributes:
        sizes: number of samples of each rank.
        rank: own position among them.
    """

    sizes: list[int]
    rank: int

    def own(self, joint: Tensor) -> Tensor:
        """Return the rows of this rank, of those of all ranks."""
        return joint.narrow(0, sum(self.sizes[: self.rank]), self.sizes[self.rank])


def numbers_of_ranks(numbers: list[int], device: torch.device, group: Any) -> list[list[int]]:
    """Return the numbers of every rank, in their order; a host-device sync.

    Args:
        numbers: of this rank; as many on every rank.
        device: that the group communicates on.
        group: process group; None: all ranks.
    """
    own = torch.tensor(numbers, device=device)
    found = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
    dist.all_gather(found, own, group=group)
    every: list[list[int]] = torch.stack(found).tolist()
    return every


def gather_samples(x: Tensor, batches: Batches, group: Any) -> Tensor:
    """Return the rows of all ranks, in their order; backward hands each rank its rows.

    Whatever uses them has to give every rank the same, whole gradient of all rows.

    Args:
        x: (B, ...), B may differ from rank to rank and be 0.
        batches: of all ranks.
        group: process group; None: all ranks.
    """
    joint: Tensor = _GatherSamples.apply(x, batches, group)  # type: ignore[no-untyped-call]
    return joint


class _GatherSamples(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, batches, group):  # type: ignore[no-untyped-def]
        ctx.batches = batches
        # A collective has to be given as much by every rank.
        padded = x.new_zeros((max(batches.sizes), *x.shape[1:]))
        padded[: len(x)] = x
        pieces = [torch.empty_like(padded) for _ in batches.sizes]
        dist.all_gather(pieces, padded, group=group)
        return torch.cat([piece[:size] for piece, size in zip(pieces, batches.sizes)])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        return ctx.batches.own(grad), None, None


def reduced(x: Tensor, group: Any, op: Any = None) -> Tensor:
    """Return the sum over ranks, or what ``op`` says, a new tensor."""
    found = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(found, dist.ReduceOp.SUM if op is None else op, group=group)
    return found


def is_sharded(x: Any) -> bool:
    """Whether a tensor is a DTensor of which each rank has some rows."""
    # An import of DTensor takes as long as one of a host, and older PyTorch has none.
    placements = getattr(x, 'placements', None)
    return isinstance(x, Tensor) and placements is not None and placements[0].is_shard(0)


def span_of(rows: int, ranks: int, rank: int) -> tuple[int, int]:
    """Return first and last row of a rank, as DTensor spreads them: the last ranks have fewer.

    Example:
        >>> [span_of(10, 4, rank) for rank in range(4)]
        [(0, 3), (3, 6), (6, 9), (9, 10)]
    """
    size = -(-rows // ranks)
    return min(rank * size, rows), min((rank + 1) * size, rows)


def shard_rows(full: Tensor, mesh: Any) -> Any:
    """Return a DTensor of which each rank keeps its rows of ``full``; nothing is sent.

    Args:
        full: (C, ...), the same on all ranks.
        mesh: one-dimensional DeviceMesh.
    """
    from torch.distributed.tensor import DTensor, Shard

    start, stop = span_of(len(full), mesh.size(), mesh.get_local_rank())
    device = torch.device(mesh.device_type)
    # A copy even on the same device: a view would keep the whole tensor in memory.
    rows = full[start:stop].detach().to(device, copy=True).contiguous()
    return DTensor.from_local(
        rows, mesh, [Shard(0)], run_check=False, shape=full.shape, stride=full.stride()
    )


def rows_on_first_rank(sharded: Any) -> Tensor | None:
    """Return all rows of a DTensor, on the CPU of the first rank; None on the others.

    Every rank has to call it. The first takes in the rows of one rank after the other, so that its
    device needs memory for those of one rank beside its own.
    """
    mesh, local = sharded.device_mesh, sharded.to_local().detach().contiguous()
    group, rank = mesh.get_group(), mesh.get_local_rank()
    first = dist.get_global_rank(group, 0)
    if rank > 0:
        dist.send(local, first, group=group)
        return None
    found = [local.cpu()]
    for other in range(1, mesh.size()):
        start, stop = span_of(len(sharded), mesh.size(), other)
        rows = local.new_empty((stop - start, *local.shape[1:]))
        dist.recv(rows, dist.get_global_rank(group, other), group=group)
        found.append(rows.cpu())
    return torch.cat(found)
