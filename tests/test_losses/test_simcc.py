"""KLDiscretLoss against the definition, the SimCC authors' code and MMPose's class."""

from __future__ import annotations

import math

import pytest
import torch
from mmpose.models.losses import KLDiscretLoss as HostLoss
from torch.nn import functional as F
from torch.testing import assert_close

from mmloss_plugins.losses import KLDiscretLoss


def batch(B=3, K=4, bins=(6, 9), seed=0, dtype=torch.float64):
    """Return (pred, target, weight): logits and labels per axis, weights with zeros."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*reversed(shape), generator=generator, dtype=torch.float64).permute(
            *reversed(range(len(shape)))
        )

    pred = tuple((2 * normal(B, K, W)).to(dtype).requires_grad_() for W in bins)
    target = tuple(normal(B, K, W).softmax(-1).to(dtype) for W in bins)
    weight = normal(B, K).abs().to(dtype)
    weight[0, 1 % K] = weight[B - 1, K // 2] = 0
    return pred, target, weight


def value_and_gradient(loss, pred, target, weight):
    pred = tuple(axis.detach().clone().requires_grad_() for axis in pred)
    value = loss(pred, target, weight)
    (3 * value).backward()
    return value.detach(), tuple(axis.grad for axis in pred)


def author_loss(pred, target, weight):
    """The SimCC authors' procedure: joint by joint, axis by axis, averaged over the batch."""
    num_joints = pred[0].shape[1]
    total = 0
    for joint in range(num_joints):
        for logits, label in zip(pred, target):
            log_p = F.log_softmax(logits[:, joint], dim=-1)
            per_sample = F.kl_div(log_p, label[:, joint], reduction='none').mean(dim=-1)
            total = total + (per_sample * weight[:, joint]).mean()
    return total / num_joints


def test_value_by_hand():
    # One joint is right (0), the other one has p = (1/4, 3/4), t = (1/2, 1/2) on both axes:
    # KL = log(4/3) / 2, over 2 bins, summed over 2 axes, averaged over 2 joints.
    wrong, half = [0.0, math.log(3.0)], [0.5, 0.5]
    logits = torch.tensor([[[1.0, 1.0], wrong]])
    label = torch.tensor([[half, half]])
    expected = math.log(4 / 3) / 2 / 2 * 2 / 2
    assert_close(KLDiscretLoss()((logits, logits), (label, label)), torch.tensor(expected))
    weight = torch.tensor([[1.0, 0.5]])
    assert_close(
        KLDiscretLoss()((logits, logits), (label, label), weight), torch.tensor(expected / 2)
    )
    true_kl = KLDiscretLoss(bin_reduction='sum', mean_over='valid')
    weight = torch.tensor([[0.0, 1.0]])
    assert_close(true_kl((logits, logits), (label, label), weight), torch.tensor(math.log(4 / 3)))


@pytest.mark.parametrize(('B', 'K'), [(3, 4), (2, 7), (1, 5), (5, 1)])
def test_default_is_the_authors_value_and_gradient(B, K):
    pred, target, weight = batch(B, K)
    value, gradient = value_and_gradient(KLDiscretLoss(), pred, target, weight)
    expected, slope = value_and_gradient(author_loss, pred, target, weight)
    assert_close(value, expected, rtol=1e-12, atol=1e-14)
    assert_close(gradient, slope, rtol=1e-10, atol=1e-14)


HOST_OPTIONS = [
    {},
    {'use_target_weight': False},
    {'beta': 10.0, 'label_softmax': True},
    {'beta': 0.5, 'label_softmax': True, 'label_beta': 3.0},
    {'mask': [1, 3], 'mask_weight': 0.25},
    {'mask': [0], 'mask_weight': 0.0},
    {'mask': range(1, 3), 'mask_weight': 4.0, 'use_target_weight': False},
    {'beta': 2.0, 'label_softmax': True, 'mask': [2], 'mask_weight': 0.5},
]


@pytest.mark.parametrize('options', HOST_OPTIONS, ids=str)
@pytest.mark.parametrize('B', [1, 2, 5])
def test_mmpose_scale_is_the_value_of_mmpose(options, B):
    pred, target, weight = batch(B)
    host = HostLoss(**{**options, 'mask': list(options['mask']) if 'mask' in options else None})
    expected, slope = value_and_gradient(host, pred, target, weight)
    value, gradient = value_and_gradient(
        KLDiscretLoss(**options, scale='mmpose'), pred, target, weight
    )
    assert_close(value, expected, rtol=1e-6, atol=1e-9)
    assert_close(gradient, slope, rtol=1e-6, atol=1e-9)
    assert value > 0


