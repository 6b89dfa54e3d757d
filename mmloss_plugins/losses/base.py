"""The contract that every registered loss keeps."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Hashable
from typing import Any, Callable

import torch
from mmengine.dist import all_reduce, get_world_size
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from mmloss_plugins.errors import check_choice, message, refuse_unknown
from mmloss_plugins.functional.debug import is_compiling
from mmloss_plugins.functional.reduction import (
    REDUCTIONS,
    AvgFactor,
    expand_weight,
    reduce_loss,
)

MEAN_OVER = ('all', 'valid')


class BaseLoss(nn.Module):
    """Weighting, reduction and argument checks shared by the registered losses.

    A subclass implements :meth:`elementwise`; its constructor passes what it does not read
    itself on to this one, which refuses what nobody reads.

    Args:
        reduction: 'mean', 'sum' or 'none'.
        mean_over: what 'mean' divides by when ``avg_factor`` is not given. 'all': the number of
            elements, masked ones included (authors, hosts). 'valid': the number of elements
            with non-zero weight and True mask, averaged over ranks, so that the total gradient
            does not depend on the number of processes; never below 1 in total.
        loss_weight: factor on the reduced loss.
        use_target_weight: whether ``weight`` is applied; False ignores it.
        loss_name: name of this loss in diagnostics and logs. Defaults to the class name.
        compile: run the element-wise part through ``torch.compile(fullgraph=True)``.

    Raises:
        TypeError: an unknown argument.
        ValueError: ``reduction`` or ``mean_over`` is not one of the above.
    """

    def __init__(
        self,
        *,
        reduction: str = 'mean',
        mean_over: str = 'all',
        loss_weight: float = 1.0,
        use_target_weight: bool = True,
        loss_name: str | None = None,
        compile: bool = False,  # noqa: A002
        **unknown: Any,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        refuse_unknown(name, unknown, _known_arguments(type(self)))
        check_choice(name, 'reduction', reduction, REDUCTIONS)
        check_choice(name, 'mean_over', mean_over, MEAN_OVER)
        self.reduction = reduction
        self.mean_over = mean_over
        self.loss_weight = loss_weight
        self.use_target_weight = use_target_weight
        self.loss_name = loss_name or name
        self.use_compile = compile

    def forward(
        self,
        pred: Any,
        target: Any,
        weight: Tensor | None = None,
        mask: Tensor | None = None,
        *,
        avg_factor: AvgFactor | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """Return ``loss_weight`` times the reduced loss.

        Args:
            pred: prediction, as :meth:`elementwise` takes it.
            target: target, as :meth:`elementwise` takes it.
            weight: soft factors; dimensions match the element-wise loss from the left. Zero
                means no contribution and no gradient, even at inf or NaN.
            mask: boolean validity, shaped like ``weight``.
            avg_factor: divide the sum by this ('mean' only), as in MMDetection; 0 divides by 1.
            reduction_override: takes the place of ``reduction`` for this call.

        Returns:
            A scalar, or the element-wise loss for 'none'.
        """
        reduction = self.reduction if reduction_override is None else reduction_override
        check_choice(self.loss_name, 'reduction_override', reduction, REDUCTIONS)
        if not self.use_target_weight:
            weight = None
        loss = self.elementwise(pred, target)
        weight = self.element_weight(weight, loss)
        if avg_factor is None and reduction == 'mean':
            avg_factor = self.default_avg_factor(loss, weight, mask)
        loss = reduce_loss(
            loss, weight, mask, reduction=reduction, avg_factor=avg_factor, what=self.loss_name
        )
        return loss * self.loss_weight

    def elementwise(self, pred: Any, target: Any) -> Tensor:
        """Return the unreduced, unweighted loss; one element per unit that can be masked."""
        raise TypeError(
            message(
                type(self).__name__,
                'elementwise',
                'be implemented by the subclass',
                'none',
                'Return a call of the function in mmloss_plugins.functional',
            )
        )

    def element_weight(self, weight: Tensor | None, loss: Tensor) -> Tensor | None:
        """Return the weight of the elements of ``loss``; a hook for per-keypoint factors."""
        return weight

    def default_avg_factor(
        self, loss: Tensor, weight: Tensor | None, mask: Tensor | None
    ) -> AvgFactor | None:
        """Return what 'mean' divides by; None stands for the number of elements."""
        if self.mean_over == 'all':
            return None
        return count_valid(loss, weight, mask, self.loss_name)

    def run(self, function: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Call ``function``, compiled if the loss was built with ``compile=True``."""
        if self.use_compile and not is_compiling():
            dtypes = tuple(x.dtype for x in tree_flatten(args)[0] if isinstance(x, Tensor))
            key = (tuple(kwargs.items()), dtypes, torch.is_grad_enabled())
            function = _compiled(function, key)
        return function(*args, **kwargs)

    def extra_repr(self) -> str:
        return f'reduction={self.reduction!r}, loss_weight={self.loss_weight}'


def count_valid(
    loss: Tensor, weight: Tensor | None, mask: Tensor | None, what: str = 'count_valid'
) -> Tensor:
    """Return the number of valid elements per rank, averaged over ranks, as a 0-d tensor.

    At least 1 in total over the ranks: dividing each rank's sum by it and averaging the
    gradients gives the gradient of one process that sees the whole batch.
    """
    valid = torch.ones_like(loss, dtype=torch.bool)
    if weight is not None:
        valid = valid & (expand_weight(weight, loss.shape, what) != 0)
    if mask is not None:
        valid = valid & expand_weight(mask, loss.shape, what, 'mask').bool()
    count = valid.sum().to(loss.dtype)
    all_reduce(count, op='mean')
    return count.clamp(min=1 / get_world_size())


@functools.cache
def _compiled(function: Callable[..., Tensor], key: Hashable) -> Callable[..., Tensor]:
    """One compiled function per equation and ``key``, outside the module so it can be pickled.

    torch.compile raises at the ninth specialisation of one code object, which two types, two
    grad modes and two losses reach within a step: each key gets a code object of its own.
    """
    assert inspect.isfunction(function)
    copied = types.FunctionType(
        function.__code__.replace(),
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copied.__kwdefaults__ = function.__kwdefaults__
    return torch.compile(copied, fullgraph=True)


def _known_arguments(loss: type[BaseLoss]) -> list[str]:
    names: dict[str, None] = {}
    for cls in (loss, BaseLoss):
        for name, parameter in inspect.signature(cls.__init__).parameters.items():
            if name != 'self' and parameter.kind is not inspect.Parameter.VAR_KEYWORD:
                names[name] = None
    return list(names)
