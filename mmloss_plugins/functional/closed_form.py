"""One mechanism for every element-wise loss whose gradient is known in closed form."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Callable

import torch
from torch import Tensor

from mmloss_plugins.functional.debug import is_compiling

# Of float32, a chunk and the temporaries of an equation stay in the caches of a CPU core.
CHUNK = 65536
# Elements below which the number of operators counts more than what they do.
SMALL = 8192
HALF_LIMIT = torch.finfo(torch.float16).max / 2


# equation(x, *constants, **options) returns an element-wise loss L(x) and its derivative dL/dx, two
# tensors of x's shape. All tensors it is given have one shape, and x's type: float32 or float64.
# They belong to the caller: an equation may work in place on its own temporaries alone, and returns
# two new tensors, for backward overwrites the derivative.
Equation = Callable[..., tuple[Tensor, Tensor]]


def closed_form(
    equation: Equation, pred: Tensor, *constants: Tensor, summed: bool = False, **options: Any
) -> Tensor:
    """Evaluate an element-wise loss and keep one tensor, its gradient, for backward.

    Autograd keeps a tensor per operator of the formula and reads and writes main memory for each.
    Here the equation runs in chunks that fit the cache of a CPU, and in one piece on a GPU and
    under ``torch.compile``, which fuses it.

    Args:
        equation: returns loss and derivative of its inputs; see ``Equation`` above.
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
    constants = tuple(constant.detach().expand(pred.shape) for constant in constants)
    equation = partial(equation, **options)
    # torch.compile miscounts the arguments of forward where there is nothing to differentiate.
    differentiate = torch.is_grad_enabled() and pred.requires_grad
    evaluate = _ClosedForm.apply if differentiate else _ClosedForm.forward
    loss: Tensor = evaluate(equation, summed, pred, *constants)[0]
    return loss


def indicator(
    compare: Callable[..., Tensor], x: Tensor, other: Tensor | float, like: Tensor
) -> Tensor:
    """Return ``compare(x, other)`` as 0 and 1 of the type and shape of ``like``, a new tensor.

    On a CPU a boolean tensor, and what selects by it, costs five times as much as arithmetic.

    Args:
        compare: ``torch.eq``, ``torch.ge``, ...
        x: left side.
        other: right side.
        like: gives type, device and shape of the result.
    """
    if is_compiling():
        return compare(x, other).to(like.dtype)
    return compare(x, other, out=torch.empty_like(like))


class _ClosedForm(torch.autograd.Function):
    @staticmethod
    def forward(
        equation: Equation,
        summed: bool,
        pred: Tensor,
        *constants: Tensor,
    ) -> tuple[Tensor, Tensor]:
        if is_compiling() or pred.is_cuda or pred.numel() <= CHUNK:
            loss, grad = _evaluate(equation, pred, constants)
            return (loss.sum() if summed else loss), grad
        grad = torch.empty_like(pred, dtype=compute_dtype(pred))
        loss = grad.new_zeros(()) if summed else torch.empty_like(grad)
        elements = loss.expand(pred.shape)
        for grad_piece, loss_piece, x, *others in _pieces(grad, elements, pred, *constants):
            value, slope = _evaluate(equation, x, others)
            grad_piece.copy_(slope)
            if summed:
                loss += value.sum()
            else:
                loss_piece.copy_(value)
        return loss, grad

    @staticmethod
    def setup_context(ctx, inputs, output):  # type: ignore[no-untyped-def]
        _, ctx.summed, pred, *constants = inputs
        ctx.dtype, ctx.constants = pred.dtype, len(constants)
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(output[1])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_output, _):  # type: ignore[no-untyped-def]
        if grad_output is None:
            return None, None, None, *[None] * ctx.constants
        (slope,) = ctx.saved_tensors
        grad = slope.mul(grad_output) if _kept_for_later() else slope.mul_(grad_output)
        grad = finish_gradient(grad, grad_output, ctx.dtype, silence=not ctx.summed)
        return None, None, grad, *[None] * ctx.constants


