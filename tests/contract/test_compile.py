"""Law 7: the module compiles to one graph, and the graph computes the same."""

from __future__ import annotations

import dataclasses
import functools

import pytest
import torch
from torch.testing import assert_close

from mmloss_plugins.losses import base
from tests.contract.subject import loss_and_gradients
from tests.contract.trees import cycle, float_leaves, leaves


@pytest.fixture(autouse=True)
def fresh_compiler():
    """Earlier graphs must not use up the number of recompilations."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def assert_same(subject, compiled, eager, *arguments, **options):
    for seed in (0, 1):
        pred, target = subject.make(seed=seed)
        found = loss_and_gradients(compiled, pred, target, *arguments, **options)
        expected = loss_and_gradients(eager, pred, target, *arguments, **options)
        assert_close(found[0], expected[0], rtol=1e-5, atol=1e-6)
        assert_close(found[1], expected[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('reduction', ['none', 'mean'])
def test_module_is_one_graph(subject, reduction):
    loss = subject.build(reduction=reduction)
    compiled = torch.compile(loss, fullgraph=True, backend='aot_eager')
    mask = subject.mask()
    assert_same(subject, compiled, loss, subject.weight(), mask)


def test_module_that_counts_valid_elements_is_one_graph(subject):
    if not subject.variant.can_mean_over_valid:
        return
    loss = subject.build(mean_over='valid')
    compiled = torch.compile(loss, fullgraph=True, backend='aot_eager')
    assert_same(subject, compiled, loss, subject.weight())


def test_module_with_avg_factor_is_one_graph(subject):
    loss = subject.build()
    compiled = torch.compile(loss, fullgraph=True, backend='aot_eager')
    assert_same(subject, compiled, loss, subject.weight(), avg_factor=torch.tensor(3.0))


@pytest.mark.slow
def test_generated_code_of_the_whole_module_equals_eager(plain):
    loss = plain.build()
    compiled = torch.compile(loss, fullgraph=True)
    mask = plain.mask()
    assert_same(plain, compiled, loss, plain.weight(), mask)


def test_compile_argument_of_the_constructor_equals_eager(plain):
    compiled, eager = plain.build(compile=True), plain.build()
    assert_same(plain, compiled, eager, plain.weight())
    pred, target = plain.make()
    for limit in plain.case.limit_targets.values():
        for extremes in ([0.0], [65504.0, -65504.0, 30.0, -8.5, 6e-8]):
            inputs = cycle(pred, extremes), limit(target)
            found = loss_and_gradients(compiled, *inputs)
            assert_close(found, loss_and_gradients(eager, *inputs), rtol=1e-5, atol=1e-6)
            assert all(value.isfinite().all() for value in leaves(found))
    assert_leaves_out_what_is_switched_off(plain, compiled)


def assert_leaves_out_what_is_switched_off(plain, compiled):
    index = plain.middle()
    weight = torch.ones(plain.shape())
    weight[index] = 0
    pred, target = plain.make()
    for leaf in float_leaves(pred):
        plain.case.select(leaf.data, index).fill_(torch.nan)
    value, found = loss_and_gradients(compiled, pred, target, weight)
    assert torch.isfinite(value)
    assert value > 0
    for gradient in found:
        assert (plain.case.select(gradient, index) == 0).all()
        assert torch.isfinite(gradient).all()


def test_compile_argument_inside_a_compiled_model_is_one_graph(plain):
    compiled = torch.compile(plain.build(compile=True), fullgraph=True, backend='aot_eager')
    assert_same(plain, compiled, plain.build(), plain.weight())


@pytest.fixture
def no_code_generation(monkeypatch):
    """Trace and check the guards, but run the graph as it is: milliseconds instead of seconds."""
    base._compiled.cache_clear()
    monkeypatch.setattr(torch, 'compile', functools.partial(torch.compile, backend='eager'))
    yield
    base._compiled.cache_clear()


@pytest.mark.usefixtures('no_code_generation')
def test_many_specialisations_in_one_process(plain):
    """Types, grad modes, sizes and other losses of a process: the ninth must not raise."""
    for variant in plain.case.variants.values():
        subject = dataclasses.replace(plain, variant=variant)
        loss, eager = subject.build(compile=True), subject.build()
        for dtype in (torch.float32, torch.bfloat16, torch.float64):
            for batch in (2, 3, 5):
                pred, target = subject.make(batch, dtype=dtype)
                assert_close(loss(pred, target), eager(pred, target))
                with torch.no_grad():
                    assert_close(loss(pred, target), eager(pred, target))
