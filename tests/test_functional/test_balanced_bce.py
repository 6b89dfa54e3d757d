"""Balanced BCE against values by hand, a loop over pixels, and torch.topk."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from mmloss_plugins.functional import balanced_bce_loss, hard_negative_share, value_checks
from mmloss_plugins.functional.balanced_bce import WIDTHS
from mmloss_plugins.functional.closed_form import CHUNK


def bce(x, t):
    """Cross-entropy of one pixel in Python's floats."""
    return max(x, 0.0) - x * t + math.log1p(math.exp(-abs(x)))


def mined(logits, target, valid=None, ratio=3.0, fallback='all', high=1.0, low=0.0):
    """Return (sum of the loss, number of pixels that count) of one group, by sorting a list."""
    valid = [True] * len(logits) if valid is None else valid
    positives, negatives = [], []
    for x, t, known in zip(logits, target, valid):
        if known and t >= high:
            positives.append(bce(x, t))
        elif known and t <= low:
            negatives.append(bce(x, t))
    if positives:
        k = min(len(negatives), int(ratio * len(positives)))
    else:
        k = len(negatives) if fallback == 'all' else min(len(negatives), fallback)
    chosen = positives + sorted(negatives, reverse=True)[:k]
    return sum(chosen), len(chosen)


def ours(logits, target, valid=None, **options):
    logits, target = (torch.tensor([row], dtype=torch.float64) for row in (logits, target))
    valid = None if valid is None else torch.tensor([valid])
    share = hard_negative_share(logits, target, valid, **options)
    return balanced_bce_loss(logits, target, share, valid).sum().item(), share.sum().item()


def test_by_hand():
    # One positive of loss log 2 = 0.693147; of the negatives the two hardest have
    # log(1 + e^2) = 2.126928 and log(1 + e) = 1.313262, the others 0.0067 and 0.0025.
    total, count = ours([0.0, 2.0, 1.0, -5.0, -6.0], [1.0, 0, 0, 0, 0], negative_ratio=2)
    assert count == 3
    assert total == pytest.approx(0.693147 + 2.126928 + 1.313262, abs=1e-6)


ROWS = st.lists(
    st.tuples(
        st.integers(-4, 4).map(float),  # few values: many ties
        st.sampled_from([0.0, 0.0, 0.0, 0.2, 0.5, 0.9, 1.0]),
        st.booleans(),
    ),
    max_size=30,
)


