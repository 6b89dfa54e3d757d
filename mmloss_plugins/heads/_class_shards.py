"""Class weights of which each rank has some rows."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.dist import get_world_size
from mmengine.logging import MessageHub
from torch import Tensor, nn
from torch import distributed as dist

from mmloss_plugins import functional as F
from mmloss_plugins.errors import message
from mmloss_plugins.functional._ranks import (
    Batches,
    gather_samples,
    is_sharded,
    numbers_of_ranks,
    reduced,
    shard_rows,
    span_of,
)

# Leaves its name in MMEngine's message hub.
HOOK = 'ShardedWeightsHook'


def shard_weight(what: str, weight: nn.Parameter) -> nn.Parameter:
    """Return the class weights as a DTensor spread over all ranks; as they are in one process.

    Args:
        what: name of the head, for the error text.
        weight: (C, D) or (C, K, D), the same on all ranks.

    Raises:
        ValueError: fewer classes than leave one for each rank.
        RuntimeError: PyTorch without ``torch.distributed.tensor``.
    """
    ranks = get_world_size()
    if ranks == 1:
        return weight
    if torch.__version__ < (2, 5):
        step = 'Update PyTorch, or leave shard_classes out'
        rule = 'be False before PyTorch 2.5'
        raise RuntimeError(message(what, 'shard_classes', rule, torch.__version__, step))
    if len({span_of(len(weight), ranks, rank)[0] for rank in range(ranks + 1)}) <= ranks:
        rule = f'leave a class for each of {ranks} ranks with shard_classes=True'
        step = 'Leave shard_classes out: it pays from some hundred thousand classes'
        raise ValueError(message(what, 'num_classes', rule, len(weight), step))
    from torch.distributed.device_mesh import init_device_mesh

    device = 'cuda' if 'nccl' in dist.get_backend() else 'cpu'
    return nn.Parameter(shard_rows(weight, init_device_mesh(device, (ranks,))))


def whole(weight: Tensor) -> Tensor:
    """Return the weights of all classes; all ranks have to call it where they are sharded."""
    full: Tensor = weight.detach().full_tensor() if is_sharded(weight) else weight
    return full


def first_class(weight: Any) -> int:
    """Return the first class of this rank."""
    mesh = weight.device_mesh
    return span_of(len(weight), mesh.size(), mesh.get_local_rank())[0]


def sharded_losses(x: Tensor, weight: Any, labels: Tensor, **options: Any) -> Tensor:
    """Return the loss of each sample of this rank, (B,); see
    :func:`functional.sharded_margin_cross_entropy`.
    """
    return F.sharded_margin_cross_entropy(
        x,
        weight.to_local(),
        labels,
        num_classes=len(weight),
        first_class=first_class(weight),
        group=weight.device_mesh.get_group(),
        **options,
    )


def nearest_class(x: Tensor, weight: Tensor, chunk_size: int | None) -> Tensor:
    """Return the class with the highest cosine, (B,); all ranks have to call it for a shard.

    Args:
        x: (B, D).
        weight: (C, D) or (C, K, D).
        chunk_size: classes at a time, or None.
    """
    if not is_sharded(weight):
        return _nearest(x, weight, chunk_size)[1]
    group = weight.device_mesh.get_group()
    sizes = [size for (size,) in numbers_of_ranks([len(x)], x.device, group)]
    batches = Batches(sizes, weight.device_mesh.get_local_rank())
    cosine, found = _nearest(gather_samples(x, batches, group), weight.to_local(), chunk_size)
    found = found + first_class(weight)
    highest = reduced(cosine, group, dist.ReduceOp.MAX)
    found = found.masked_fill(cosine != highest, len(weight))
    return batches.own(reduced(found, group, dist.ReduceOp.MIN))


def _nearest(x: Tensor, weight: Tensor, chunk_size: int | None) -> tuple[Tensor, Tensor]:
    if len(x) == 0:
        return x.new_zeros(0), x.new_zeros(0, dtype=torch.int64)
    size = chunk_size or len(weight)
    found = [F.cosine_logits(x, each).max(1) for each in weight.split(size)]
    highest, best = torch.stack([each.values for each in found]).max(0)
    within = torch.stack([each.indices for each in found]).gather(0, best.unsqueeze(0))
    return highest, within.squeeze(0) + best * size


def take_rows(head: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Replace the weights of all classes in a checkpoint by a DTensor; a hook of ``head``."""
    full, own = state.get(f'{prefix}weight'), head.weight
    if not isinstance(full, Tensor) or is_sharded(full) or full.shape != own.shape:
        return
    state[f'{prefix}weight'] = shard_rows(full.to(own.dtype), own.device_mesh)


def check_run(what: str) -> None:
    """Refuse a run of MMEngine whose checkpoints would hold the classes of the first rank alone.

    Raises:
        ValueError: the hook is missing.
    """
    known = MessageHub.get_current_instance().runtime_info
    if 'experiment_name' not in known or HOOK in known:
        return
    rule = f'come with the {HOOK}, which writes and resumes its checkpoints'
    step = f"Add dict(type='mmloss_plugins.{HOOK}') to custom_hooks"
    got = 'hooks without it'
    raise ValueError(message(what, 'shard_classes=True', rule, got, step))
