"""Focal losses: the sources' tables, values by hand, independent oracles, limits, extremes."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss
from mmdet.models.losses.gaussian_focal_loss import gaussian_focal_loss as mmdet_gaussian
from mmpose.models.losses.heatmap_loss import FocalHeatmapLoss
from torch.testing import assert_close
from torchvision.ops import sigmoid_focal_loss

from mmloss_plugins.functional import gaussian_focal, sigmoid_focal, value_checks
from mmloss_plugins.functional.focal import positive_mask


def maps(*shape, seed=0):
    """Return float64 (logits, targets in [0, 1] with some exact 0 and 1)."""
    generator = torch.Generator().manual_seed(seed)
    logits, scores = 3 * torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    return logits, (scores.sigmoid() * 1.4 - 0.2).clamp(0, 1)


def value_and_gradient(function, pred, *args, grad_output=1.0, **options):
    pred = pred.detach().clone().requires_grad_()
    loss = function(pred, *args, **options)
    loss.backward(torch.full_like(loss, grad_output))
    return loss.detach(), pred.grad


def loop_focal(logits, target, alpha, gamma):
    """Equation 5 of the paper for t in {0, 1}, in Python floats."""
    values = []
    for x, t in zip(logits.flatten().tolist(), target.flatten().tolist()):
        p = 1 / (1 + math.exp(-x))
        p_t, alpha_t = (p, alpha) if t == 1 else (1 - p, 1 - alpha)
        values.append(-alpha_t * (1 - p_t) ** gamma * math.log(p_t))
    return torch.tensor(values, dtype=torch.float64).reshape(logits.shape)


def loop_gaussian(logits, target, alpha, beta, threshold=1.0):
    """Equation 1 of CornerNet, in Python floats."""
    values = []
    for x, t in zip(logits.flatten().tolist(), target.flatten().tolist()):
        p = 1 / (1 + math.exp(-x))
        if t >= threshold:
            values.append(-((1 - p) ** alpha) * math.log(p))
        else:
            values.append(-((1 - t) ** beta) * p**alpha * math.log(1 - p))
    return torch.tensor(values, dtype=torch.float64).reshape(logits.shape)


# The worked table of the sources: sigmoid inside, alpha .25 for t = 1 and .75 for t = 0, gamma 2.
TABLE = [
    ([0.9, 0.6, 0.2, 0.3, 0.5], [1, 0, 0, 0, 0], [0.0071, 0.3244, 0.1810, 0.2114, 0.2831]),
    ([0.6, 0.2, 0.3, 0.4, 0.6], [0, 0, 0, 0, 0], [0.3244, 0.1810, 0.2114, 0.2454, 0.3244]),
    ([0.1, 0.3, 0.1, 0.2, 0.4], [0, 0, 0, 0, 0], [0.1539, 0.2114, 0.1539, 0.1810, 0.2454]),
    ([0.1, 0.2, 0.8, 0.4, 0.4], [0, 0, 1, 0, 0], [0.1539, 0.1810, 0.0089, 0.2454, 0.2454]),
]


@pytest.mark.parametrize(('pred', 'target', 'printed'), TABLE)
def test_worked_table_of_the_sources_to_the_printed_digits(pred, target, printed):
    loss = sigmoid_focal(torch.tensor([pred]), torch.tensor([target]))
    assert [round(value, 4) for value in loss[0].tolist()] == printed
    label = torch.tensor([target.index(1) if 1 in target else 5])
    assert_close(sigmoid_focal(torch.tensor([pred]), label), loss, rtol=0, atol=0)


def test_erratum_of_the_table():
    """The source prints .4181 for pred .8 and target 1: that is the value for target 0."""
    assert round(sigmoid_focal(torch.tensor([0.8]), torch.zeros(1)).item(), 4) == 0.4181
    assert round(sigmoid_focal(torch.tensor([0.8]), torch.ones(1)).item(), 4) == 0.0089


def test_sum_that_the_source_prints_for_background():
    # It lists the predictions .2 .4 .1 .8 .2 with it.
    pred = torch.tensor([0.2, 0.4, 0.1, 0.8, 0.2])
    assert_close(
        sigmoid_focal(pred, torch.zeros(5), summed=True), torch.tensor(1.1794), rtol=0, atol=1e-4
    )


def test_value_and_gradient_by_hand():
    # x = log 3: p = 3/4. t = 1: 1/4 (1/4)^2 log(4/3); t = 0: 3/4 (3/4)^2 log 4.
    x, log = torch.tensor([math.log(3.0)], dtype=torch.float64), math.log
    positive, slope = value_and_gradient(sigmoid_focal, x, torch.ones(1))
    assert_close(positive.item(), log(4 / 3) / 64)
    # d/dx of -a (1 - p)^2 log p is a (1 - p)^2 (2 p log p - (1 - p)).
    assert_close(slope.item(), 1 / 64 * (1.5 * log(3 / 4) - 1 / 4))
    negative, slope = value_and_gradient(sigmoid_focal, x, torch.zeros(1))
    assert_close(negative.item(), 27 / 64 * log(4))
    assert_close(slope.item(), 27 / 64 * (0.5 * log(4) + 3 / 4))


@pytest.mark.parametrize('alpha', [0.25, 0.6])
@pytest.mark.parametrize('gamma', [0.0, 0.5, 1.0, 2.0, 3.7, 4.0])
def test_loops_from_the_paper(alpha, gamma):
    logits, target = maps(3, 4, 5)
    target = target.round()
    found = sigmoid_focal(logits, target, alpha=alpha, gamma=gamma)
    assert_close(found, loop_focal(logits, target, alpha, gamma))


@pytest.mark.parametrize('alpha', [0.25, -1, None])
@pytest.mark.parametrize('gamma', [0.0, 0.5, 1.0, 2.0, 3.7, 4.0])
def test_torchvision_on_soft_labels(alpha, gamma):
    logits, target = maps(3, 4, 5)
    options = dict(alpha=-1 if alpha is None else alpha, gamma=gamma)
    oracle = lambda x, t: sigmoid_focal_loss(x, t, **options)  # noqa: E731
    found = value_and_gradient(
        sigmoid_focal, logits, target, alpha=alpha, gamma=gamma, grad_output=0.3
    )
    assert_close(found, value_and_gradient(oracle, logits, target, grad_output=0.3))


def test_mmdetection_on_class_labels():
    logits, _ = maps(7, 4)
    labels = torch.tensor([0, 3, 4, 4, 1, 2, 4])
    one_hot = torch.nn.functional.one_hot(labels, 5)[:, :4]
    oracle = lambda x: py_sigmoid_focal_loss(x, one_hot, alpha=0.4, gamma=1.5, reduction='none')  # noqa: E731
    found = value_and_gradient(sigmoid_focal, logits, labels, alpha=0.4, gamma=1.5)
    assert_close(found, value_and_gradient(oracle, logits))


def test_bce_without_gamma():
    logits, target = maps(3, 4)
    bce = torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction='none')
    assert_close(sigmoid_focal(logits, target, alpha=None, gamma=0.0), bce)
    balance = 0.75 * target + 0.25 * (1 - target)
    assert_close(sigmoid_focal(logits, target, alpha=0.75, gamma=0.0), balance * bce)
    assert_close(sigmoid_focal(logits, target, alpha=0.5, gamma=0.0), bce / 2)


@pytest.mark.parametrize('shape', [(6, 3), (2, 3, 5), (2, 3, 4, 5)])
def test_class_labels_are_one_hot_along_dimension_1(shape):
    logits, _ = maps(*shape)
    labels = torch.randint(4, (shape[0], *shape[2:]), generator=torch.Generator().manual_seed(0))
    one_hot = torch.nn.functional.one_hot(labels, 4)[..., :3].movedim(-1, 1)
    for alpha in (0.25, torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)):
        found = value_and_gradient(sigmoid_focal, logits, labels, alpha=alpha)
        assert_close(found, value_and_gradient(sigmoid_focal, logits, one_hot, alpha=alpha))


def test_alpha_of_each_class():
    logits, target = maps(2, 3, 4, 5)
    alpha = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    found = sigmoid_focal(logits, target, alpha=alpha)
    for index, value in enumerate(alpha.tolist()):
        expected = sigmoid_focal(logits[:, index], target[:, index], alpha=value)
        assert_close(found[:, index], expected)


@pytest.mark.parametrize('summed', [False, True])
def test_ignored_elements_have_no_loss_and_no_gradient(summed):
    logits, target = maps(3, 4)
    target[0, 1] = target[2, 3] = -1
    logits[0, 1] = math.nan
    loss, slope = value_and_gradient(sigmoid_focal, logits, target, ignore_index=-1, summed=summed)
    kept = target != -1
    expected = sigmoid_focal(logits[kept], target[kept])
    assert_close(loss if summed else loss[kept], expected.sum() if summed else expected)
    assert (slope[~kept] == 0).all()
    assert (slope[kept] != 0).all()


@pytest.mark.parametrize('ignored', [-1, 255])
def test_ignored_class_labels(ignored):
    logits, _ = maps(4, 3)
    labels = torch.tensor([0, ignored, 3, 2])
    loss, slope = value_and_gradient(sigmoid_focal, logits, labels, ignore_index=ignored)
    assert (loss[1] == 0).all()
    assert (slope[1] == 0).all()
    kept = [0, 2, 3]
    assert_close(loss[kept], sigmoid_focal(logits[kept], labels[kept]))


def test_a_label_out_of_range_is_refused_or_background():
    logits, _ = maps(2, 3)
    with pytest.raises(ValueError, match=r'within \[0, 3\], got -1 at index \(1,\)'):
        sigmoid_focal(logits, torch.tensor([0, -1]))
    with value_checks(False):
        found = sigmoid_focal(logits, torch.tensor([0, -1]))
    assert_close(found, sigmoid_focal(logits, torch.tensor([0, 3])))


@pytest.mark.parametrize(
    ('target', 'text'),
    [
        (torch.zeros(2, 4), r'target must have the shape \(2, 3\) of pred'),
        (torch.zeros(3, dtype=torch.long), r'\(2, 3\) of pred, or \(2,\) as class labels, got'),
        (torch.zeros(2), r'be integer class labels in the shape \(2,\), got torch.float32'),
        (torch.full((2, 3), 1.5), r'target must be finite and within \[0, 1\], got 1.5'),
    ],
)
def test_bad_labels(target, text):
    with pytest.raises(ValueError, match=text):
        sigmoid_focal(torch.zeros(2, 3), target)


@pytest.mark.parametrize('alpha', [torch.rand(4), torch.rand(1, 3)])
def test_alpha_of_another_number_of_classes(alpha):
    with pytest.raises(ValueError, match='alpha must have one value for each class'):
        sigmoid_focal(torch.zeros(2, 3), torch.zeros(2, 3), alpha=alpha)


# x = log 3, p = 3/4: a positive has (1/4)^2 log(4/3); background with t = 1/2 has
# (1/2)^4 (3/4)^2 log 4; background with t = 0 has (3/4)^2 log 4.
def test_gaussian_by_hand():
    x = torch.full((3,), math.log(3.0), dtype=torch.float64)
    found, slope = value_and_gradient(gaussian_focal, x, torch.tensor([1.0, 0.5, 0.0]))
    background = 9 / 16 * math.log(4)
    expected = [math.log(4 / 3) / 16, background / 16, background]
    assert_close(found, torch.tensor(expected, dtype=torch.float64))
    steep = 9 / 16 * (0.5 * math.log(4) + 3 / 4)
    rows = [1 / 16 * (1.5 * math.log(3 / 4) - 1 / 4), steep / 16, steep]
    assert_close(slope, torch.tensor(rows, dtype=torch.float64))


@pytest.mark.parametrize(('alpha', 'beta'), [(2.0, 4.0), (1.0, 1.0), (0.5, 2.5), (3.0, 0.0)])
@pytest.mark.parametrize('threshold', [1.0, 0.6])
def test_gaussian_loops_from_the_paper(alpha, beta, threshold):
    logits, target = maps(2, 3, 4, 5)
    options = dict(alpha=alpha, beta=beta, pos_threshold=threshold)
    found = gaussian_focal(logits, target, **options)
    assert_close(found, loop_gaussian(logits, target, alpha, beta, threshold))
    assert torch.autograd.gradcheck(
        lambda x: gaussian_focal(x, target[0], **options) * 0.3, logits[0].clone().requires_grad_()
    )


def test_gaussian_of_mmdetection():
    logits, target = maps(2, 3, 4, 5)
    options = dict(alpha=1.5, pos_weight=0.25, neg_weight=0.75)
    oracle = lambda x: mmdet_gaussian(x.sigmoid(), target, gamma=3.0, reduction='none', **options)  # noqa: E731
    found = value_and_gradient(gaussian_focal, logits, target, beta=3.0, **options)
    assert_close(found, value_and_gradient(oracle, logits))


def test_gaussian_of_mmpose():
    logits, target = maps(2, 3, 4, 5)
    expected = FocalHeatmapLoss()(logits.sigmoid(), target)
    found = gaussian_focal(logits, target, summed=True) / (target == 1).sum()
    assert_close(found, expected)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
def test_saturated_errors_and_confident_centres_are_exact(dtype):
    logits = torch.tensor([20.0, 8.5, 12.0, -20.0], dtype=dtype)
    target = torch.tensor([0.0, 1.0, 1.0, 1.0])
    found, slope = value_and_gradient(gaussian_focal, logits, target)
    exact, steep = value_and_gradient(gaussian_focal, logits.double(), target.double())
    assert found[0] == 20
    assert slope[0] == 1
    assert found[3] == 20
    assert slope[3] == -1
    assert_close(found, exact.float(), rtol=1e-5, atol=0)
    if dtype == torch.float32:
        assert_close(slope, steep.float(), rtol=1e-5, atol=0)
    assert_close(slope, steep.to(dtype))
    assert found[1] > 0


@pytest.mark.parametrize('gamma', [0.0, 0.5, 2.0])
def test_labels_are_exact_far_out(gamma):
    x = torch.tensor([-60.0, -20, -9, -1, 0, 1, 9, 20, 60]).repeat(3)
    target = torch.tensor([0.0, 1.0, 0.3]).repeat_interleave(9)
    found = value_and_gradient(sigmoid_focal, x, target, gamma=gamma)
    exact = value_and_gradient(sigmoid_focal, x.double(), target.double(), gamma=gamma)
    assert_close(found[0], exact[0].float(), rtol=1e-5, atol=1e-37)
    assert_close(found[1], exact[1].float(), rtol=1e-4, atol=1e-7)


def test_positives_by_mask_and_by_position():
    logits, target = maps(2, 3, 4, 5)
    target = target * 0.9
    mask = torch.zeros(2, 3, 4, 5, dtype=torch.bool)
    mask[0, 1, 2, 3] = mask[1, 0, 0, 0] = mask[1, 2, 3, 4] = True
    found = gaussian_focal(logits, target, mask)
    assert_close(found[mask], loop_gaussian(logits[mask], torch.ones(3), 2.0, 4.0))
    assert_close(found[~mask], gaussian_focal(logits, target)[~mask])
    positions = {
        'of a sample': [[1 * 20 + 2 * 5 + 3, -1], [0, 2 * 20 + 3 * 5 + 4]],
        'of a map': [[[-1], [2 * 5 + 3], [-1]], [[0], [-1], [3 * 5 + 4]]],
        'of all': [1 * 20 + 2 * 5 + 3, 60, 60 + 2 * 20 + 3 * 5 + 4, -1, 60],
    }
    for index in positions.values():
        assert_close(positive_mask(torch.tensor(index), mask.shape), mask)
        assert_close(gaussian_focal(logits, target, torch.tensor(index)), found, rtol=0, atol=0)


@pytest.mark.parametrize(
    'positives',
    [
        torch.zeros(2, 3),
        torch.zeros(2, 3, dtype=torch.bool),
        torch.tensor(3),
        torch.ones(3, 2).int(),
    ],
)
def test_bad_positives(positives):
    with pytest.raises(ValueError, match=r'positives must be a boolean mask .*or integer'):
        gaussian_focal(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4), positives)


@pytest.mark.parametrize('function', [sigmoid_focal, gaussian_focal])
def test_probabilities_give_the_loss_of_their_logits(function):
    logits, target = maps(3, 4)
    on_logits = value_and_gradient(function, logits, target)
    through = lambda x, t: function(x.sigmoid(), t, from_logits=False)  # noqa: E731
    assert_close(value_and_gradient(through, logits, target), on_logits)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize('function', [sigmoid_focal, gaussian_focal])
def test_probabilities_at_their_ends_are_finite(function, dtype):
    pred = torch.tensor([0.0, 1.0, 0.5, 6e-8, 0.999], dtype=dtype).repeat(2)
    target = torch.tensor([0.0, 1.0]).repeat_interleave(5)
    loss, slope = value_and_gradient(function, pred, target, from_logits=False)
    assert torch.isfinite(loss).all()
    assert torch.isfinite(slope).all()
    if function is gaussian_focal:
        # log of 2^24 on a background at 1, of 1e12 on a centre at 0.
        assert_close(loss[[1, 5]], torch.tensor([24 * math.log(2), 12 * math.log(10)]))
    nan = value_and_gradient(function, pred * math.nan, target, from_logits=False)
    assert torch.isnan(nan[0]).all()


@pytest.mark.parametrize('function', [sigmoid_focal, gaussian_focal])
def test_logits_in_place_of_probabilities_are_reported(function):
    with pytest.raises(ValueError, match=r'pred must be probabilities in \[0, 1\].*got 2'):
        function(torch.tensor([0.5, 2.0]), torch.zeros(2), from_logits=False)


@settings(max_examples=50, deadline=None)
@given(
    x=st.floats(-50, 50),
    t=st.floats(0, 1),
    gamma=st.floats(0, 5),
    alpha=st.floats(0, 1),
)
def test_properties(x, t, gamma, alpha):
    pred, target = torch.tensor([x, -x]), torch.tensor([t, 1 - t])
    loss, slope = value_and_gradient(sigmoid_focal, pred, target, gamma=gamma, alpha=None)
    assert (loss >= 0).all()
    assert torch.isfinite(slope).all()
    # Exchanging the two classes mirrors the loss.
    assert_close(loss[0], loss[1], rtol=1e-4, atol=1e-6)
    assert_close(slope[0], -slope[1], rtol=1e-4, atol=1e-5)
    bce = torch.nn.functional.binary_cross_entropy_with_logits(pred, target, reduction='none')
    assert (loss <= bce * (1 + 1e-5) + 1e-6).all()
    balanced = sigmoid_focal(pred, target, gamma=gamma, alpha=alpha)
    other = sigmoid_focal(pred, target, gamma=gamma, alpha=1 - alpha)
    assert_close(balanced + other, loss, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('function', [sigmoid_focal, gaussian_focal])
def test_sum_is_the_sum_of_the_elements(function):
    logits, target = maps(2, 3, 170, 71)
    elements = value_and_gradient(function, logits, target)
    total = value_and_gradient(function, logits, target, summed=True)
    assert_close(total[0], elements[0].sum())
    assert_close(total[1], elements[1])