@pytest.mark.parametrize('options', HOST_OPTIONS, ids=str)
def test_mmpose_value_is_batch_size_times_the_default(options):
    pred, target, weight = batch(B=5)
    host = HostLoss(**{**options, 'mask': list(options['mask']) if 'mask' in options else None})
    assert_close(KLDiscretLoss(**options)(pred, target, weight) * 5, host(pred, target, weight))


def test_float32_agrees_with_mmpose():
    pred, target, weight = batch(4, 17, (384, 512), dtype=torch.float32)
    value, gradient = value_and_gradient(KLDiscretLoss(scale='mmpose'), pred, target, weight)
    expected, slope = value_and_gradient(HostLoss(), pred, target, weight)
    assert_close(value, expected, rtol=1e-6, atol=0)
    assert_close(gradient, slope, rtol=1e-4, atol=1e-9)


def test_default_does_not_depend_on_the_batch_size():
    pred, target, weight = batch()
    twice = [tuple(torch.cat([axis, axis]) for axis in tree) for tree in (pred, target)]
    loss = KLDiscretLoss()
    assert_close(loss(*twice, torch.cat([weight, weight])), loss(pred, target, weight))


def test_each_axis_is_averaged_over_its_own_bins():
    pred, target, _ = batch()
    loss = KLDiscretLoss(reduction='none')
    total = KLDiscretLoss(bin_reduction='sum', reduction='none')
    for axis, bins in ((0, 6), (1, 9)):
        single = pred[axis : axis + 1], target[axis : axis + 1]
        assert_close(loss(*single) * bins, total(*single))
    assert_close(loss(pred, target), loss(pred[:1], target[:1]) + loss(pred[1:], target[1:]))


@pytest.mark.parametrize('bins', [(6,), (6, 9, 4)])
def test_one_and_three_axes(bins):
    pred, target, weight = batch(bins=bins)
    assert_close(KLDiscretLoss()(pred, target, weight), author_loss(pred, target, weight))
    assert_close(
        KLDiscretLoss()(list(pred), list(target), weight), author_loss(pred, target, weight)
    )


def test_mask_weight_without_weight():
    pred, target, _ = batch()
    elements = KLDiscretLoss(reduction='none')(pred, target)
    found = KLDiscretLoss(reduction='none', mask=[1, 2], mask_weight=0.5)(pred, target)
    assert_close(found, elements * torch.tensor([1, 0.5, 0.5, 1]))


def test_mask_weight_zero_leaves_a_keypoint_out_even_at_nan():
    pred, target, weight = batch()
    loss = KLDiscretLoss(mask=[2], mask_weight=0.0, mean_over='valid')
    clean, _ = value_and_gradient(loss, pred, target, weight)
    for axis in pred:
        axis.data[:, 2] = math.nan
    value, gradient = value_and_gradient(loss, pred, target, weight)
    assert_close(value, clean)
    assert all((axis[:, 2] == 0).all() and axis.isfinite().all() for axis in gradient)


def test_mean_over_valid_keypoints_is_the_mean_of_the_visible():
    pred, target, weight = batch()
    visible = (weight != 0).double()
    elements = KLDiscretLoss(reduction='none')(pred, target)
    found = KLDiscretLoss(mean_over='valid')(pred, target, visible)
    assert_close(found, elements[weight != 0].mean())


def test_ratio_is_one_for_a_uniform_prediction():
    pred, target, weight = batch()
    uniform = tuple(torch.full_like(axis, 3.0) for axis in pred)
    for options in ({}, {'beta': 10.0, 'label_softmax': True}, {'mask': [1], 'mask_weight': 0.5}):
        loss = KLDiscretLoss(**options)
        assert loss.diagnostics(uniform, target, weight).keys() == {'simcc_ratio'}
        assert_close(
            loss.diagnostics(uniform, target, weight)['simcc_ratio'],
            torch.ones((), dtype=torch.float64),
        )


