"""The closed-form gradients are those of the values, also behind a grad_output other than 1."""

from __future__ import annotations

import torch
from torch.utils._pytree import tree_flatten, tree_unflatten

from tests.contract.trees import float_leaves, gradients


def function_of_leaves(subject, outer, **options):
    """Return (function, leaves): a scalar of the float64 prediction alone."""
    pred, target = subject.make(2, 3, dtype=torch.float64)
    weight = subject.weight(2, 3).double()
    mask = torch.ones(subject.shape(2, 3), dtype=torch.bool)
    mask.view(-1)[1] = False
    flat, layout = tree_flatten(pred)
    floats = [leaf for leaf in flat if torch.is_tensor(leaf) and leaf.is_floating_point()]

    def function(*values):
        values = iter(values)
        full = [next(values) if any(leaf is f for f in floats) else leaf for leaf in flat]
        loss = subject.build(**options)(tree_unflatten(full, layout), target, weight, mask)
        return outer(loss)

    return function, floats


def test_gradcheck_of_the_unreduced_loss(subject):
    if subject.variant.surrogate:
        return
    factors = torch.rand(subject.shape(2, 3), dtype=torch.float64) + 0.5
    function, floats = function_of_leaves(
        subject, lambda loss: (factors * loss).sum(), reduction='none'
    )
    assert torch.autograd.gradcheck(function, floats)


def test_gradcheck_of_the_mean(subject):
    if subject.variant.surrogate:
        return
    function, floats = function_of_leaves(subject, lambda loss: loss**2 + 3 * loss, loss_weight=0.7)
    assert torch.autograd.gradcheck(function, floats)


def test_backward_scales_with_grad_output(subject):
    once, target = subject.make()
    subject.build()(once, target).backward()
    scaled, _ = subject.make()
    subject.build()(scaled, target).backward(torch.tensor(-4.0))
    torch.testing.assert_close(gradients(scaled), [-4 * gradient for gradient in gradients(once)])


def test_backward_twice_accumulates(subject):
    pred, target = subject.make()
    loss = subject.build()(pred, target)
    loss.backward(retain_graph=True)
    once = [gradient.clone() for gradient in gradients(pred)]
    loss.backward()
    torch.testing.assert_close(gradients(pred), [2 * gradient for gradient in once])


def test_targets_get_no_gradient(subject):
    pred, target = subject.make()
    subject.build()(pred, target).backward()
    assert all(leaf.grad is None for leaf in float_leaves(target))
