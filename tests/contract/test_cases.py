"""The case table covers every registered loss and gives the laws something to bite on."""

from __future__ import annotations

import inspect
import re

import torch

from mmloss_plugins.losses.base import BaseLoss
from tests.contract.cases import CASES
from tests.contract.subject import registered_losses, without_case
from tests.contract.trees import leaves, map_floats


def test_every_registered_loss_has_a_case():
    losses = registered_losses()
    assert len(losses) >= 1
    assert not without_case(losses), '\n'.join(without_case(losses))


def test_a_loss_without_a_case_is_reported_with_the_place_to_add_one():
    class Uncased(BaseLoss):
        pass

    (text,) = without_case({'Uncased': Uncased})
    assert text.startswith('contract suite: Uncased must have a case, got none.')
    assert 'tests/contract/cases/' in text


def test_every_case_belongs_to_a_registered_loss():
    assert set(CASES) == set(registered_losses())


def test_inputs_are_not_contiguous_and_sizes_differ(plain):
    pred, target = plain.make()
    assert plain.shape()[0] >= 2
    assert all(not leaf.is_contiguous() for leaf in leaves(pred, target) if leaf.numel() > 1)
    for leaf in leaves(pred):
        assert len(set(leaf.shape)) == leaf.dim(), 'equal sizes hide a transposed dimension'


def test_the_shape_of_the_case_is_that_of_the_loss(subject):
    loss = subject.build(reduction='none')
    assert loss(*subject.make()).shape == subject.shape()
    assert loss(*subject.make(2, 5)).shape == subject.shape(2, 5)


def test_contiguous_inputs_give_the_same(subject):
    loss = subject.build(reduction='none')
    pred, target = subject.make()
    dense = [map_floats(lambda leaf: leaf.contiguous(), tree) for tree in (pred, target)]
    torch.testing.assert_close(loss(*dense), loss(pred, target))


def test_every_argument_changes_the_loss_or_has_a_reason(plain):
    arguments = constructor_arguments(type(plain.build()))
    listed = {**plain.case.changes, **plain.case.no_effect}
    assert set(arguments) == set(listed), f'list these in the case of {plain.name}'
    assert not set(plain.case.changes) & set(plain.case.no_effect)
    assert all(len(reason) > 10 for reason in plain.case.no_effect.values())


def test_listed_arguments_change_the_loss(plain):
    weight = plain.weight()
    for argument, change in plain.case.changes.items():
        pred, target = (change.make or plain.case.make)(5, 4, 0, torch.float32)
        before = plain.build(**change.options)(pred, target, weight)
        after = plain.build(**change.options, **{argument: change.value})(pred, target, weight)
        assert not torch.isclose(before, after), f'{argument}={change.value!r} changes nothing'


def test_every_argument_is_documented(plain):
    cls = type(plain.build())
    documented = '\n'.join(
        inspect.getdoc(base) or '' for base in cls.__mro__ if issubclass(base, BaseLoss)
    )
    for argument in constructor_arguments(cls):
        assert re.search(rf'^\s+{argument}: \S', documented, re.MULTILINE), (
            f'the docstring of {plain.name} does not explain {argument}'
        )


def constructor_arguments(cls: type[BaseLoss]) -> list[str]:
    """Return the names that the constructors of a loss and of its bases take."""
    return list(
        dict.fromkeys(
            name
            for base in cls.__mro__
            if issubclass(base, BaseLoss)
            for name, parameter in inspect.signature(base.__init__).parameters.items()
            if name != 'self' and parameter.kind is not parameter.VAR_KEYWORD
        )
    )