@settings(max_examples=150, deadline=None)
@given(
    ROWS,
    st.sampled_from([0.0, 0.3, 1.0, 3.0, math.inf]),
    st.sampled_from(['all', 0, 2]),
    st.sampled_from([(1.0, 0.0), (0.5, 0.2), (0.9, 0.5)]),
)
def test_is_the_loop(rows, ratio, fallback, thresholds):
    logits, target, valid = ([row[i] for row in rows] for i in range(3))
    high, low = thresholds
    expected, count = mined(
        logits, target, valid, ratio=min(ratio, 100), fallback=fallback, high=high, low=low
    )
    options = dict(negative_ratio=ratio, fallback_negatives=fallback)
    found = ours(logits, target, valid, pos_threshold=high, neg_threshold=low, **options)
    assert found == pytest.approx((expected, count), abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_in_memory_does_not_matter(rows, random):
    order = list(range(len(rows)))
    random.shuffle(order)
    logits, target = (torch.tensor([[row[i] for row in rows]]).reshape(1, -1) for i in range(2))
    share = hard_negative_share(logits, target, negative_ratio=1.5)
    shuffled = hard_negative_share(logits[:, order], target[:, order], negative_ratio=1.5)
    assert_close(shuffled, share[:, order], rtol=0, atol=0)


def test_equal_losses_share_the_places_that_are_left():
    logits = torch.tensor([[0.0, 3.0, 1.0, 1.0, 1.0, -1.0]])
    target = torch.tensor([[1.0, 0.0, 0.0, 0.0, 0.0, 0.0]])
    # 3 places: one for the logit 3, two for the three logits 1.
    expected = torch.tensor([[1, 1, 2 / 3, 2 / 3, 2 / 3, 0]])
    assert_close(hard_negative_share(logits, target), expected)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize('samples', [1, 3])
def test_large_maps_against_topk(samples, dtype):
    """Large enough for pieces and for wide digits; float32 draws of this number have ties."""
    generator = torch.Generator().manual_seed(0)
    n = 2 * max(CHUNK, 1 << WIDTHS[0]) + 77
    logits = torch.randn(samples, n, generator=generator, dtype=torch.float64).to(dtype)
    target = (torch.rand(samples, n, generator=generator) < 0.05).to(dtype)
    valid = torch.rand(samples, n, generator=generator) < 0.9
    share = hard_negative_share(logits, target, valid, mine_over='sample')
    for x, t, v, s in zip(logits, target, valid, share):
        positive, negative = (t == 1) & v, (t == 0) & v
        k = 3 * int(positive.sum())
        loss = torch.nn.functional.softplus(x.double())
        assert ((s == 1) | ~positive).all()
        assert not s[~v].any()
        assert s.sum(dtype=torch.float64).item() == pytest.approx(positive.sum().item() + k)
        worst = loss[negative].topk(k).values
        assert_close((loss * s)[negative].sum(), worst.sum())
        assert ((s == 1) | (loss <= worst[-1] + 1e-6) | ~negative).all()


def test_pieces_and_one_piece_choose_the_same(monkeypatch):
    logits = torch.randn(4, 3, 7, 9).half().float()
    target = (torch.rand(4, 3, 7, 9) < 0.1).float()
    for over in ('batch', 'sample'):
        whole = hard_negative_share(logits, target, mine_over=over)
        monkeypatch.setattr('mmloss_plugins.functional.balanced_bce.CHUNK', 20)
        assert_close(hard_negative_share(logits, target, mine_over=over), whole, rtol=0, atol=0)
        monkeypatch.undo()
        assert 0 < whole.sum() < whole.numel()


@pytest.mark.parametrize('width', WIDTHS)
def test_any_width_of_a_digit_chooses_the_same(width, monkeypatch):
    logits, target = torch.randn(3, 500), (torch.rand(3, 500) < 0.1).float()
    expected = [mined(x.tolist(), t.tolist()) for x, t in zip(logits, target)]
    monkeypatch.setattr('mmloss_plugins.functional.balanced_bce.WIDTHS', (width,))
    share = hard_negative_share(logits, target, mine_over='sample')
    loss = balanced_bce_loss(logits, target, share)
    assert_close(loss.sum(1), torch.tensor([total for total, _ in expected]))
    assert share.sum(1).tolist() == [count for _, count in expected]


def test_samples_are_mined_apart():
    logits = torch.tensor([[5.0, 4.0, 3.0, 0.0], [0.3, 0.2, 0.1, 0.0]])
    target = torch.tensor([[0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0]])
    options = dict(negative_ratio=1)
    batch = hard_negative_share(logits, target, **options)
    assert_close(batch, torch.tensor([[1.0, 1, 0, 1], [0, 0, 0, 1]]))
    sample = hard_negative_share(logits, target, mine_over='sample', **options)
    assert_close(sample, torch.tensor([[1.0, 0, 0, 1], [1, 0, 0, 1]]))


@pytest.mark.parametrize(
    ('fallback', 'expected'), [('all', [1.0, 1, 1]), (2, [1.0, 1, 0]), (0, [0.0, 0, 0])]
)
def test_no_positives(fallback, expected):
    logits, target = torch.tensor([[2.0, 1.0, 0.0]]), torch.zeros(1, 3)
    share = hard_negative_share(logits, target, fallback_negatives=fallback)
    assert share.tolist() == [expected]


def test_a_sample_without_positives_falls_back_alone():
    logits = torch.zeros(2, 4)
    target = torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 0]])
    share = hard_negative_share(
        logits, target, mine_over='sample', negative_ratio=0, fallback_negatives=2
    )
    assert_close(share, torch.tensor([[1.0, 0, 0, 0], [0.5, 0.5, 0.5, 0.5]]))


def test_all_negatives_is_plain_cross_entropy():
    logits, target = torch.randn(2, 3, 4, 5), (torch.rand(2, 3, 4, 5) < 0.3).float()
    share = hard_negative_share(logits, target, negative_ratio=math.inf)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, target, reduction='none'
    )
    assert_close(balanced_bce_loss(logits, target, share), expected)


