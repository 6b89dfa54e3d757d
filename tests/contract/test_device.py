"""Laws 7 and 8: no value is read back, no loop over elements, little memory, nothing in place."""

from __future__ import annotations

import collections

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from mmloss_plugins.functional import value_checks
from tests.contract.subject import loss_and_gradients
from tests.contract.trees import leaves

# Operators that hand a value or a size that depends on values to the host.
SYNCING = {
    '_local_scalar_dense',
    '_unique2',
    'bincount',
    'equal',
    'is_nonzero',
    'item',
    'masked_select',
    'nonzero',
    'repeat_interleave',
    'unique_consecutive',
    'unique_dim',
}


class NoSync(TorchDispatchMode):
    """Raise where an operator would wait for the device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in SYNCING:
            raise AssertionError(f'{name} waits for the device')
        if name in ('index', 'index_put', 'index_put_'):
            indices = [index for index in args[1] if index is not None]
            if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
                raise AssertionError(f'{name} with a boolean index waits for the device')
        return func(*args, **(kwargs or {}))


class Operators(TorchDispatchMode):
    """Count the operators that run."""

    def __init__(self):
        super().__init__()
        self.counts = collections.Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[str(func)] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    'read',
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).any()),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x.unique(),
        lambda x: x.masked_select(x > 0),
    ],
)
def test_the_mode_notices_a_sync(read):
    with NoSync(), pytest.raises(AssertionError, match='waits for the device'):
        read(torch.randn(3, 2))


@pytest.mark.parametrize('reduction', ['none', 'sum', 'mean', 'valid'])
def test_no_sync(subject, reduction):
    options = {'reduction': reduction}
    if reduction == 'valid':
        if not subject.variant.can_mean_over_valid:
            return
        options = {'mean_over': 'valid'}
    loss = subject.build(**options)
    pred, target = subject.make()
    weight = subject.weight()
    averages = [{}] if reduction == 'sum' else [{}, {'avg_factor': torch.tensor(3.0)}]
    with value_checks(False), NoSync():
        for average in averages:
            value, found = loss_and_gradients(loss, pred, target, weight, weight != 0, **average)
    assert value.isfinite().all()
    assert any((gradient != 0).any() for gradient in found)


def test_no_value_is_needed(subject):
    """On the meta device there are no values: whatever reads one raises."""

    def to_meta(tree):
        return tree_map(lambda leaf: leaf.detach().to('meta'), tree)

    pred, target = (to_meta(tree) for tree in subject.make())
    weight = subject.weight().to('meta')
    loss = subject.build().to('meta')
    with value_checks(False):
        value, found = loss_and_gradients(
            loss, pred, target, weight, weight != 0, avg_factor=weight.sum()
        )
    assert value.shape == ()
    assert [gradient.shape for gradient in found] == [leaf.shape for leaf in leaves(pred)]


def test_no_loop_over_elements(subject):
    def count(batch, units):
        # A new one: the gradient of parameters adds up over calls.
        loss = subject.build()
        pred, target = subject.make(batch, units)
        weight = subject.weight(batch, units)
        with Operators() as operators:
            loss_and_gradients(loss, pred, target, weight, weight != 0)
        return operators.counts

    assert count(2, 2) == count(5, 7)
    assert sum(count(2, 2).values()) > 3


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16], ids=str)
def test_at_most_one_tensor_of_the_input_is_kept_for_backward(subject, dtype):
    pred, target = subject.make(16, 9, dtype=dtype)
    weight = torch.rand(subject.shape(16, 9)[:1])
    given = {leaf.untyped_storage().data_ptr() for leaf in leaves(pred, target, weight)}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in given:
            kept[storage.data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        value = subject.build()(pred, target, weight)
    # One float32 of the size of pred; a quarter more for weights and their conditions.
    allowed = 1.25 * 4 * sum(leaf.numel() for leaf in leaves(pred))
    assert sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) <= allowed
    value.backward()
    assert all(leaf.grad is not None for leaf in leaves(pred))


def test_nothing_is_changed_in_place(subject):
    pred, target = subject.make()
    weight = subject.weight()
    mask = weight != 0
    before = [leaf.detach().clone() for leaf in leaves(pred, target, weight, mask)]
    loss_and_gradients(subject.build(), pred, target, weight, mask)
    after = [leaf.detach() for leaf in leaves(pred, target, weight, mask)]
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    factor = torch.tensor(0.0)
    subject.build()(pred, target, weight, mask, avg_factor=factor)
    assert factor == 0
