"""What BaseLoss does that no registered loss shows."""

from __future__ import annotations

import pytest
import torch

from mmloss_plugins.losses.base import BaseLoss, count_valid


class SquaredError(BaseLoss):
    """The smallest loss that a user can write."""

    def __init__(self, power: float = 2.0, **base_options):
        super().__init__(**base_options)
        self.power = power

    def elementwise(self, pred, target):
        return (pred - target).abs() ** self.power


PRED = torch.tensor([[1.0, 2.0], [3.0, 5.0]])
ZERO = torch.zeros(2, 2)


def test_a_subclass_needs_elementwise_alone():
    loss = SquaredError(reduction='sum', loss_weight=0.5)
    # (1 + 4 + 9 + 25) / 2
    assert loss(PRED, ZERO) == 19.5
    assert SquaredError(power=1.0)(PRED, ZERO, torch.tensor([1.0, 0.0])) == 0.75


def test_a_subclass_without_elementwise_says_so():
    with pytest.raises(TypeError, match='BaseLoss: elementwise must be implemented'):
        BaseLoss()(PRED, ZERO)


def test_arguments_of_subclass_and_base_are_known():
    with pytest.raises(TypeError) as caught:
        SquaredError(pwoer=1.0)
    text = str(caught.value)
    assert text.startswith('SquaredError: argument must be one of power, reduction, ')
    assert text.endswith("got 'pwoer'. Did you mean 'power'?")


def test_name_defaults_to_the_class():
    assert SquaredError().loss_name == 'SquaredError'
    assert SquaredError(loss_name='size').loss_name == 'size'
    assert 'loss_weight=0.5' in repr(SquaredError(loss_weight=0.5))


@pytest.mark.parametrize(
    ('weight', 'mask', 'expected'),
    [
        (None, None, 4),
        (torch.tensor([[1.0, 0.0], [0.3, 2.0]]), None, 3),
        (None, torch.tensor([True, False]), 2),
        (torch.tensor([[1.0, 0.0], [0.3, 2.0]]), torch.tensor([False, True]), 2),
        (torch.tensor([[1.0, 0.0], [0.3, 2.0]]), torch.tensor([[False, True], [False, False]]), 1),
    ],
)
def test_count_valid(weight, mask, expected):
    """At least 1: the last row has weights and a mask that leave nothing."""
    count = count_valid(PRED, PRED.shape, weight, mask)
    assert count.shape == ()
    assert count == expected
