"""The discrete KL divergence: values by hand, independent oracles, limits and properties."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import rel_entr
from torch.testing import assert_close

from mmloss_plugins.functional import kl_discret, value_checks


def batch(*shape, seed=0, dtype=torch.float64):
    """Return (logits, normalised labels), not contiguous, shape (..., bins)."""
    generator = torch.Generator().manual_seed(seed)
    size = (2, shape[-1], *shape[:-1])
    logits, scores = 2 * torch.randn(size, generator=generator, dtype=torch.float64)
    return logits.movedim(0, -1).to(dtype), scores.movedim(0, -1).softmax(-1).to(dtype)


def value_and_gradient(logits, target, grad_output=1.0, **options):
    logits = logits.detach().clone().requires_grad_()
    loss = kl_discret(logits, target, **options)
    loss.backward(torch.full_like(loss, grad_output))
    return loss.detach(), logits.grad


def loop_kl(logits, target, beta=1.0):
    """Definition in float64 loops: sum_i t_i (log t_i - log p_i), p = softmax(beta x)."""
    rows = []
    for x, t in zip(logits.double().flatten(0, -2), target.double().flatten(0, -2)):
        normaliser = math.fsum(math.exp(beta * value) for value in x.tolist())
        terms = [
            mass * (math.log(mass) - beta * value + math.log(normaliser))
            for value, mass in zip(x.tolist(), t.tolist())
            if mass > 0
        ]
        rows.append(math.fsum(terms))
    return torch.tensor(rows, dtype=torch.float64).reshape(logits.shape[:-1])


# Two bins with p = (1/4, 3/4) and t = (1/2, 1/2):
# KL = 1/2 log(1/2 / 1/4) + 1/2 log(1/2 / 3/4) = 1/2 log(4/3), gradient p - t = (-1/4, 1/4).
TWO_BINS = torch.tensor([[0.0, math.log(3.0)]])
HALVES = torch.tensor([[0.5, 0.5]])
BY_HAND = 0.5 * math.log(4 / 3)


def test_value_by_hand():
    value, gradient = value_and_gradient(TWO_BINS, HALVES, bin_reduction='sum')
    assert_close(value, torch.tensor([BY_HAND]))
    assert_close(gradient, torch.tensor([[-0.25, 0.25]]))


def test_mean_over_bins_divides_by_their_number():
    value, gradient = value_and_gradient(TWO_BINS, HALVES)
    assert_close(value, torch.tensor([BY_HAND / 2]))
    assert_close(gradient, torch.tensor([[-0.125, 0.125]]))


def test_beta_scales_logits_and_gradient():
    value, gradient = value_and_gradient(TWO_BINS / 2, HALVES, beta=2.0, bin_reduction='sum')
    assert_close(value, torch.tensor([BY_HAND]))
    assert_close(gradient, torch.tensor([[-0.5, 0.5]]))


def test_label_softmax_by_hand():
    # softmax(10 (0, log(3) / 10)) = (1/4, 3/4) = p, and KL of (1/4, 3/4) to (1/2, 1/2) is
    # log 2 - H = log 2 + 1/4 log(1/4) + 3/4 log(3/4).
    scores = TWO_BINS / 10
    assert_close(kl_discret(TWO_BINS, scores, label_softmax=True), torch.zeros(1))
    expected = math.log(2) + 0.25 * math.log(0.25) + 0.75 * math.log(0.75)
    value = kl_discret(torch.zeros(1, 2), scores, label_softmax=True, bin_reduction='sum')
    assert_close(value, torch.tensor([expected]))
    other = kl_discret(TWO_BINS, TWO_BINS / 4, label_softmax=True, label_beta=4.0)
    assert_close(other, torch.zeros(1))


@pytest.mark.parametrize('beta', [1.0, 0.5, 10.0])
def test_loops_from_the_definition(beta):
    logits, target = batch(3, 4, 7)
    assert_close(
        kl_discret(logits, target, beta=beta, bin_reduction='sum'), loop_kl(logits, target, beta)
    )
    assert_close(kl_discret(logits, target, beta=beta), loop_kl(logits, target, beta) / 7)


def test_loops_on_labels_that_do_not_sum_to_one():
    logits, target = batch(3, 4, 7)
    target = target * torch.linspace(0, 2, 12, dtype=torch.float64).reshape(3, 4, 1)
    target[1, 2, :4] = 0
    assert_close(kl_discret(logits, target, bin_reduction='sum'), loop_kl(logits, target))


def test_torch_distributions():
    logits, target = batch(3, 4, 7)
    expected = torch.distributions.kl_divergence(
        torch.distributions.Categorical(probs=target),
        torch.distributions.Categorical(logits=3.0 * logits),
    )
    assert_close(kl_discret(logits, target, beta=3.0, bin_reduction='sum'), expected)


def test_scipy_relative_entropy():
    logits, target = batch(3, 4, 7)
    expected = torch.from_numpy(rel_entr(target.numpy(), logits.softmax(-1).numpy()))
    assert_close(kl_discret(logits, target, bin_reduction='sum'), expected.sum(-1))
    assert_close(kl_discret(logits, target), expected.mean(-1))


def test_gradient_is_that_of_cross_entropy():
    """The entropy of the label is a constant, so the gradients agree."""
    logits, target = batch(6, 7)
    _, gradient = value_and_gradient(logits, target, bin_reduction='sum', grad_output=0.3)
    reference = logits.detach().clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(reference, target, reduction='sum')
    (0.3 * loss).backward()
    assert_close(gradient, reference.grad)


@pytest.mark.parametrize('label_softmax', [False, True])
@pytest.mark.parametrize('bin_reduction', ['mean', 'sum'])
@pytest.mark.parametrize('beta', [1.0, 2.5])
def test_gradcheck(beta, bin_reduction, label_softmax):
    logits, target = batch(2, 3, 5)
    target[0, 1] = 0
    target[1, 0] *= 0.4
    weight = torch.rand(2, 3, dtype=torch.float64)
    weight[1, 2] = 0

    def weighted(x):
        options = dict(beta=beta, bin_reduction=bin_reduction, label_softmax=label_softmax)
        return (weight * kl_discret(x, target, **options)).sum() ** 2

    assert torch.autograd.gradcheck(weighted, logits.contiguous().requires_grad_())


def test_second_derivative_is_refused():
    logits, target = batch(2, 3, 5)
    logits = logits.detach().clone().requires_grad_()
    loss = kl_discret(logits, target).sum()
    (gradient,) = torch.autograd.grad(loss, logits, create_graph=True)
    with pytest.raises(RuntimeError, match='does not require grad'):
        gradient.sum().backward()


def test_zero_for_a_perfect_prediction():
    _, target = batch(3, 4, 7)
    for shift in (0.0, -30.0, 500.0):
        value, gradient = value_and_gradient(target.log() + shift, target)
        assert_close(value, torch.zeros_like(value), rtol=0, atol=1e-12)
        assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-12)


def test_beta_to_zero_is_the_divergence_from_uniform():
    logits, target = batch(3, 4, 7)
    entropy = torch.distributions.Categorical(probs=target).entropy()
    value = kl_discret(logits, target, beta=1e-9, bin_reduction='sum')
    assert_close(value, math.log(7) - entropy)


def test_rows_without_mass_give_nothing():
    logits, target = batch(3, 4, 7)
    target[1, 2] = 0
    value, gradient = value_and_gradient(logits, target)
    assert value[1, 2] == 0
    assert (gradient[1, 2] == 0).all()
    assert (value > 0).sum() == 11
    assert (gradient != 0).any(-1).sum() == 11


def test_one_bin_has_nothing_to_say():
    value, gradient = value_and_gradient(torch.randn(3, 1), torch.ones(3, 1))
    assert (value == 0).all()
    assert (gradient == 0).all()


@pytest.mark.parametrize('dtype', [torch.float16, torch.float32])
def test_saturated_error_keeps_value_and_gradient(dtype):
    # log(1 + e^65504) = 65504, and p - t = (0 - 1, 1 - 0).
    logits = torch.tensor([[0.0, 65504.0]], dtype=dtype)
    value, gradient = value_and_gradient(logits, torch.tensor([[1.0, 0.0]]), bin_reduction='sum')
    assert_close(value, torch.tensor([65504.0]))
    assert_close(gradient, torch.tensor([[-1.0, 1.0]], dtype=dtype))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('logit', [8.5, 30.0, 65504.0])
def test_confident_and_right_is_zero(dtype, logit):
    logits = torch.tensor([[logit, -logit, -logit]], dtype=dtype)
    value, gradient = value_and_gradient(logits, torch.tensor([[1.0, 0.0, 0.0]]))
    # 2 e^-17 / 3 is left of the smallest of the three logits.
    assert_close(value, torch.zeros(1), rtol=0, atol=1e-7)
    assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-7)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32])
def test_result_is_float32(dtype):
    logits, target = batch(3, 4, 7, dtype=dtype)
    value, gradient = value_and_gradient(logits, target)
    assert value.dtype == torch.float32
    assert gradient.dtype == dtype
    assert_close(value, kl_discret(logits.double(), target.double()).float(), rtol=1e-5, atol=1e-7)


def test_any_number_of_leading_dimensions():
    logits, target = batch(3, 2, 4, 5)
    whole = kl_discret(logits, target)
    assert whole.shape == (3, 2, 4)
    assert_close(kl_discret(logits[1, 0, 2], target[1, 0, 2]), whole[1, 0, 2])
    assert kl_discret(torch.zeros(0, 4, 5), torch.zeros(0, 4, 5)).shape == (0, 4)


rows = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(2, 9), st.integers(0, 10**6))


@given(rows)
@settings(max_examples=40, deadline=None)
def test_never_negative_for_normalised_labels(size):
    logits, target = batch(*size[:3], seed=size[3])
    assert (kl_discret(logits, target) >= -1e-12).all()
    assert (kl_discret(logits.float(), target.float()) >= -1e-6).all()


@given(rows, st.floats(-100, 100), st.floats(0.1, 10))
@settings(max_examples=40, deadline=None)
def test_a_shift_of_the_logits_changes_nothing(size, shift, beta):
    logits, target = batch(*size[:3], seed=size[3])
    value, gradient = value_and_gradient(logits, target, beta=beta)
    moved, slope = value_and_gradient(logits + shift, target, beta=beta)
    assert_close(moved, value, rtol=1e-9, atol=1e-10)
    assert_close(slope, gradient, rtol=1e-9, atol=1e-10)
    # A shift has no effect, so the gradient of each row sums to zero.
    assert_close(gradient.sum(-1), torch.zeros_like(value), rtol=0, atol=1e-12)


@given(rows, st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_rows_keep_their_order_and_bins_do_not_matter(size, random):
    logits, target = batch(*size[:3], seed=size[3])
    keypoints = random.sample(range(size[1]), size[1])
    bins = random.sample(range(size[2]), size[2])
    value = kl_discret(logits, target)
    assert_close(kl_discret(logits[:, keypoints], target[:, keypoints]), value[:, keypoints])
    assert_close(kl_discret(logits[..., bins], target[..., bins]), value)


def test_nan_label_is_found_with_its_index():
    logits, target = batch(3, 4, 7)
    target[2, 1, 5] = math.nan
    with pytest.raises(
        ValueError,
        match=r'^kl_discret: target must be finite, got nan at index \(2, 1, 5\)\. Look for a NaN',
    ):
        kl_discret(logits, target)


def test_infinite_label_is_found_with_its_index():
    logits, target = batch(3, 4, 7)
    target[0, 3, 6] = math.inf
    with pytest.raises(ValueError, match=r'must be finite, got inf at index \(0, 3, 6\)'):
        kl_discret(logits, target)


def test_negative_mass_is_found_with_its_index():
    logits, target = batch(3, 4, 7)
    target[1, 0, 2] = -0.25
    with pytest.raises(
        ValueError, match=r'target must be non-negative, got -0\.25 at index \(1, 0, 2\)\. A dist'
    ):
        kl_discret(logits, target)


def test_values_are_not_read_unless_asked():
    logits, target = batch(3, 4, 7)
    target[1, 0, 2] = math.nan
    with value_checks(False):
        value = kl_discret(logits, target)
    assert torch.isnan(value[1, 0])
    assert torch.isfinite(value).sum() == 11


@pytest.mark.parametrize(
    ('logits', 'target'),
    [((2, 3, 5), (2, 3, 4)), ((2, 3, 5), (2, 1, 5)), ((2, 0), (2, 0)), ((), ())],
)
def test_wrong_shapes(logits, target):
    with pytest.raises(ValueError, match=r'^kl_discret: target must have the shape \(\.\.\., W\)'):
        kl_discret(torch.zeros(logits), torch.zeros(target))


def test_target_with_gradient_is_refused():
    with pytest.raises(ValueError, match='target must not require a gradient'):
        kl_discret(torch.zeros(2, 3), torch.ones(2, 3, requires_grad=True))


def test_misspelt_bin_reduction():
    with pytest.raises(ValueError, match=r"one of 'mean', 'sum', got 'summ'\. Did you mean 'sum'"):
        kl_discret(torch.zeros(2, 3), torch.ones(2, 3), bin_reduction='summ')