def with_slope(evaluate: Callable[..., tuple[Tensor, Tensor]], pred: Tensor, *others: Any) -> Any:
    """Evaluate a loss of parts of a prediction; keep one tensor, its gradient, for backward.

    Args:
        evaluate: ``evaluate(pred, *others)`` returns (loss, slope): the loss has the leading
            dimensions of ``pred``, and the slope, in the shape of ``pred``, is the derivative of
            each element with respect to its own part of ``pred``, the only one that it depends on.
            Both are new tensors; backward overwrites the slope.
        pred: prediction, any floating-point type.
        others: handed on; they get no gradient.

    Returns:
        The loss, a tensor. An element behind a ``grad_output`` of exactly 0 gets gradient 0, even
        where its slope is NaN.
    """
    if torch.is_grad_enabled() and pred.requires_grad:
        return _WithSlope.apply(evaluate, pred, *others)  # type: ignore[no-untyped-call]
    return evaluate(pred, *others)[0]


class _WithSlope(torch.autograd.Function):
    # With setup_context every call would inspect the signature of forward: 10 us, a tenth of a
    # loss on maps of 7 x 7.
    @staticmethod
    def forward(ctx, evaluate, pred, *others):  # type: ignore[no-untyped-def]
        loss, slope = evaluate(pred, *others)
        ctx.dtype, ctx.others = pred.dtype, len(others)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(slope)
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_output):  # type: ignore[no-untyped-def]
        if grad_output is None:
            return None, None, *[None] * ctx.others
        (slope,) = ctx.saved_tensors
        behind = [1] * (slope.dim() - grad_output.dim())
        grad_output = grad_output.reshape(*grad_output.shape, *behind)
        grad = slope.mul(grad_output) if _kept_for_later() else slope.mul_(grad_output)
        grad = finish_gradient(grad, grad_output, ctx.dtype)
        return None, grad, *[None] * ctx.others


def finish_gradient(
    grad: Tensor, grad_output: Tensor, dtype: torch.dtype, silence: bool = True
) -> Tensor:
    """Turn slope * grad_output into the gradient of a prediction of type ``dtype``, in place.

    Args:
        grad: the product, float32 or float64.
        grad_output: as multiplied, broadcasts to ``grad``.
        dtype: of the prediction.
        silence: give elements with a ``grad_output`` of exactly 0 gradient 0: a weight of zero
            has to silence an element however wild its slope is.
    """
    if dtype == torch.float16:
        # A slope such as 2 * 65504 has no float16. What a GradScaler's factor makes too large
        # stays so, for the scaler has to see it.
        limit = HALF_LIMIT * grad_output.abs().clamp(min=1)
        grad = grad.clamp_(-limit, limit)
    if silence:
        _silence(grad, grad_output)
    return grad.to(dtype)


def _silence(grad: Tensor, grad_output: Tensor) -> None:
    """Set ``grad`` to 0 where ``grad_output`` is 0, in place, be it NaN or inf there."""
    on_rows = grad_output.numel() < grad.numel() > SMALL
    if is_compiling() or grad.device.type != 'cpu' or not on_rows:
        grad.masked_fill_(grad_output == 0, 0)
        return
    # A broadcast condition makes the fill on a CPU as slow as an exponential; an AND of the bits
    # takes a seventh of it.
    bits = torch.int64 if grad.dtype == torch.float64 else torch.int32
    grad.view(bits).bitwise_and_((grad_output != 0).to(bits).neg_())


def _kept_for_later() -> bool:
    """Whether this backward may run again; if not, the slope's memory can become the gradient's."""
    if is_compiling():
        return True
    ask = getattr(torch._C._autograd, '_get_current_graph_task_keep_graph', None)
    return ask is None or bool(ask())


def _evaluate(equation: Equation, pred: Tensor, constants: Any) -> tuple[Tensor, Tensor]:
    dtype = compute_dtype(pred)
    return equation(pred.to(dtype), *(c.to(dtype) for c in constants))


def _pieces(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield views of at most CHUNK elements of tensors of one shape, whatever their strides are."""
    shape = tensors[0].shape
    if shape.numel() <= CHUNK:
        yield tensors
        return
    rows = max(1, CHUNK // shape[1:].numel())
    split = [tensor.split(rows) for tensor in tensors]  # type: ignore[no-untyped-call]
    for pieces in zip(*split):
        yield from _pieces(*(piece[0] if rows == 1 else piece for piece in pieces))


def compute_dtype(x: Tensor) -> torch.dtype:
    """Return what a loss of ``x`` is computed in: half precision cannot hold its sums."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32
