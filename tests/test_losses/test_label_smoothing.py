"""LabelSmoothLoss beside PyTorch's cross-entropy."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from mmloss_plugins.losses import LabelSmoothLoss

N, C = 6, 4
TARGET = torch.tensor([0, 3, 1, -100, 3, 2])
FACTORS = [0.5, 2.0, 0.25, 1.5]


def logits_of(seed=0):
    return 2 * torch.randn(N, C, generator=torch.Generator().manual_seed(seed))


def test_means_are_those_of_pytorch():
    logits = logits_of()
    plain = nn.CrossEntropyLoss(label_smoothing=0.2)(logits, TARGET)
    assert_close(LabelSmoothLoss(0.2, 'all', mean_over='valid')(logits, TARGET), plain)
    assert_close(LabelSmoothLoss(0.2, 'all')(logits, TARGET), plain * 5 / 6)
    factors = torch.tensor(FACTORS)
    weighted = nn.CrossEntropyLoss(factors, label_smoothing=0.2)(logits, TARGET)
    ours = LabelSmoothLoss(0.2, 'all', class_weight=FACTORS)
    mass = factors[TARGET[TARGET >= 0]].sum().item()
    assert_close(ours(logits, TARGET, avg_factor=mass), weighted)


def test_valid_with_mask_and_ignored_elements():
    logits, mask = logits_of(), torch.tensor([True, False, True, True, True, True])
    elements = LabelSmoothLoss(reduction='none')(logits, TARGET)
    found = LabelSmoothLoss(mean_over='valid')(logits, TARGET, None, mask)
    assert_close(found, elements[[0, 2, 4, 5]].mean())


def test_maps():
    logits, target = torch.randn(2, C, 3, 5), torch.randint(C, (2, 3, 5))
    weight = torch.rand(2, 3, 5)
    expected = nn.functional.cross_entropy(
        logits, target, label_smoothing=0.1 * C / (C - 1), reduction='none'
    )
    found = LabelSmoothLoss(reduction='none')(logits, target, weight)
    assert_close(found, expected * weight)


def test_class_weights_have_to_fit():
    with pytest.raises(ValueError, match='hold one factor for each of the 4 classes of pred'):
        LabelSmoothLoss(class_weight=[1.0, 2.0])(logits_of(), TARGET)
    with pytest.raises(ValueError, match='class_weight must hold C finite factors'):
        LabelSmoothLoss(class_weight=[])


def test_no_smoothing_learns_more_certain_logits_than_some():
    """The best logits are finite: log((1 - eps) (C - 1) / eps) above the others."""
    gaps = {}
    for smoothing in (0.0, 0.1):
        logits = torch.zeros(1, C, requires_grad=True)
        loss = LabelSmoothLoss(smoothing)
        optimizer = torch.optim.SGD([logits], lr=2.0)
        for _ in range(300):
            optimizer.zero_grad()
            loss(logits, torch.tensor([0])).backward()
            optimizer.step()
        gaps[smoothing] = (logits[0, 0] - logits[0, 1]).item()
    assert gaps[0.1] == pytest.approx(torch.tensor(0.9 * 3 / 0.1).log().item(), rel=1e-4)
    assert gaps[0.0] > 2 * gaps[0.1]
