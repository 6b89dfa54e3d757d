"""Classes of a step: those of the batch always, the others evenly, positions among them."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from mmloss_plugins import functional as F
from mmloss_plugins.functional import value_checks
from tests.contract.test_device import NoSync

C = 20
TARGET = torch.tensor([13, 4, -1, 13, 19, 7])


def sample(target=TARGET, classes=C, seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    return F.sample_classes(target, classes, generator=generator, **options)


@pytest.mark.parametrize('rate', [1e-6, 0.3, 0.5, 0.99, 1, 1.0])
@pytest.mark.parametrize('seed', range(5))
def test_classes_and_positions(rate, seed):
    classes, position = sample(sample_rate=rate, seed=seed)
    # 6 samples need room for 6 classes, 30 % of 20 are 6, 50 % 10, 99 % 20.
    assert len(classes) == {1e-6: 6, 0.3: 6, 0.5: 10, 0.99: 20, 1: 20}[rate]
    assert classes.tolist() == sorted(set(classes.tolist()))
    assert classes[0] >= 0
    assert classes[-1] < C
    assert position[2] == -1
    assert classes[position[TARGET >= 0]].tolist() == [13, 4, 13, 19, 7]
    assert classes.dtype == position.dtype == torch.int64


def test_every_other_class_is_drawn_equally_often():
    # 10 of 20 classes, 4 of them of the batch: each other one with p = 6 / 16.
    draws = 4000
    generator = torch.Generator().manual_seed(0)
    counts = torch.zeros(C)
    for _ in range(draws):
        found = F.sample_classes(TARGET, C, sample_rate=0.5, generator=generator)
        counts[found.classes] += 1
    batch = torch.tensor([4, 7, 13, 19])
    assert (counts[batch] == draws).all()
    others = torch.ones(C, dtype=torch.bool).index_fill_(0, batch, False)
    p = 6 / 16
    # Five standard deviations of a binomial count: one in a hundred thousand for 16 of them.
    assert (counts[others] - draws * p).abs().max() < 5 * math.sqrt(draws * p * (1 - p))
    assert counts[others].std() > 0.3 * math.sqrt(draws * p * (1 - p))


def test_pairs_of_other_classes_are_drawn_independently():
    # Without replacement: both of two of the 16 others with p = 6 / 16 * 5 / 15.
    draws = 4000
    generator = torch.Generator().manual_seed(1)
    both = torch.zeros(3)
    for _ in range(draws):
        drawn = torch.zeros(C, dtype=torch.bool)
        drawn[F.sample_classes(TARGET, C, sample_rate=0.5, generator=generator).classes] = True
        both += torch.stack([drawn[1] & drawn[2], drawn[3] & drawn[18], drawn[6] & drawn[11]])
    p = 0.125
    assert (both - draws * p).abs().max() < 5 * math.sqrt(draws * p * (1 - p))


def test_an_ignored_class_that_exists():
    # Class 4 is ignored: it is drawn like any other, and no position is taken for it.
    target = torch.tensor([4, 7, 0, 4, 9, 12])
    seen = set()
    for seed in range(40):
        classes, found = sample(target, sample_rate=0.3, ignore_index=4, seed=seed)
        assert found[[0, 3]].tolist() == [-1, -1]
        assert classes[found[[1, 2, 4, 5]]].tolist() == [7, 0, 9, 12]
        seen |= set(classes.tolist())
    assert 4 in seen
    # Position 4 of the sampled classes is class 4 or above, and not ignored.
    _, found = sample(torch.tensor([4]), 5, sample_rate=1.0, ignore_index=255)
    assert found.tolist() == [4]


@pytest.mark.parametrize('dtype', [torch.int32, torch.int16, torch.int8, torch.uint8], ids=str)
def test_small_integers(dtype):
    target = torch.tensor([13, 4, 200 if dtype == torch.uint8 else -100, 13]).to(dtype)
    ignore = int(target[2])
    classes, found = sample(target, sample_rate=0.5, ignore_index=ignore)
    assert found[2] == -1
    assert classes[found[[0, 1, 3]]].tolist() == [13, 4, 13]


def test_limits():
    everything = sample(sample_rate=1.0)
    assert everything.classes.tolist() == list(range(C))
    assert everything.position.tolist() == TARGET.tolist()
    alone = sample(torch.tensor([0, 0, -1]), 1, sample_rate=0.1)
    assert alone.classes.tolist() == [0]
    assert alone.position.tolist() == [0, 0, -1]
    empty = sample(torch.zeros(0, dtype=torch.int64), sample_rate=0.2)
    assert (len(empty.classes), len(empty.position)) == (4, 0)
    assert len(sample(torch.zeros(0, dtype=torch.int64), sample_rate=1e-6).classes) == 1
    # More samples than classes, and more classes in the batch than the share has.
    many = sample(torch.arange(C).repeat(2), sample_rate=0.1)
    assert many.classes.tolist() == list(range(C))
    assert many.position.tolist() == 2 * list(range(C))
    none = sample(torch.full((3,), -1), sample_rate=0.5)
    assert (len(none.classes), none.position.tolist()) == (10, [-1, -1, -1])


def test_size_does_not_depend_on_the_labels():
    sizes = {
        len(sample(torch.tensor(labels), sample_rate=0.1).classes)
        for labels in ([1, 1, 1, 1], [1, 2, 3, 4], [-1, -1, 3, 3])
    }
    assert sizes == {4}


def test_seeds():
    first, again, other = (sample(sample_rate=0.5, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first.classes, again.classes)
    assert not torch.equal(first.classes, other.classes)
    found = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        found.append(F.sample_classes(TARGET, C, sample_rate=0.5).classes)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_no_sync_and_nothing_changed_in_place():
    before = TARGET.clone()
    with value_checks(False), NoSync():
        found = F.sample_classes(TARGET, C, sample_rate=0.5)
    assert len(found.classes) == 10
    assert torch.equal(TARGET, before)


def test_compiles_to_one_graph():
    compiled = torch.compile(F.sample_classes, fullgraph=True, backend='aot_eager')
    classes, position = compiled(TARGET, C, sample_rate=0.5)
    assert classes[position[TARGET >= 0]].tolist() == [13, 4, 13, 19, 7]
    assert len(classes) == 10


def test_loss_over_the_sampled_classes_alone():
    """As if no other class existed, in value and gradients."""
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(6, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    weights = torch.randn(C, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    classes, position = sample(sample_rate=0.5)
    loss = F.margin_cross_entropy(features, weights[classes], position, scale=8.0)
    found = torch.autograd.grad(loss.sum(), [features, weights])
    # Over all classes, those that are not drawn with logits of minus infinity.
    logits = F.arcface_logits(features, weights, TARGET, scale=8.0)
    absent = torch.ones(C, dtype=torch.bool).index_fill_(0, classes, False)
    full = torch.nn.functional.cross_entropy(
        logits.masked_fill(absent, -torch.inf), TARGET, ignore_index=-1, reduction='none'
    )
    assert_close(loss, full)
    assert_close(found, torch.autograd.grad(full.sum(), [features, weights]))
    assert (found[1][absent] == 0).all()
    assert (found[1][classes] != 0).any(1).all()
    everything = F.margin_cross_entropy(features, weights, TARGET, scale=8.0)
    assert (loss <= everything).all()
    assert (loss[TARGET >= 0] < everything[TARGET >= 0]).all()


@pytest.mark.parametrize(
    ('change', 'error', 'text'),
    [
        (dict(sample_rate=0), ValueError, r'be within \(0, 1\], got 0\. Take 0\.1'),
        (dict(sample_rate=10), ValueError, r'sample_rate must be within \(0, 1\], got 10'),
        (dict(sample_rate=math.nan), ValueError, r'sample_rate must be within \(0, 1\], got nan'),
        (dict(sample_rate=True), ValueError, r'sample_rate must be within \(0, 1\], got True'),
        (dict(sample_rate='0.1'), ValueError, r"sample_rate must be within \(0, 1\], got '0\.1'"),
        (dict(num_classes=0), ValueError, 'num_classes must be a positive integer, got 0'),
        (dict(num_classes=3.0), ValueError, 'num_classes must be a positive integer, got 3'),
        (dict(target=torch.tensor([1.0])), TypeError, 'target must be a tensor of integers'),
        (dict(target=[1, 2]), TypeError, 'target must be a tensor of integers, got list'),
        (dict(target=torch.tensor(1)), ValueError, r'target must have the shape \(1,\)'),
        (dict(target=torch.ones(2, 2).long()), ValueError, r'target must have the shape \(2,\)'),
        (dict(target=torch.tensor([3, 20])), ValueError, r'within 0\.\.\.19 .*got 20 at index'),
        (dict(target=torch.tensor([-2, 3])), ValueError, r'within 0\.\.\.19 .*got -2 at index'),
    ],
)
def test_bad_arguments(change, error, text):
    with pytest.raises(error, match=text):
        F.sample_classes(**{'target': TARGET, 'num_classes': C, **change})
