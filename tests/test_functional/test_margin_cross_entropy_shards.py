"""Cross-entropy with a margin over classes on 2 and 4 gloo processes: loss and gradients of one."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from mmloss_plugins import functional as F
from tests.gloo import run_ranks

C, D = 11, 5
TARGET = torch.tensor([0, 10, 3, -1, 3, 5])
FACTORS = torch.tensor([1.0, -0.5, 0.0, 2.0, 3.0, 0.1], dtype=torch.float64)
# Samples and classes of each rank, neither of them even, and a rank without samples.
SAMPLES = {2: (4, 2), 4: (3, 0, 2, 1)}
CLASSES = {2: (6, 5), 4: (3, 3, 3, 2)}
PER_CLASS = torch.linspace(0.1, 0.6, C)
CASES = {
    'plain': {},
    'chunks': dict(chunk_size=2),
    'chunks again in backward': dict(chunk_size=2, kept=0),
    'subcenters': dict(shape=(C, 3, D)),
    'subcenters in chunks': dict(shape=(C, 3, D), chunk_size=2, kept=0),
    'CosFace': dict(margins=(1.0, 0.0, 0.35), rule='off'),
    'a margin per class': dict(margins=(1.0, PER_CLASS, PER_CLASS.flip(0))),
    'scale': dict(scale=64.0, margins=(1.2, 0.3, 0.1)),
    'float32': dict(dtype=torch.float32),
    'bfloat16': dict(dtype=torch.bfloat16),
    'all ignored': dict(target=torch.full((6,), -1)),
    'other ignore_index': dict(target=TARGET.where(TARGET >= 0, 255), ignore_index=255),
    'no samples': dict(target=TARGET[:0]),
}


def share(rank, sizes):
    return slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))


def losses_and_gradients(case, world_size=None, rank=0):
    """Return losses and gradients of one process, or of one of several."""
    options = {'scale': 8.0, **CASES[case]}
    shape, dtype = options.pop('shape', (C, D)), options.pop('dtype', torch.float64)
    target = options.pop('target', TARGET)
    module = importlib.import_module('mmloss_plugins.functional.margin_cross_entropy')
    module.KEPT = options.pop('kept', 2**23)
    generator = torch.Generator().manual_seed(0)
    features = 3 * torch.randn(6, D, dtype=torch.float64, generator=generator)
    # An ignored sample does not count whatever it is.
    features[3] = torch.nan
    weights = torch.randn(shape, dtype=torch.float64, generator=generator)
    features, factors = features[: len(target)].to(dtype), FACTORS[: len(target)]
    weights = weights.to(torch.float64 if dtype == torch.float64 else torch.float32)
    function = F.margin_cross_entropy
    if world_size is not None:
        rows, columns = share(rank, SAMPLES[world_size]), share(rank, CLASSES[world_size])
        features, target, factors = features[rows], target[rows], factors[rows]
        weights = weights[columns]
        function = F.sharded_margin_cross_entropy
        options.update(num_classes=C, first_class=columns.start)
    features, weights = features.requires_grad_(), weights.requires_grad_()
    loss = function(features, weights, target, **options)
    (loss * factors).sum().backward()
    return loss.detach(), features.grad, weights.grad


def error_of(**options):
    with pytest.raises(ValueError, match='each of 11 classes') as caught:
        F.sharded_margin_cross_entropy(
            torch.ones(1, D), torch.ones(3, D), torch.tensor([0]), num_classes=C, **options
        )
    return str(caught.value)


def run_rank(rank, world_size, folder):
    """Save what one rank gets in each case."""
    found = {case: losses_and_gradients(case, world_size, rank) for case in CASES}
    found['errors'] = [error_of(first_class=2 * rank), error_of(first_class=2 * rank + 1)]
    torch.save(found, Path(folder) / f'{rank}.pt')


@pytest.fixture(scope='module', params=[2, 4])
def ranks(request, tmp_path_factory):
    """What each rank gets."""
    folder = tmp_path_factory.mktemp(f'ranks{request.param}')
    run_ranks(run_rank, request.param, folder)
    return [torch.load(folder / f'{rank}.pt') for rank in range(request.param)]


@pytest.mark.parametrize('case', CASES)
def test_as_one_process(ranks, case, monkeypatch):
    module = importlib.import_module('mmloss_plugins.functional.margin_cross_entropy')
    monkeypatch.setattr(module, 'KEPT', module.KEPT)
    loss, grad_x, grad_w = losses_and_gradients(case)
    found = [each[case] for each in ranks]
    assert len(loss) == 0 or [len(each[0]) for each in found] == list(SAMPLES[len(ranks)])
    assert_close(torch.cat([each[0] for each in found]), loss)
    assert_close(torch.cat([each[1] for each in found]), grad_x)
    # That of the average over ranks.
    assert_close(torch.cat([each[2] for each in found]) * len(ranks), grad_w)
    assert (grad_w == 0).all().item() is (case in ('all ignored', 'no samples'))


def test_classes_on_no_rank_or_on_two_are_named_on_every_rank(ranks):
    spans = ', '.join(f'{2 * rank}...{2 * rank + 2}' for rank in range(len(ranks)))
    for each in ranks:
        overlap, gap = each['errors']
        assert f'got {spans}. Pass the rows of this rank' in overlap
        assert 'got 1...3, 3...5' in gap


def test_a_process_alone_has_all_classes():
    weights, features = torch.eye(3), torch.rand(2, 3)
    target = torch.tensor([0, 2])
    found = F.sharded_margin_cross_entropy(features, weights, target, num_classes=3)
    assert_close(found, F.margin_cross_entropy(features, weights, target), rtol=0, atol=0)


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        (dict(num_classes=2), 'num_classes must be an integer of at least 3, the rows of'),
        (dict(num_classes='all'), "num_classes must be an integer of at least 3, .* got 'all'"),
        (dict(num_classes=5, first_class=3), r'first_class must be within 0\.\.\.2, got 3'),
        (dict(num_classes=5, first_class=-1), 'first_class must be within'),
        (dict(num_classes=3, chunk_size=0), 'chunk_size must be a positive integer'),
        (dict(num_classes=3, margins=(1.0, torch.ones(4), 0.0)), 'one value for each of 3'),
        (dict(num_classes=3, target=torch.tensor([3])), r'target must be within 0\.\.\.2'),
        (dict(num_classes=3, class_shard=torch.ones(3, 2)), 'class_shard must have the shape'),
    ],
)
def test_mistakes_are_named(options, text):
    inputs = dict(features=torch.ones(1, 3), class_shard=torch.ones(3, 3), target=torch.tensor([0]))
    with pytest.raises(ValueError, match=text) as caught:
        F.sharded_margin_cross_entropy(**{**inputs, **options})
    assert re.match(r'sharded_margin_cross_entropy: .* must .*, got .*\. .*\.', str(caught.value))