def test_gradient_is_that_of_the_chosen_elements():
    logits = torch.randn(3, 2, 5, 4, dtype=torch.float64, requires_grad=True)
    target = (torch.rand(3, 2, 5, 4) < 0.1).double()
    share = hard_negative_share(logits, target)
    balanced_bce_loss(logits, target, share, summed=True).mul(2).backward()
    assert not share.requires_grad
    assert_close(logits.grad, 2 * share * (logits.detach().sigmoid() - target))
    assert 0 < (logits.grad != 0).sum() < logits.numel()


@pytest.mark.parametrize('bad', [math.nan, -math.nan, math.inf])
@pytest.mark.parametrize('where', ['pred', 'target'])
def test_what_is_not_valid_may_hold_anything(bad, where):
    logits, target = torch.randn(2, 8), (torch.rand(2, 8) < 0.3).float()
    target[0, 0] = 1
    valid = torch.ones(2, 8, dtype=torch.bool)
    valid[0, 3] = valid[1, 5] = False
    clean = hard_negative_share(logits, target, valid)
    expected = balanced_bce_loss(logits, target, clean, valid)
    poisoned = logits.clone() if where == 'pred' else target.clone()
    poisoned[~valid] = bad
    logits, target = (poisoned, target) if where == 'pred' else (logits, poisoned)
    logits.requires_grad_()
    share = hard_negative_share(logits, target, valid)
    assert_close(share, clean, rtol=0, atol=0)
    loss = balanced_bce_loss(logits, target, share, valid)
    loss.sum().backward()
    assert_close(loss, expected, rtol=0, atol=0)
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad[~valid] == 0).all()


@pytest.mark.parametrize('bad', [math.nan, -math.nan])
@pytest.mark.parametrize('where', ['pred', 'target'])
def test_nan_is_the_hardest_negative(bad, where):
    logits, target = torch.tensor([[0.0, 9.0, 8.0, -3.0]]), torch.tensor([[1.0, 0, 0, 0]])
    (logits if where == 'pred' else target)[0, 3] = bad
    share = hard_negative_share(logits, target, negative_ratio=1)
    assert share.tolist() == [[1, 0, 0, 1]]
    with value_checks(False):
        assert torch.isnan(balanced_bce_loss(logits, target, share)).any()


def test_valid_is_matched_from_the_left():
    logits, target = torch.randn(3, 2, 4, 5), (torch.rand(3, 2, 4, 5) < 0.3).float()
    valid = torch.tensor([[True, False], [False, True], [False, False]])
    share = hard_negative_share(logits, target, valid)
    assert not share[~valid].any()
    assert share[valid].any(-1).any(-1).all()


def test_thresholds_are_compared_in_single_precision():
    # 0.8 is 0.7998 in float16, and so would be a target of 0.7998.
    logits, target = torch.zeros(1, 2).half(), torch.tensor([[0.79980469, 0.0]]).half()
    share = hard_negative_share(logits, target, pos_threshold=0.8, fallback_negatives=0)
    assert share.tolist() == [[0, 0]]


@pytest.mark.parametrize('shape', [(0, 3), (2, 0), (0,)])
@pytest.mark.parametrize('over', ['batch', 'sample'])
def test_empty(shape, over):
    logits = torch.zeros(shape, requires_grad=True)
    share = hard_negative_share(logits, torch.zeros(shape), mine_over=over)
    loss = balanced_bce_loss(logits, torch.zeros(shape), share)
    assert loss.shape == share.shape == shape
    assert loss.requires_grad


def test_bad_arguments():
    x = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"mine_over must be one of 'batch', 'sample', got 'imag"):
        hard_negative_share(x, x, mine_over='image')
    with pytest.raises(ValueError, match='logits must have the shape'):
        hard_negative_share(x[0, 0], x[0, 0], mine_over='sample')
    with pytest.raises(ValueError, match='target must have the shape'):
        hard_negative_share(x, x[:1])
    with pytest.raises(ValueError, match='valid must have the shape'):
        hard_negative_share(x, x, torch.ones(3))
    with pytest.raises(ValueError, match='negative_ratio must be zero or positive, got nan'):
        hard_negative_share(x, x, negative_ratio=math.nan)
    with pytest.raises(ValueError, match="fallback_negatives must be 'all' or a whole number"):
        hard_negative_share(x, x, fallback_negatives=-1)
    with pytest.raises(ValueError, match=r'within \[0, 1\], got 2'):
        balanced_bce_loss(x, x + 2, x)
