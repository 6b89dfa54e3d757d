"""One mechanism for every element-wise loss whose gradient is known in closed form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from mmloss_plugins.functional.debug import is_compiling

# Of float32, a chunk and the temporaries of an equation stay in the second-level cache of a CPU.
CHUNK = 32768
HALF_LIMIT = torch.finfo(torch.float16).max / 2


class Equation(Protocol):
    """An element-wise loss L(x, ...) and its derivative dL/dx, on tensors of one shape.

    ``x`` is float32 or float64 and belongs to the caller, as all inputs do: an equation may work
    in place on its own temporaries alone.
    """

    def __call__(self, x: Tensor, *constants: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
        """Return (L, dL/dx)."""


def closed_form(
    equation: Equation, pred: Tensor, *constants: Tensor, summed: bool = False, **options: Any
) -> Tensor:
    """Evaluate an element-wise loss and keep one tensor, its gradient, for backward.

    Autograd keeps a tensor per operator of the formula and reads and writes main memory for each.
    Here the equation runs in chunks that fit the cache of a CPU, and in one piece on a GPU and
    under ``torch.compile``, which fuses it.

    Args:
        equation: returns loss and derivative of its inputs; see :class:`Equation`.
        pred: x, any shape and floating-point type; half precision is computed in float32.
        constants: tensors that broadcast to ``pred`` and get no gradient, such as the target;
            boolean and integer ones are handed on as x's type.
        summed: return the sum instead of the elements, which then are never stored.
        options: handed on to ``equation``.

    Returns:
        Shape of ``pred``, or a scalar for ``summed``; float32 (float64 for float64 ``pred``).
        An element behind a ``grad_output`` of exactly 0 gets gradient 0, even where its
        derivative is NaN; behind ``summed`` there are no such elements.

    Example:
        >>> import torch
        >>> def square(x, t):
        ...     return (x - t) ** 2, 2 * (x - t)
        >>> x = torch.tensor([1.0, 3.0], requires_grad=True)
        >>> loss = closed_form(square, x, torch.zeros(2), summed=True)
        >>> loss.backward()
        >>> loss.item(), x.grad
        (10.0, tensor([2., 6.]))
    """
    constants = tuple(constant.detach() for constant in constants)
    loss: Tensor
    loss, _ = _ClosedForm.apply(  # type: ignore[no-untyped-call]
        equation, summed, options, pred, *constants
    )
    return loss


class _ClosedForm(torch.autograd.Function):
    @staticmethod
    def forward(
        equation: Equation,
        summed: bool,
        options: Mapping[str, Any],
        pred: Tensor,
        *constants: Tensor,
    ) -> tuple[Tensor, Tensor]:
        if is_compiling() or pred.is_cuda or pred.numel() <= CHUNK:
            loss, grad = _evaluate(equation, options, pred, constants)
            return (loss.sum() if summed else loss), grad
        dtype = _compute_dtype(pred)
        grad = torch.empty(pred.shape, dtype=dtype, device=pred.device)
        loss = grad.new_zeros(()) if summed else torch.empty_like(grad)
        pieces = zip(_split(grad), _chunks(pred, constants))
        losses = None if summed else iter(_split(loss))
        for grad_piece, (x, *others) in pieces:
            value, slope = _evaluate(equation, options, x, others)
            grad_piece.copy_(slope)
            if losses is None:
                loss += value.sum()
            else:
                next(losses).copy_(value)
        return loss, grad

    @staticmethod
    def setup_context(ctx, inputs, output):  # type: ignore[no-untyped-def]
        _, ctx.summed, _, pred, *constants = inputs
        ctx.dtype, ctx.constants = pred.dtype, len(constants)
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(output[1])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_output, _):  # type: ignore[no-untyped-def]
        if grad_output is None:
            return None, None, None, None, *[None] * ctx.constants
        (slope,) = ctx.saved_tensors
        if ctx.dtype == torch.float16:
            # A slope such as 2 * 65504 has no float16; the half leaves room for weights up to 2.
            slope = slope.clamp(-HALF_LIMIT, HALF_LIMIT)
        grad = slope * grad_output
        if not ctx.summed:
            # A weight of zero has to silence an element however wild its derivative is.
            grad.masked_fill_(grad_output == 0, 0)
        return None, None, None, grad.to(ctx.dtype), *[None] * ctx.constants


def _evaluate(
    equation: Equation, options: Mapping[str, Any], pred: Tensor, constants: Any
) -> tuple[Tensor, Tensor]:
    dtype = _compute_dtype(pred)
    return equation(pred.to(dtype), *(c.to(dtype) for c in constants), **options)


def _chunks(pred: Tensor, constants: tuple[Tensor, ...]) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(_split(tensor.expand(pred.shape)) for tensor in (pred, *constants)))


def _split(tensor: Tensor) -> tuple[Tensor, ...]:
    """Return pieces of the flattened tensor: views where it is contiguous."""
    pieces: tuple[Tensor, ...]
    pieces = tensor.reshape(-1).split(CHUNK)  # type: ignore[no-untyped-call]
    return pieces


def _compute_dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32
