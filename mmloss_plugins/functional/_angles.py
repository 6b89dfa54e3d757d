"""Normalised vectors, and the angle between each sample and its own class."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Union

import torch
from torch import Tensor

Margin = Union[float, Tensor]
# A vector shorter than this has no direction: it counts as if its length were 1.
SHORTEST = 1e-12


def full_precision(device: torch.device) -> Any:
    """Return a context in which products of float32 matrices stay float32 under autocast."""
    # Autocast does not know the device without memory.
    return torch.autocast('cpu' if device.type == 'meta' else device.type, enabled=False)


def unit(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return x / |x| over the last dimension, and 1 / |x| with that dimension kept.

    Args:
        x: (..., D), float32 or float64. A vector shorter than 1e-12 is divided by 1, so that its
            cosines are 0 and its gradient is finite.

    Example:
        >>> import torch
        >>> unit(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
        (tensor([[0.6000, 0.8000],
                [0.0000, 0.0000]]), tensor([[0.2000],
                [1.0000]]))
    """
    inverse = inverse_norm(x)
    return x * inverse, inverse


def inverse_norm(x: Tensor) -> Tensor:
    """Return 1 / |x| over the last dimension, which is kept, and 1 where there is no direction."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return torch.where(norm < SHORTEST, 1, norm).reciprocal_()


def through_unit(grad: Tensor, x_unit: Tensor, inverse: Tensor) -> Tensor:
    """Return the gradient of x, in place, given that of x / |x|.

    Args:
        grad: (..., D), overwritten.
        x_unit: x / |x|.
        inverse: 1 / |x|.
    """
    along = (grad * x_unit).sum(-1, keepdim=True)
    return grad.addcmul_(x_unit, along, value=-1).mul_(inverse)


class OwnClass(NamedTuple):
    """Where each sample stands to its own class, or to the nearest sub-centre of it.

    The gradient of the angle is the unit tangent, divided by the norm: it needs no derivative of
    the arc cosine, which is infinite at +-1. At an angle of exactly 0 or pi a tangent has no
    direction and is 0.

    Attributes:
        cosine: (B,).
        sine: (B,), at least 0; from the tangent, which is right where 1 - cosine^2 rounds to 0.
        toward_class: (B, D) unit tangent at the sample that points to the class.
        toward_sample: (B, D) unit tangent at the class that points to the sample.
        row: (B,) index of the class, or sub-centre, in the flattened weights.
        inverse: (B, 1), 1 / |w|.
    """

    cosine: Tensor
    sine: Tensor
    toward_class: Tensor
    toward_sample: Tensor
    row: Tensor
    inverse: Tensor


def own_class(x_unit: Tensor, class_weights: Tensor, index: Tensor) -> OwnClass:
    """Measure the angles to the own classes.

    Args:
        x_unit: (B, D), normalised.
        class_weights: (C, D), or (C, K, D) with K sub-centres.
        index: (B,) classes within 0...C-1.
    """
    found, inverse = unit(class_weights[index].to(x_unit.dtype))
    row = index
    if found.dim() == 3:
        best = (found * x_unit.unsqueeze(1)).sum(-1).argmax(1)
        sample = torch.arange(len(index), device=index.device)
        found, inverse = found[sample, best], inverse[sample, best]
        row = index * class_weights.shape[1] + best
    cosine = (x_unit * found).sum(-1, keepdim=True)
    toward_class, sine = _direction(found - cosine * x_unit)
    toward_sample, other_sine = _direction(x_unit - cosine * found)
    # One of them is 0 where the other vector is, which stands at a right angle to everything.
    sine = torch.maximum(sine, other_sine)
    return OwnClass(cosine.squeeze(-1), sine.squeeze(-1), toward_class, toward_sample, row, inverse)


def with_margin(
    cosine: Tensor, sine: Tensor, margins: tuple[float, Margin, Margin], rule: str
) -> tuple[Tensor, Tensor]:
    """Return cos(m1 theta + m2) - m3 after ``rule``, and minus its derivative in theta.

    Args:
        cosine: of theta, (B,).
        sine: of theta, (B,).
        margins: m1, m2, m3; the last two a number or one per sample.
        rule: see :func:`functional.combined_margin_logits`.

    Example:
        >>> import torch
        >>> right_angle = torch.tensor([0.0]), torch.tensor([1.0])
        >>> with_margin(*right_angle, (1.0, 0.5, 0.0), 'off')  # -sin(0.5), cos(0.5)
        (tensor([-0.4794]), tensor([0.8776]))
    """
    m1, m2, m3 = margins
    cos_m2, sin_m2 = _cosine_and_sine(m2)
    if m1 == 1:
        value = cosine * cos_m2 - sine * sin_m2
        pull = sine * cos_m2 + cosine * sin_m2
    else:
        angle = m1 * torch.atan2(sine, cosine) + m2
        value, pull = angle.cos(), m1 * angle.sin()
    if rule == 'easy':
        value, pull = _choose(cosine > 0, (value, pull), (cosine, sine))
    elif rule == 'monotonic' and m1 == 1:
        # theta + m2 > pi is where its sine is negative.
        value, pull = _choose(pull < 0, (cosine - m2 * sin_m2, sine), (value, pull))
    elif rule == 'monotonic':
        turns = torch.floor(angle / math.pi)
        sign = 1 - 2 * torch.remainder(turns, 2)
        value, pull = sign * value - 2 * turns, sign * pull
    return value - m3, pull


def _choose(
    condition: Tensor, yes: tuple[Tensor, Tensor], no: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    return torch.where(condition, yes[0], no[0]), torch.where(condition, yes[1], no[1])


def _cosine_and_sine(m: Margin) -> tuple[Margin, Margin]:
    return (m.cos(), m.sin()) if isinstance(m, Tensor) else (math.cos(m), math.sin(m))


def _direction(x: Tensor) -> tuple[Tensor, Tensor]:
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / torch.where(norm == 0, 1, norm), norm
