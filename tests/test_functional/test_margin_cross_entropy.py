"""Cross-entropy with a margin, in one piece and in chunks: equal to loops and to each other."""

from __future__ import annotations

import importlib
import math

import pytest
import torch
import torch.nn.functional as torch_F
from pytorch_metric_learning.losses import ArcFaceLoss
from torch.testing import assert_close

from benchmarks.harness import Step, peak_bytes
from mmloss_plugins import functional as F
from mmloss_plugins.functional import value_checks
from tests.contract.test_device import NoSync
from tests.test_functional.recognition_oracles import arcface_table, cross_entropy

MODULE = importlib.import_module('mmloss_plugins.functional.margin_cross_entropy')
B, D, C = 6, 5, 11
TARGET = torch.tensor([0, 10, 3, -1, 3, 5])
CHUNKS = [None, 1, 3, 4, 11, 100]
MARGINS = [(1.0, 0.5, 0.0), (1.2, 0.3, 0.1), (1.0, 0.0, 0.0)]


@pytest.fixture
def recompute(monkeypatch):
    """No exponentials are kept with a chunk size, as with very many classes."""
    monkeypatch.setattr(MODULE, 'KEPT', 0)


def inputs(shape=(C, D), dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    features = 3 * torch.randn(B, D, dtype=torch.float64, generator=generator)
    weights = torch.randn(shape, dtype=torch.float64, generator=generator)
    return features.to(dtype).requires_grad_(), weights.to(dtype).requires_grad_()


def value_and_gradients(function, features, weights, factors=None):
    features, weights = (x.detach().clone().requires_grad_() for x in (features, weights))
    loss = function(features, weights)
    (loss * (1 if factors is None else factors)).sum().backward()
    return loss.detach(), features.grad, weights.grad


@pytest.mark.parametrize('chunk_size', CHUNKS)
def test_the_paper_in_loops(chunk_size):
    features, weights = inputs()
    table = arcface_table(features.tolist(), weights.tolist(), TARGET.tolist(), 8.0, 0.5)
    expected = [cross_entropy(row, y) if y >= 0 else 0 for row, y in zip(table, TARGET.tolist())]
    found = F.margin_cross_entropy(features, weights, TARGET, scale=8.0, chunk_size=chunk_size)
    assert_close(found, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.usefixtures('recompute')
@pytest.mark.parametrize('shape', [(C, D), (C, 3, D), (C, 1, D)], ids=str)
@pytest.mark.parametrize('margins', MARGINS)
def test_chunks_equal_one_piece_and_the_logits(shape, margins):
    features, weights = inputs(shape)
    factors = torch.tensor([1.0, -0.5, 0.0, 2.0, 3.0, 0.1], dtype=torch.float64)
    options = dict(scale=16.0, margins=margins)

    def by_logits(x, w):
        logits = F.combined_margin_logits(x, w, TARGET, **options)
        return torch_F.cross_entropy(logits, TARGET, ignore_index=-1, reduction='none')

    expected = value_and_gradients(by_logits, features, weights, factors)
    assert (expected[2].flatten(1) != 0).any(1).all()
    for chunk_size in CHUNKS:
        found = value_and_gradients(
            lambda x, w, n=chunk_size: F.margin_cross_entropy(
                x, w, TARGET, chunk_size=n, **options
            ),
            features, weights, factors,
        )  # fmt: skip
        assert_close(found, expected)


@pytest.mark.parametrize('kept', [0, 4 * B, 2**23], ids=['none', 'the first', 'all'])
def test_what_is_kept_changes_nothing(monkeypatch, kept):
    monkeypatch.setattr(MODULE, 'KEPT', kept)
    features, weights = inputs(dtype=torch.float32)
    found = value_and_gradients(
        lambda x, w: F.margin_cross_entropy(x, w, TARGET, chunk_size=2), features, weights
    )
    one_piece = value_and_gradients(
        lambda x, w: F.margin_cross_entropy(x, w, TARGET), features, weights
    )
    assert_close(found, one_piece, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures('recompute')
@pytest.mark.parametrize('chunk_size', [None, 2])
@pytest.mark.parametrize('shape', [(C, D), (C, 3, D)], ids=['classes', 'sub-centres'])
def test_gradcheck(shape, chunk_size):
    factors = torch.rand(B, dtype=torch.float64) + 0.5

    def loss(x, w):
        return factors * F.margin_cross_entropy(x, w, TARGET, scale=5.0, chunk_size=chunk_size)

    assert torch.autograd.gradcheck(loss, inputs(shape))


def test_metric_learning():
    features, weights = inputs()
    kept = TARGET >= 0
    peer = ArcFaceLoss(num_classes=C, embedding_size=D, margin=math.degrees(0.5), scale=64)
    peer.W = torch.nn.Parameter(weights.detach().t().clone())
    x = features.detach()[kept].clone().requires_grad_()
    expected = peer(x, TARGET[kept])
    expected.backward()
    found = value_and_gradients(
        lambda x, w: F.margin_cross_entropy(x, w, TARGET, chunk_size=4), features, weights
    )
    assert_close(found[0].sum() / 5, expected, rtol=1e-6, atol=1e-6)
    assert_close(found[1][kept] / 5, x.grad, rtol=1e-5, atol=1e-6)
    assert_close(found[2] / 5, peer.W.grad.t(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('chunk_size', [None, 1])
def test_limits(chunk_size):
    # A single class: nothing to lose. Equal cosines without margin: log C.
    x, w = torch.randn(2, 3, requires_grad=True), torch.randn(1, 3, requires_grad=True)
    alone = F.margin_cross_entropy(x, w, torch.zeros(2, dtype=torch.long), chunk_size=chunk_size)
    alone.sum().backward()
    assert (alone == 0).all()
    assert (x.grad == 0).all()
    assert (w.grad == 0).all()
    same = torch.ones(7, 3) * torch.arange(1.0, 8.0)[:, None]
    found = F.margin_cross_entropy(
        x, same, torch.tensor([2, 6]), margins=(1.0, 0.0, 0.0), chunk_size=chunk_size
    )
    assert_close(found, torch.full((2,), math.log(7)))
    # Far from every class but one: p = exp(-64) of each of two, and one minus it has no rounding.
    axes, first = torch.eye(3), torch.tensor([0])
    sure = torch.tensor([[5.0, 0.0, 0.0]])
    plain = dict(margins=(1.0, 0.0, 0.0), chunk_size=chunk_size)
    found = F.margin_cross_entropy(sure, axes, first, **plain)
    assert found.item() == pytest.approx(2 * math.exp(-64), rel=1e-5)
    # Any scale: the exponentials do not overflow.
    far = F.margin_cross_entropy(-sure, axes, first, scale=1e4, **plain)
    assert far.item() == pytest.approx(1e4 + math.log(2), rel=1e-6)


@pytest.mark.usefixtures('recompute')
@pytest.mark.parametrize('chunk_size', [None, 3])
@pytest.mark.parametrize('value', [math.nan, math.inf])
def test_a_silenced_sample_does_not_reach_the_classes(chunk_size, value):
    features, weights = inputs(dtype=torch.float32)
    features = features.detach()
    features[1, 2] = features[3, 0] = value  # sample 3 is ignored by its label

    def loss(x, w):
        return F.margin_cross_entropy(x, w, TARGET, chunk_size=chunk_size)

    assert not loss(features, weights)[1].isfinite()
    assert loss(features, weights)[3] == 0
    factors = torch.tensor([1.0, 0.0, 1.0, 1.0, 1.0, 1.0])
    x, w = features.clone().requires_grad_(), weights.detach().clone().requires_grad_()
    values = loss(x, w)
    torch.where(factors == 0, 0, values).sum().backward()
    assert (x.grad[[1, 3]] == 0).all()
    kept = [0, 2, 4, 5]
    expected = value_and_gradients(
        lambda x, w: F.margin_cross_entropy(x, w, TARGET[kept], chunk_size=chunk_size),
        features[kept], weights,
    )  # fmt: skip
    assert_close(x.grad[kept], expected[1])
    assert_close(w.grad, expected[2])
    assert w.grad.isfinite().all()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize('chunk_size', [None, 4])
def test_half_precision(dtype, chunk_size):
    features, weights = inputs(dtype=dtype)
    single = [x.detach().float() for x in (features, weights)]

    def loss(x, w):
        return F.margin_cross_entropy(x, w, TARGET, chunk_size=chunk_size)

    found = value_and_gradients(loss, features, weights)
    expected = value_and_gradients(loss, *single)
    assert found[0].dtype == torch.float32
    assert_close(found[0], expected[0], rtol=0, atol=0)
    assert_close(found[1], expected[1].to(dtype))
    assert_close(found[2], expected[2].to(dtype))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert_close(value_and_gradients(loss, *single), expected, rtol=0, atol=0)
    for extreme in (65504.0, 6e-8, 0.0):
        wild = torch.full_like(features, extreme)
        assert all(x.isfinite().all() for x in value_and_gradients(loss, wild, weights))


def test_at_the_class_and_opposite():
    features = torch.tensor([[2.0, 0.0], [-3.0, 0.0]])
    weights = torch.tensor([[5.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    target = torch.tensor([0, 0])
    found = value_and_gradients(
        lambda x, w: F.margin_cross_entropy(x, w, target), features, weights
    )
    # cos 0.5 and -1 - 0.5 sin 0.5 against cosines 0 and +-0.6.
    own = 64 * math.cos(0.5), 64 * (-1 - 0.5 * math.sin(0.5))
    expected = [
        math.log1p((1 + math.exp(38.4)) / math.exp(own[0])),
        math.log(math.exp(own[1]) + 1 + math.exp(-38.4)) - own[1],
    ]
    assert_close(found[0], torch.tensor(expected), rtol=1e-5, atol=0)
    assert all(x.isfinite().all() for x in found)


@pytest.mark.parametrize('shape', [(C, D), (C, 3, D)], ids=['classes', 'sub-centres'])
@pytest.mark.parametrize('chunk_size', [None, 4])
def test_empty_batch_and_nothing_but_ignored(shape, chunk_size):
    _, weights = inputs(shape)
    for features, target in (
        (torch.zeros(0, D, dtype=torch.float64), TARGET[:0]),
        (torch.randn(3, D, dtype=torch.float64), torch.full((3,), -1)),
    ):
        features.requires_grad_()
        loss = F.margin_cross_entropy(features, weights, target, chunk_size=chunk_size)
        assert loss.shape == target.shape
        assert loss.requires_grad
        loss.sum().backward()
        assert (weights.grad == 0).all()
        assert (features.grad == 0).all()


def test_margins_and_frozen_parts():
    features, weights = inputs()
    margins = torch.linspace(0.1, 0.9, C, dtype=torch.float64)
    found = F.margin_cross_entropy(features, weights, TARGET, margins=(1.0, margins, 0.0))
    for b, label in enumerate(TARGET.tolist()):
        own = (1.0, margins[label].item(), 0.0)
        alone = F.margin_cross_entropy(features, weights, TARGET, margins=own)
        assert_close(found[b], alone[b])
    F.margin_cross_entropy(features, weights.detach(), TARGET).sum().backward()
    slope, features.grad = features.grad, None
    F.margin_cross_entropy(features, weights, TARGET).sum().backward()
    assert_close(features.grad, slope)


def test_backward_twice_and_no_sync():
    features, weights = inputs()
    with value_checks(False), NoSync():
        loss = F.margin_cross_entropy(features, weights, TARGET, chunk_size=3).sum()
        loss.backward(retain_graph=True)
        once = features.grad.clone()
        loss.backward()
    assert_close(features.grad, 2 * once)


@pytest.mark.parametrize('chunk_size', [None, 4])
def test_compiles_to_one_graph(chunk_size):
    features, weights = inputs(dtype=torch.float32)
    compiled = torch.compile(F.margin_cross_entropy, fullgraph=True, backend='aot_eager')

    def run(function):
        return value_and_gradients(
            lambda x, w: function(x, w, TARGET, chunk_size=chunk_size), features, weights
        )

    assert_close(run(compiled), run(F.margin_cross_entropy))


@pytest.mark.usefixtures('recompute')
def test_memory_of_chunks_does_not_grow_with_the_classes():
    """Beside the gradient of the weights and their norms, C (D + 1) numbers."""
    batch, chunk = 64, 64

    def extra(classes, chunk_size):
        features = torch.randn(batch, 16, requires_grad=True)
        weights = torch.randn(classes, 16, requires_grad=True)
        target = torch.zeros(batch, dtype=torch.long)

        def reset():
            features.grad = weights.grad = None

        step = Step(
            lambda: F.margin_cross_entropy(features, weights, target, chunk_size=chunk_size).sum(),
            lambda value: value.backward(),
            reset,
        )
        return peak_bytes(torch.device('cpu'), step) - 4 * classes * 17

    few, many = extra(1024, chunk), extra(8192, chunk)
    assert many < 1.2 * few + 4 * 8192  # norms are gathered from those of the chunks
    assert extra(8192, None) > 4 * batch * 8192 > 8 * many


@pytest.mark.parametrize(
    ('change', 'text'),
    [
        (dict(chunk_size=0), 'chunk_size must be a positive integer, got 0'),
        (dict(chunk_size=2.0), 'chunk_size must be a positive integer'),
        (dict(target=torch.tensor([0, 11])), r'target must be within 0\.\.\.3 .*got 11'),
        (dict(class_weights=torch.ones(4, 2)), 'in_channels'),
        (dict(rule='hard'), "rule must be one of 'monotonic', 'easy', 'off'"),
        (dict(scale=-1.0), 'scale must be a positive number'),
    ],
)
def test_bad_arguments(change, text):
    arguments = dict(
        features=torch.ones(2, 3), class_weights=torch.ones(4, 3), target=torch.tensor([0, 1])
    )
    with pytest.raises(ValueError, match=text):
        F.margin_cross_entropy(**{**arguments, **change})