def test_ratio_falls_to_zero_as_the_prediction_improves():
    _, target, weight = batch()
    loss = KLDiscretLoss()
    ratios = [
        loss.diagnostics([step * axis.log() for axis in target], target, weight)['simcc_ratio']
        for step in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    assert all(later < earlier for earlier, later in zip(ratios, ratios[1:]))
    assert_close(ratios[0], torch.ones_like(ratios[0]))
    assert_close(ratios[-1], torch.zeros_like(ratios[-1]), rtol=0, atol=1e-12)


def test_ratio_is_that_of_the_losses():
    pred, target, weight = batch()
    loss = KLDiscretLoss(reduction='sum', loss_weight=7.0)
    worst = loss(tuple(torch.zeros_like(axis) for axis in pred), target, weight)
    ratio = loss.diagnostics(pred, target, weight)['simcc_ratio']
    assert_close(ratio, (loss(pred, target, weight) / worst).detach())
    mask = weight > 1
    masked = loss.diagnostics(pred, target, weight, mask)['simcc_ratio']
    assert_close(masked, loss.diagnostics(pred, target, weight * mask)['simcc_ratio'])
    ignoring = KLDiscretLoss(use_target_weight=False).diagnostics(pred, target, weight)
    assert_close(ignoring, loss.diagnostics(pred, target))


def test_ratio_of_nothing_is_zero():
    pred, target, weight = batch()
    assert KLDiscretLoss().diagnostics(pred, target, 0 * weight)['simcc_ratio'] == 0
    empty = tuple(axis[:0] for axis in pred), tuple(axis[:0] for axis in target)
    assert KLDiscretLoss().diagnostics(*empty)['simcc_ratio'] == 0


def test_wrong_bins():
    pred, target, weight = batch()
    longer = (target[0], F.pad(target[1], (0, 3)))
    with pytest.raises(ValueError) as caught:
        KLDiscretLoss()(pred, longer, weight)
    assert str(caught.value) == (
        'KLDiscretLoss: target_y must have the 9 bins of pred, got (3, 4, 12) against pred '
        '(3, 4, 9). Give head and codec the same input_size and simcc_split_ratio.'
    )


def test_wrong_number_of_keypoints():
    pred, target, weight = batch()
    with pytest.raises(ValueError) as caught:
        KLDiscretLoss()(pred, tuple(axis[:, :3] for axis in target), weight[:, :3])
    assert str(caught.value) == (
        'KLDiscretLoss: target_x must have the 4 keypoints of pred, got (3, 3, 6) against pred '
        "(3, 4, 6). Set the head's out_channels to the number of keypoints of the data set."
    )


@pytest.mark.parametrize('index', [4, -5])
def test_masked_keypoint_that_does_not_exist(index):
    pred, target, weight = batch()
    with pytest.raises(ValueError) as caught:
        KLDiscretLoss(mask=[0, index], mask_weight=0.5)(pred, target, weight)
    assert str(caught.value) == (
        'KLDiscretLoss: mask must hold indices of the 4 keypoints of pred, '
        f'got {index}. Count keypoints from 0, in the order of the data set.'
    )


def test_mask_counts_from_the_end_as_in_mmpose():
    pred, target, weight = batch()
    last = KLDiscretLoss(mask=[-1], mask_weight=0.5)(pred, target, weight)
    assert_close(last, KLDiscretLoss(mask=[3], mask_weight=0.5)(pred, target, weight))


def test_one_tensor_in_place_of_the_axes():
    pred, target, _ = batch()
    with pytest.raises(TypeError, match='must be sequences of one tensor per axis'):
        KLDiscretLoss()(pred[0], target[0])


@pytest.mark.parametrize('axes', [0, 1, 3])
def test_wrong_number_of_axes(axes):
    pred, target, _ = batch()
    with pytest.raises(ValueError, match=rf'one tensor for each of the 2 axes .*, got {axes}\.'):
        KLDiscretLoss()(pred, (*target, target[0])[:axes])


@pytest.mark.parametrize('argument', ['beta', 'label_beta'])
@pytest.mark.parametrize('value', [0, -1.0, math.nan])
def test_temperatures_are_positive(argument, value):
    with pytest.raises(ValueError, match=rf'^KLDiscretLoss: {argument} must be positive, got'):
        KLDiscretLoss(**{argument: value})
