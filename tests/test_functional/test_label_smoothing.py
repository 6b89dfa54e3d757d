"""Smoothed cross-entropy: by hand, against loops, PyTorch and the form in write-ups."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as torch_F
from torch.testing import assert_close

from mmloss_plugins import functional as F
from tests.test_functional.recognition_oracles import smoothed_cross_entropy

N, C = 6, 4
TARGET = torch.tensor([0, 3, 1, -100, 3, 2])
FACTORS = torch.tensor([0.5, 2.0, 0.0, 1.5], dtype=torch.float64)


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(0)
    return (2 * torch.randn(N, C, dtype=torch.float64, generator=generator)).requires_grad_()


def written_up(logits, target, smoothing):
    """The source's form, without its prints."""
    log_prob = torch_F.log_softmax(logits, dim=-1)
    weight = logits.new_ones(logits.size()) * smoothing / (logits.size(-1) - 1.0)
    weight.scatter_(1, target.unsqueeze(-1), 1.0 - smoothing)
    return (-weight * log_prob).sum(dim=-1)


def test_by_hand():
    # log p = -log 4 for all: any label gives log 4. Logits (log 3, 0): p = 3/4, 1/4.
    assert_close(
        F.label_smoothing_ce(torch.zeros(1, 4), torch.tensor([2])), torch.tensor([math.log(4)])
    )
    logits = torch.tensor([[math.log(3), 0.0]])
    found = F.label_smoothing_ce(logits, torch.tensor([0]), smoothing=0.2)
    assert_close(found, torch.tensor([0.8 * math.log(4 / 3) + 0.2 * math.log(4)]))
    found = F.label_smoothing_ce(logits, torch.tensor([0]), smoothing=0.2, spread='all')
    assert_close(found, torch.tensor([0.9 * math.log(4 / 3) + 0.1 * math.log(4)]))


@pytest.mark.parametrize('factors', [None, FACTORS], ids=['equal', 'class weights'])
@pytest.mark.parametrize('spread', ['others', 'all'])
@pytest.mark.parametrize('smoothing', [0.0, 0.1, 0.6])
def test_against_loops(logits, smoothing, spread, factors):
    found = F.label_smoothing_ce(
        logits, TARGET, smoothing=smoothing, spread=spread, class_weight=factors
    )
    given = None if factors is None else factors.tolist()
    for b, label in enumerate(TARGET.tolist()):
        row = logits[b].tolist()
        expected = (
            smoothed_cross_entropy(row, label, smoothing, spread == 'all', given)
            if label >= 0
            else 0.0
        )
        assert found[b].item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize('factors', [None, FACTORS], ids=['equal', 'class weights'])
def test_pytorch(logits, factors):
    options = dict(ignore_index=-100, label_smoothing=0.2, reduction='none')
    expected = torch_F.cross_entropy(logits, TARGET, weight=factors, **options)
    found = F.label_smoothing_ce(logits, TARGET, smoothing=0.2, spread='all', class_weight=factors)
    assert_close(found, expected)
    slope = torch.autograd.grad(expected.sum(), logits)
    assert_close(torch.autograd.grad(found.sum(), logits), slope)


def test_the_form_in_write_ups_and_its_factor(logits):
    target = TARGET.clamp(min=0)
    found = F.label_smoothing_ce(logits, target, smoothing=0.1)
    assert_close(found, written_up(logits, target, 0.1))
    same = F.label_smoothing_ce(logits, target, smoothing=0.1 * C / (C - 1), spread='all')
    assert_close(found, same)
    plain = F.label_smoothing_ce(logits, target, smoothing=0.0)
    assert_close(plain, torch_F.cross_entropy(logits, target, reduction='none'))
    assert (found != plain).all()


def test_more_dimensions(logits):
    pixels = torch.randn(2, C, 3, 5, dtype=torch.float64)
    target = torch.randint(C, (2, 3, 5))
    found = F.label_smoothing_ce(pixels, target, class_weight=FACTORS)
    flat = pixels.permute(0, 2, 3, 1).reshape(-1, C)
    expected = F.label_smoothing_ce(flat, target.flatten(), class_weight=FACTORS)
    assert_close(found.flatten(), expected)


