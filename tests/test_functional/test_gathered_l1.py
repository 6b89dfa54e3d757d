"""L1 at the cells of objects against values by hand and the authors' formulas in float64 loops."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from mmloss_plugins.functional import (
    gather_cells,
    gathered_l1,
    l1_loss,
    smooth_l1_loss,
    value_checks,
)

B, N, C, H, W = 3, 5, 4, 6, 7


@pytest.fixture
def objects():
    """A map per class, values, cells and labels; objects 0 and 1 share a cell."""
    generator = torch.Generator().manual_seed(0)
    pred = torch.randn(B, 2 * C, H, W, dtype=torch.float64, generator=generator)
    target = torch.rand(B, N, 2, dtype=torch.float64, generator=generator) + 0.2
    index = torch.randint(0, H * W, (B, N), generator=generator)
    index[:, 1] = index[:, 0]
    labels = torch.randint(0, C, (B, N), generator=generator)
    return pred, target, index, labels


def loop(pred, target, index, labels, distance):
    """One coordinate of one object at a time."""
    found = torch.zeros(target.shape, dtype=torch.float64)
    for b in range(B):
        for n in range(N):
            row, column = divmod(index[b, n].item(), W)
            for d in range(2):
                channel = d if labels is None else 2 * labels[b, n].item() + d
                x, t = pred[b, channel, row, column].item(), target[b, n, d].item()
                found[b, n, d] = distance(x, t)
    return found


def smooth(x, t):
    return 0.5 * (x - t) ** 2 if abs(x - t) < 1 else abs(x - t) - 0.5


DISTANCES = {
    'l1': lambda x, t: abs(x - t),
    'smooth_l1': smooth,
    'normalized': lambda x, t: abs(x / (t + 1e-4) - 1),
}


def test_by_hand():
    # Cell 4 of 2 x 3 is row 1, column 1: channel 0 holds 4 there and channel 1 holds 10.
    pred = torch.arange(12.0).reshape(1, 2, 2, 3)
    index = torch.tensor([[4]])
    for penalty, expected in (
        ('l1', [0.5, 2.0]),
        ('smooth_l1', [0.125, 1.5]),
        ('normalized', [abs(4 / 4.5001 - 1), abs(10 / 8.0001 - 1)]),
    ):
        found = gathered_l1(pred, torch.tensor([[[4.5, 8.0]]]), index, penalty=penalty)
        assert_close(found, torch.tensor([[expected]]))


@pytest.mark.parametrize('by_class', [False, True], ids=['one', 'by class'])
@pytest.mark.parametrize('penalty', DISTANCES)
def test_the_authors_formulas(objects, penalty, by_class):
    pred, target, index, labels = objects
    if not by_class:
        pred, labels = pred[:, :2], None
    found = gathered_l1(pred, target, index, labels, penalty=penalty)
    assert_close(found, loop(pred, target, index, labels, DISTANCES[penalty]))


def test_objects_that_share_a_cell_both_count(objects):
    pred, target, index, _ = objects
    pred = pred[:, :2].clone().requires_grad_()
    gathered_l1(pred, target, index).sum().backward()
    expected = torch.zeros_like(pred)
    for b in range(B):
        for n in range(N):
            row, column = divmod(index[b, n].item(), W)
            expected[b, :, row, column] += (pred[b, :, row, column] - target[b, n]).sign().detach()
    assert_close(pred.grad, expected, rtol=0, atol=0)
    assert set(pred.grad.unique().tolist()) >= {-2.0, -1.0, 0.0, 1.0}


def test_one_object_per_cell_is_the_dense_loss(objects):
    pred, target = objects[0][:, :2], objects[1].new_ones(B, H * W, 2)
    every = torch.arange(H * W).expand(B, -1)
    dense = torch.ones_like(pred)
    for penalty, equation in (('l1', l1_loss), ('smooth_l1', smooth_l1_loss)):
        found = gathered_l1(pred, target, every, penalty=penalty)
        assert_close(found, equation(pred, dense).flatten(2).transpose(1, 2))


@pytest.mark.parametrize('by_class', [False, True], ids=['one', 'by class'])
@pytest.mark.parametrize('penalty', DISTANCES)
def test_gradcheck(objects, penalty, by_class):
    pred, target, index, labels = objects
    if not by_class:
        pred, labels = pred[:, :2], None
    factor = torch.rand(B, N, 2, dtype=torch.float64)
    factor[0, 0] = 0

    def function(x):
        return (factor * gathered_l1(x, target, index, labels, penalty=penalty)).sum()

    assert torch.autograd.gradcheck(function, pred.clone().requires_grad_())


def test_layout_in_memory_does_not_matter_and_nothing_is_copied(objects):
    pred, target, index, labels = objects
    last = pred.contiguous(memory_format=torch.channels_last).requires_grad_()
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(saved.append, lambda part: part):
        found = gathered_l1(last, target, index, labels)
    assert_close(found, gathered_l1(pred, target, index, labels), rtol=0, atol=0)
    assert max(part.numel() for part in saved) <= B * N * 2


def test_half_precision_is_computed_in_float32(objects):
    pred, target, index, labels = objects
    half = pred.half()
    found = gathered_l1(half, target, index, labels, penalty='normalized')
    assert found.dtype == torch.float32
    expected = gathered_l1(half.double(), target, index, labels, penalty='normalized')
    assert_close(found, expected.float())
    largest = torch.full((1, 2, 1, 1), 65504.0, dtype=torch.float16)
    zero = torch.zeros(1, 1, 2)
    assert gathered_l1(largest, zero, zero[..., 0].long(), penalty='normalized').isfinite().all()


def test_a_silenced_object_has_no_gradient_even_at_nan(objects):
    pred, target, index, _ = objects
    row, column = divmod(index[0, 2].item(), W)
    pred = pred[:, :2].clone()
    pred[0, :, row, column] = torch.nan
    pred.requires_grad_()
    loss = gathered_l1(pred, target, index)
    assert loss[0, 2].isnan().all()
    torch.where(loss.isnan(), 0, loss).sum().backward()
    assert (pred.grad[0, :, row, column] == 0).all()
    assert pred.grad.isfinite().all()


def test_other_numbers_of_coordinates():
    pred = torch.arange(12.0).reshape(1, 3, 2, 2)
    found = gathered_l1(pred, torch.zeros(1, 1, 3), torch.tensor([[3]]))
    assert_close(found, torch.tensor([[[3.0, 7.0, 11.0]]]))
    assert_close(gather_cells(pred, torch.tensor([[0, 2]]), 3)[0, 1], torch.tensor([2.0, 6, 10]))


def test_no_objects(objects):
    pred = objects[0][:, :2].clone().requires_grad_()
    loss = gathered_l1(pred, torch.zeros(B, 0, 2), torch.zeros(B, 0).long())
    assert loss.shape == (B, 0, 2)
    loss.sum().backward()
    assert (pred.grad == 0).all()


BAD = {
    'target': (dict(target=torch.zeros(B, N)), r'target must have the shape \(B, N, D\)'),
    'index': (dict(cell_index=torch.zeros(B, 1).long()), r'cell_index must have the shape \(B, N'),
    'channels': (dict(pred=torch.zeros(B, 3, H, W)), 'pred must have 2 channels for target'),
    'classes': (
        dict(pred=torch.zeros(B, 3, H, W), labels=torch.zeros(B, N).long()),
        'pred must have 2 channels per class for target',
    ),
    'labels': (dict(labels=torch.zeros(B).long()), r'labels must have the shape \(B, N\)'),
    'penalty': (dict(penalty='l2'), "penalty must be one of 'l1', 'smooth_l1', 'normalized'"),
    'gradient': (
        dict(target=torch.zeros(B, N, 2, requires_grad=True)),
        'target must not require a gradient',
    ),
}


def arguments(**change):
    plain = dict(
        pred=torch.zeros(B, 2, H, W),
        target=torch.ones(B, N, 2),
        cell_index=torch.zeros(B, N).long(),
    )
    return {**plain, **change}


@pytest.mark.parametrize(('change', 'text'), BAD.values(), ids=BAD)
def test_bad_shapes(change, text):
    with pytest.raises(ValueError, match=text):
        gathered_l1(**arguments(**change))


@pytest.mark.parametrize(
    ('change', 'text'),
    [
        (dict(target=[1.0]), 'target must be a tensor, got list'),
        (dict(cell_index=torch.zeros(B, N)), 'cell_index must be a tensor of int64, got torch.flo'),
        (dict(labels=[0]), 'labels must be a tensor of int64, got list'),
    ],
)
def test_bad_types(change, text):
    with pytest.raises(TypeError, match=text):
        gathered_l1(**arguments(**change))


@pytest.mark.parametrize(
    ('change', 'text'),
    [
        (
            dict(cell_index=torch.full((B, N), H * W)),
            r'cell_index must be within \[0, 42\), got 42',
        ),
        (dict(cell_index=torch.full((B, N), -1)), r'cell_index must be within \[0, 42\), got -1'),
        (dict(labels=torch.ones(B, N).long()), r'labels must be within \[0, 1\), got 1 at index'),
        (
            dict(target=-torch.ones(B, N, 2), penalty='normalized'),
            r'target must be within \[0, inf',
        ),
    ],
)
def test_values_are_checked(change, text):
    with pytest.raises(ValueError, match=text):
        gathered_l1(**arguments(**change))


def test_beyond_the_map_pytorch_raises_without_the_checks():
    with value_checks(False), pytest.raises(IndexError, match='out of bounds'):
        gathered_l1(**arguments(cell_index=torch.full((B, N), H * W)))
