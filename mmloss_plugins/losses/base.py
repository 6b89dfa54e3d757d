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
from torch.utils._pytree import tree_flatten, tree_leaves

from mmloss_plugins.errors import check_choice, message, refuse_unknown
from mmloss_plugins.functional.debug import is_compiling
from mmloss_plugins.functional.reduction import (
    REDUCTIONS,
    AvgFactor,
    divide,
    expand_weight,
    reduce_loss,
)
from mmloss_plugins.functional.shapes import check_same_shape


class BaseLoss(nn.Module):
    """Weighting, reduction and argument checks shared by the registered losses.

    A subclass implements :meth:`elementwise`; its constructor passes what it does not read
    itself on to this one, which refuses what nobody reads. Losses whose target carries weights,
    ignored elements or a count of positives override the hooks below it.

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

    #: Choices of ``mean_over``; a subclass that counts something else adds its own.
    MEAN_OVER: tuple[str, ...] = ('all', 'valid')

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
        check_choice(name, 'mean_over', mean_over, self.MEAN_OVER)
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
        self.check_inputs(pred, target)
        if not self.use_target_weight:
            weight = None
        weight = self.element_weight(weight, pred, target)
        mask = self.element_mask(mask, pred, target)
        if avg_factor is None and reduction == 'mean':
            avg_factor = self.default_avg_factor(weight, mask, pred, target)
        if weight is None and mask is None and reduction != 'none':
            total = self.summed(pred, target)
            if total is not None:
                count = self.loss_shape(pred).numel()
                loss = divide(total, count, reduction, avg_factor, self.loss_name)
                return loss * self.loss_weight
        loss = self.elementwise(pred, target)
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

    def summed(self, pred: Any, target: Any) -> Tensor | None:
        """Return the sum of :meth:`elementwise` without storing the elements, None if it cannot."""
        return None

    def check_inputs(self, pred: Any, target: Any) -> None:
        """Refuse wrong types and shapes; here: tensors of one shape."""
        check_same_shape(self.loss_name, pred, target)

    def loss_shape(self, pred: Any) -> torch.Size:
        """Return the shape of the unreduced loss; here: that of ``pred``."""
        shape: torch.Size = pred.shape
        return shape

    def element_weight(self, weight: Tensor | None, pred: Any, target: Any) -> Tensor | None:
        """Return the weight of the elements of the loss; a hook for per-keypoint factors."""
        return weight

    def element_mask(self, mask: Tensor | None, pred: Any, target: Any) -> Tensor | None:
        """Return the validity of the elements of the loss; a hook for ignored labels."""
        return mask

    def default_avg_factor(
        self, weight: Tensor | None, mask: Tensor | None, pred: Any, target: Any
    ) -> AvgFactor | None:
        """Return what 'mean' divides by; None stands for the number of elements."""
        if self.mean_over == 'all':
            return None
        return count_valid(
            tree_leaves(pred)[0], self.loss_shape(pred), weight, mask, self.loss_name
        )

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
    like: Tensor,
    shape: torch.Size,
    weight: Tensor | None,
    mask: Tensor | None,
    what: str = 'count_valid',
) -> Tensor:
    """Return the number of valid elements per rank, averaged over ranks.

    Args:
        like: a tensor on the device of the loss.
        shape: of the unreduced loss.
        weight: an element of weight 0 is not valid; matched from the left.
        mask: validity; matched from the left.
        what: name of the loss, for the error text.

    Returns:
        0-d tensor, see :func:`average_over_ranks`.
    """
    valid = torch.ones(shape, dtype=torch.bool, device=like.device)
    if weight is not None:
        valid = valid & (expand_weight(weight, shape, what) != 0)
    if mask is not None:
        valid = valid & expand_weight(mask, shape, what, 'mask').bool()
    return average_over_ranks(valid.sum())


def average_over_ranks(count: Tensor) -> Tensor:
    """Return ``count`` averaged over the ranks, at least 1 in total over them, as float32.

    Dividing each rank's sum by it and averaging the gradients gives the gradient of one process
    that sees the whole batch.
    """
    count = count.to(torch.float32, copy=True)
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
