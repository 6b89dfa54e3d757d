"""Inputs of losses as trees: a tensor, or any nesting of tuples, lists and dicts of tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

Tree = Any


def leaves(*trees: Tree) -> list[Tensor]:
    """Return all tensors of ``trees``."""
    return [leaf for leaf in tree_leaves(trees) if isinstance(leaf, Tensor)]


def float_leaves(*trees: Tree) -> list[Tensor]:
    """Return the tensors that can hold NaN and carry a gradient."""
    return [leaf for leaf in leaves(*trees) if leaf.is_floating_point()]


def map_floats(function: Callable[[Tensor], Tensor], tree: Tree) -> Tree:
    """Apply ``function`` to the floating-point tensors of ``tree``; labels stay as they are."""
    return tree_map(
        lambda leaf: (
            function(leaf) if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf
        ),
        tree,
    )


def with_grad(tree: Tree) -> Tree:
    """Return ``tree`` with fresh leaves that require a gradient; layout in memory is kept."""
    return map_floats(lambda leaf: leaf.detach().clone().requires_grad_(), tree)


def gradients(tree: Tree) -> list[Tensor]:
    """Return the gradients of the leaves, zeros where none arrived."""
    return [
        torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in float_leaves(tree)
    ]


def scattered(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Return normal float64 values that are not contiguous in memory."""
    return scatter(torch.randn(shape, dtype=torch.float64, generator=generator))


def scatter(leaf: Tensor) -> Tensor:
    """Return the same values, not contiguous in memory."""
    if leaf.dim() < 2:
        return torch.stack([leaf, leaf], dim=-1)[..., 0]
    backwards = tuple(reversed(range(leaf.dim())))
    return leaf.permute(backwards).contiguous().permute(backwards)


def cycle(tree: Tree, values: list[float]) -> Tree:
    """Fill the tensors of ``tree`` with ``values`` over and over."""

    def fill(leaf: Tensor) -> Tensor:
        repeats = -(-leaf.numel() // len(values))
        flat = torch.tensor(values * repeats, dtype=torch.float64)[: leaf.numel()]
        return flat.reshape(leaf.shape).to(leaf.dtype)

    return map_floats(fill, tree)
