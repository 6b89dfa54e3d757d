"""One registered loss in one configuration, with inputs for it."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from mmloss_plugins.losses.base import BaseLoss
from mmloss_plugins.registry import MODELS, SCOPE
from tests.contract.case import Case, Index, Shape, Variant
from tests.contract.cases import CASES
from tests.contract.trees import Tree, gradients, with_grad


def registered_losses() -> dict[str, type[BaseLoss]]:
    """Return every registered loss by its name."""
    MODELS.import_from_location()
    return {
        name: cls
        for name, cls in MODELS.module_dict.items()
        if isinstance(cls, type) and issubclass(cls, BaseLoss)
    }


def without_case(losses: dict[str, type[BaseLoss]]) -> list[str]:
    """Return a message for each registered loss that the case table does not know."""
    return [
        f'contract suite: {name} must have a case, got none. Add CASES[{name!r}] to '
        'tests/contract/cases/ (tests/README.md explains the fields).'
        for name in losses
        if name not in CASES
    ]


@dataclasses.dataclass(frozen=True)
class Subject:
    """A loss under test; ``variant`` is one row of its case."""

    name: str
    case: Case
    variant: Variant

    def build(self, **options: Any) -> BaseLoss:
        """Build the loss as a config does."""
        loss = MODELS.build({'type': f'{SCOPE}.{self.name}', **self.variant.options, **options})
        return loss.eval() if self.variant.state else loss

    def make(
        self, batch: int = 5, units: int = 4, seed: int = 0, dtype: torch.dtype = torch.float32
    ) -> tuple[Tree, Tree]:
        """Return (pred, target); the leaves of pred require a gradient."""
        pred, target = (self.variant.make or self.case.make)(batch, units, seed, dtype)
        return with_grad(pred), target

    def shape(self, batch: int = 5, units: int = 4) -> Shape:
        """Return the shape of the unreduced loss."""
        return self.case.shape(batch, units)

    def weight(self, batch: int = 5, units: int = 4) -> Tensor:
        """Return soft factors in (0, 2), one per element of the loss; every third is 0."""
        generator = torch.Generator().manual_seed(1)
        weight = 2 * torch.rand(self.shape(batch, units), generator=generator)
        weight.view(-1)[2::3] = 0
        weight.view(-1)[:1] = 0.5
        weight.view(-1)[-1:] = 0
        return weight

    def mask(self, batch: int = 5, units: int = 4) -> Tensor:
        """Return a mask, one per element of the loss; every fourth is False."""
        mask = torch.ones(self.shape(batch, units), dtype=torch.bool)
        mask.view(-1)[1::4] = False
        return mask

    def middle(self, batch: int = 5, units: int = 4) -> Index:
        """Return the index of an element that is neither the first nor the last."""
        return tuple(size // 2 for size in self.shape(batch, units))


def loss_and_gradients(
    loss: BaseLoss, pred: Tree, target: Tree, *args: Any, **kwargs: Any
) -> tuple[Tensor, list[Tensor]]:
    """Return the loss and, after backward, the gradient of each floating-point leaf of pred."""
    pred = with_grad(pred)
    value = loss(pred, target, *args, **kwargs)
    value.sum().backward()
    return value.detach(), gradients(pred)