@pytest.mark.parametrize('factors', [None, FACTORS], ids=['equal', 'class weights'])
@pytest.mark.parametrize('spread', ['others', 'all'])
@pytest.mark.parametrize('smoothing', [0.0, 0.3])
def test_gradcheck(logits, smoothing, spread, factors):
    outer = torch.rand(N, dtype=torch.float64) + 0.5

    def loss(x):
        options = dict(smoothing=smoothing, spread=spread, class_weight=factors)
        return outer * F.label_smoothing_ce(x, TARGET, **options)

    assert torch.autograd.gradcheck(loss, logits)


def test_the_minimum_is_at_the_label():
    """Zero slope where the softmax is the label, for which the loss is the entropy."""
    q = torch.tensor([[0.7, 0.1, 0.1, 0.1]], dtype=torch.float64)
    logits = q.log().requires_grad_()
    loss = F.label_smoothing_ce(logits, torch.tensor([0]), smoothing=0.3)
    assert_close(loss, -(q * q.log()).sum(1))
    loss.backward()
    assert_close(logits.grad, torch.zeros_like(logits), rtol=0, atol=1e-15)


def test_one_class_and_masked_classes():
    one = torch.randn(3, 1, requires_grad=True)
    for spread in ('others', 'all'):
        loss = F.label_smoothing_ce(one, torch.zeros(3, dtype=torch.long), spread=spread)
        assert (loss == 0).all()
    # A class that a head has switched off costs nothing without smoothing.
    logits = torch.tensor([[1.0, 1.0, -math.inf]], requires_grad=True)
    loss = F.label_smoothing_ce(logits, torch.tensor([0]), smoothing=0.0)
    loss.backward()
    assert_close(loss, torch.tensor([math.log(2)]))
    assert_close(logits.grad, torch.tensor([[-0.5, 0.5, 0.0]]))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
def test_half_precision(dtype):
    logits = torch.tensor([[65504.0, -65504.0, 0.0], [8.5, 1.0, -30.0]], dtype=dtype)
    logits.requires_grad_()
    target = torch.tensor([1, 0])
    loss = F.label_smoothing_ce(logits, target)
    assert_close(loss, F.label_smoothing_ce(logits.float(), target), rtol=0, atol=0)
    loss.sum().backward()
    assert logits.grad.isfinite().all()
    assert logits.grad.dtype == dtype


def test_a_silenced_element_gets_no_gradient(logits):
    wild = logits.detach().clone()
    wild[[1, 3]] = math.nan
    wild.requires_grad_()
    loss = F.label_smoothing_ce(wild, TARGET)
    assert loss.isnan().tolist() == [False, True, False, False, False, False]
    loss[[0, 2, 3, 4, 5]].sum().backward()
    assert (wild.grad[[1, 3]] == 0).all()
    assert wild.grad.isfinite().all()


@pytest.mark.parametrize(
    ('change', 'error', 'text'),
    [
        (dict(logits=[1.0]), TypeError, 'pred must be a floating-point tensor, got list'),
        (dict(logits=torch.ones(2)), ValueError, r'pred must have the shape \(N, C\)'),
        (dict(target=torch.tensor([0, 1, 2])), ValueError, r'the shape \(2,\), one class per'),
        (dict(target=torch.ones(2, 3)), TypeError, 'integers, got torch.float32. Pass class ind'),
        (dict(target=torch.tensor([0, 3])), ValueError, r'0\.\.\.2 or ignore_index=-100'),
        (dict(smoothing=1.0), ValueError, r'smoothing must be within \[0, 1\)'),
        (dict(spread='other'), ValueError, "Did you mean 'others'"),
        (dict(class_weight=torch.ones(2)), ValueError, 'class_weight must be a tensor with one'),
        (dict(class_weight=[1.0, 1.0, 1.0]), ValueError, 'class_weight must be a tensor'),
    ],
)
def test_bad_arguments(change, error, text):
    arguments = dict(logits=torch.ones(2, 3), target=torch.tensor([0, 1]))
    with pytest.raises(error, match=text):
        F.label_smoothing_ce(**{**arguments, **change})
