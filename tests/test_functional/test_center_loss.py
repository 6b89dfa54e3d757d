"""Centre loss and the step of its centres: by hand, against loops and against the write-ups."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from mmloss_plugins import functional as F
from tests.test_functional.recognition_oracles import squared_distance

B, D, C = 7, 5, 4
TARGET = torch.tensor([0, 3, 1, -1, 3, 0, 3])


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    features = 2 * torch.randn(B, D, dtype=torch.float64, generator=generator)
    centers = torch.randn(C, D, dtype=torch.float64, generator=generator)
    return features.requires_grad_(), centers.requires_grad_()


def test_by_hand():
    # Differences (3, 4), (0, 0), (1, 0): halves of 25, 0 and 1; their norm is sqrt(26).
    features = torch.tensor([[4.0, 4.0], [0.0, 0.0], [2.0, 0.0]], requires_grad=True)
    centers = torch.tensor([[1.0, 0.0], [0.0, 0.0]], requires_grad=True)
    target = torch.tensor([0, 1, 0])
    found = F.center_loss(features, centers, target)
    assert_close(found, torch.tensor([12.5, 0.0, 0.5]))
    found.sum().backward()
    assert_close(features.grad, torch.tensor([[3.0, 4.0], [0.0, 0.0], [1.0, 0.0]]))
    assert_close(centers.grad, torch.tensor([[-4.0, -4.0], [0.0, 0.0]]))
    norm = F.center_loss(features, centers, target, distance='frobenius')
    assert_close(norm, torch.tensor([12.5, 0.0, 0.5]) / math.sqrt(26))
    assert_close(norm.sum(), torch.tensor(math.sqrt(26) / 2))


def test_against_loops_and_the_form_in_write_ups(batch):
    features, centers = batch
    squares = [
        squared_distance(x, centers[y].tolist()) if y >= 0 else 0.0
        for x, y in zip(features.tolist(), TARGET.tolist())
    ]
    found = F.center_loss(features, centers, TARGET)
    assert_close(found, torch.tensor(squares, dtype=torch.float64) / 2)
    kept = TARGET >= 0
    printed = features[kept].dist(centers.index_select(0, TARGET[kept])) / 2.0
    expected = torch.autograd.grad(printed, (features, centers))
    norm = F.center_loss(features, centers, TARGET, distance='frobenius').sum()
    assert_close(norm, printed)
    assert_close(torch.autograd.grad(norm, (features, centers)), expected)


@pytest.mark.parametrize('distance', ['squared', 'frobenius'])
def test_gradcheck(batch, distance):
    factors = torch.rand(B, dtype=torch.float64) + 0.5

    def loss(x, c):
        return factors * F.center_loss(x, c, TARGET, distance=distance)

    assert torch.autograd.gradcheck(loss, batch)


@pytest.mark.parametrize('distance', ['squared', 'frobenius'])
def test_ignored_samples_and_nothing_else(batch, distance):
    features, centers = batch
    wild = features.detach().clone()
    wild[3] = math.nan
    wild.requires_grad_()
    loss = F.center_loss(wild, centers, TARGET, distance=distance)
    assert_close(loss, F.center_loss(features, centers, TARGET, distance=distance))
    loss.sum().backward()
    assert (wild.grad[3] == 0).all()
    assert centers.grad.isfinite().all()
    assert (centers.grad[2] == 0).all()  # no sample
    nothing = F.center_loss(wild, centers, torch.full_like(TARGET, -1), distance=distance)
    assert (nothing == 0).all()
    assert_close(
        F.center_loss(wild, centers, TARGET.clamp(min=0)).isnan().nonzero(), torch.tensor([[3]])
    )


def test_a_sample_behind_a_zero_does_not_reach_its_centre(batch):
    features, centers = batch
    wild = features.detach().clone()
    wild[1] = math.inf
    wild.requires_grad_()
    loss = F.center_loss(wild, centers, TARGET)
    assert loss[1].isinf()
    loss[[0, 2, 4]].sum().backward()
    assert (wild.grad[1] == 0).all()
    assert_close(centers.grad[3], (centers[3] - features[4]).detach())


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize('distance', ['squared', 'frobenius'])
def test_half_precision(batch, dtype, distance):
    features, centers = batch[0].detach().to(dtype).requires_grad_(), batch[1].detach().float()
    found = F.center_loss(features, centers, TARGET, distance=distance)
    assert found.dtype == torch.float32
    single = F.center_loss(features.float(), centers, TARGET, distance=distance)
    assert_close(found, single, rtol=0, atol=0)
    far = torch.full_like(features, 65504.0).requires_grad_()
    loss = F.center_loss(far, -1e4 * torch.ones(C, D), TARGET, distance=distance)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert far.grad.isfinite().all()


def test_the_step_of_the_paper_in_loops(batch):
    features, centers = batch
    weight = torch.tensor([1.0, 1.0, 0.5, 1.0, 1.0, 0.0, 2.0], dtype=torch.float64)
    sums, counts = F.class_sums(features, TARGET, C, weight)
    found = F.move_centers(centers.detach(), sums, counts, rate=0.3)
    for j in range(C):
        own = [b for b in range(B) if TARGET[b] == j]
        total = sum(weight[b] * (centers[j] - features[b]) for b in own)
        number = sum(weight[b] for b in own)
        assert_close(found[j], (centers[j] - 0.3 * total / (1 + number)).detach())
    assert_close(found[2], centers[2].detach())  # no sample


def test_sums_leave_out_what_does_not_count():
    features = torch.tensor([[1.0, 2.0], [math.nan, 0.0], [math.inf, 1.0], [5.0, 6.0]])
    target = torch.tensor([1, 1, 0, -1])
    sums, counts = F.class_sums(features, target, 3)
    assert_close(sums, torch.tensor([[0.0, 0.0], [1.0, 2.0], [0.0, 0.0]]))
    assert_close(counts, torch.tensor([0.0, 1.0, 0.0]))
    _, none = F.class_sums(features, target, 3, torch.tensor([math.nan, 1.0, 1.0, 1.0]))
    assert (none == 0).all()
    half, _ = F.class_sums(features.half(), target, 3)
    assert half.dtype == torch.float32


def test_centres_come_to_the_means_of_their_classes(batch):
    features, centers = batch
    moved = centers.detach()
    for _ in range(200):
        moved = F.move_centers(moved, *F.class_sums(features, TARGET, C))
    for j in (0, 1, 3):
        assert_close(moved[j], features[j == TARGET].mean(0).detach())


@pytest.mark.parametrize(
    ('change', 'error', 'text'),
    [
        (dict(centers=torch.ones(4, 2)), ValueError, r'centers must have the shape \(C, 3\)'),
        (dict(centers=torch.ones(4, 2, 3)), ValueError, r'centers must have the shape \(C, D\)'),
        (dict(target=torch.tensor([0, 4])), ValueError, r'0\.\.\.3'),
        (dict(target=torch.ones(2)), TypeError, 'integers'),
        (dict(distance='square'), ValueError, "Did you mean 'squared'"),
    ],
)
def test_bad_arguments(change, error, text):
    arguments = dict(
        features=torch.ones(2, 3), centers=torch.ones(4, 3), target=torch.tensor([0, 1])
    )
    with pytest.raises(error, match=text):
        F.center_loss(**{**arguments, **change})
