"""Disks, offsets inside them and Hough voting: values by hand, loops in float64, limits."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as torch_f
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from mmloss_plugins import functional as F
from mmloss_plugins.functional import value_checks

B, K, H, W = 2, 3, 4, 5


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def some_disks(seed=1):
    return (normal(B, K, H, W, seed=seed) > 0.3).double()


# --- order of the channels --------------------------------------------------------------------


def test_order_of_the_channels():
    maps = torch.arange(6.0).reshape(1, 6, 1, 1)  # K = 2
    disks, offsets = F.split_offset_maps(maps)
    assert disks.flatten().tolist() == [0, 1]
    assert offsets.reshape(2, 2).tolist() == [[2, 4], [3, 5]]  # (x, y) of each keypoint
    disks, offsets = F.split_offset_maps(maps, 'interleaved')
    assert disks.flatten().tolist() == [0, 3]
    assert offsets.reshape(2, 2).tolist() == [[1, 2], [4, 5]]


@pytest.mark.parametrize('order', ['grouped', 'interleaved'])
def test_parts_are_views(order):
    maps = normal(B, 3 * K, H, W).permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    disks, offsets = F.split_offset_maps(maps, order)
    disks.zero_()
    offsets.zero_()
    assert (maps == 0).all()


@pytest.mark.parametrize('shape', [(1, 5, 4, 4), (3, 4, 4), (1, 3, 4, 4, 4)])
def test_channels_that_are_no_multiple_of_three(shape):
    with pytest.raises(ValueError, match=r'maps must have the shape \(B, 3K, H, W\), got '):
        F.split_offset_maps(torch.zeros(shape))


def test_unknown_order():
    with pytest.raises(ValueError, match="Did you mean 'interleaved'"):
        F.split_offset_maps(torch.zeros(1, 3, 2, 2), 'interleave')


# --- disk -------------------------------------------------------------------------------------


def test_disk_logistic_by_hand():
    # log(1 + e^2) = 2.126928 outside, log(1 + e^-2) = 0.126928 inside; their mean is 1.126928.
    logits = torch.tensor([2.0, 2.0]).reshape(1, 1, 1, 2)
    target = torch.tensor([0.0, 1.0]).reshape(1, 1, 1, 2)
    assert_close(F.disk_logistic(logits, target), torch.tensor([[1.1269280]]))


def test_disk_logistic_is_torch_s_mean_per_keypoint():
    logits, target = 3 * normal(B, K, H, W), torch.rand(B, K, H, W, dtype=torch.float64)
    expected = torch_f.binary_cross_entropy_with_logits(logits, target, reduction='none')
    assert_close(F.disk_logistic(logits, target), expected.mean((2, 3)))


@pytest.mark.parametrize('sign', [1, -1])
def test_confident_and_right_keeps_its_small_loss(sign):
    # log(1 + e^-20) = 2.06e-9, which 20 + 2e-9 - 20 would lose in float32.
    logits = torch.full((1, 1, 1, 1), 20.0 * sign)
    target = torch.full_like(logits, float(sign > 0))
    assert_close(F.disk_logistic(logits, target).item(), math.exp(-20), rtol=1e-5, atol=0)


def test_disk_outside_zero_and_one_is_refused_under_value_checks():
    with pytest.raises(ValueError, match=r'target must be finite and within \[0, 1\], got 1.5'):
        F.disk_logistic(torch.zeros(1, 1, 1, 2), torch.tensor([0, 1.5]).reshape(1, 1, 1, 2))


# --- offsets ----------------------------------------------------------------------------------


def offset_inputs(*errors):
    """One keypoint and a row of cells in the disk with the given errors (x, y), px."""
    offsets = torch.tensor(errors, dtype=torch.float64).T.reshape(1, 1, 2, 1, -1)
    return offsets, torch.zeros_like(offsets), torch.ones(1, 1, 1, len(errors))


def test_huber_by_hand():
    # (.3, .4) is .5 px: .25 / 2. (3, 4) is 5 px: 2 (5 - 1). The mean of .125 and 8 is 4.0625.
    loss = F.disk_offset_huber(*offset_inputs((0.3, 0.4), (3.0, 4.0)), delta_px=2.0)
    assert_close(loss, torch.tensor([[4.0625]], dtype=torch.float64))


def slow_huber(offsets, target, disk, delta):
    loss = torch.zeros(offsets.shape[:2], dtype=torch.float64)
    for b, k in torch.cartesian_prod(torch.arange(B), torch.arange(K)).tolist():
        values = []
        for y, x in torch.cartesian_prod(torch.arange(H), torch.arange(W)).tolist():
            if disk[b, k, y, x] == 1:
                dx, dy = (offsets[b, k, :, y, x] - target[b, k, :, y, x]).tolist()
                r = math.hypot(dx, dy)
                values.append(r * r / 2 if r <= delta else delta * (r - delta / 2))
        loss[b, k] = math.fsum(values) / len(values)
    return loss


@pytest.mark.parametrize('delta', [0.3, 1.0, 4.0])
def test_huber_against_loops(delta):
    offsets, target, disk = normal(B, K, 2, H, W), normal(B, K, 2, H, W, seed=2), some_disks()
    expected = slow_huber(offsets, target, disk, delta)
    assert_close(F.disk_offset_huber(offsets, target, disk, delta_px=delta), expected)


def test_along_one_axis_it_is_torch_s_huber_loss():
    x = normal(12)
    expected = torch_f.huber_loss(x, torch.zeros_like(x), delta=0.7)
    loss = F.disk_offset_huber(*offset_inputs(*[(value, 0) for value in x.tolist()]), delta_px=0.7)
    assert_close(loss.squeeze(), expected)


@given(st.floats(0, 2 * math.pi), st.floats(0.01, 20))
@settings(max_examples=30, deadline=None)
def test_the_direction_of_an_error_does_not_matter(angle, radius):
    turned = offset_inputs((radius * math.cos(angle), radius * math.sin(angle)))
    assert_close(F.disk_offset_huber(*turned), F.disk_offset_huber(*offset_inputs((radius, 0))))


def test_limits_of_delta():
    offsets, target, disk = normal(B, K, 2, H, W), normal(B, K, 2, H, W, seed=2), some_disks()
    distance = (offsets - target).square().sum(2).sqrt()
    mean = (distance * disk).sum((2, 3)) / disk.sum((2, 3))
    squares = (distance.square() * disk).sum((2, 3)) / disk.sum((2, 3)) / 2
    assert_close(F.disk_offset_huber(offsets, target, disk, delta_px=1e-9) / 1e-9, mean)
    assert_close(F.disk_offset_huber(offsets, target, disk, delta_px=1e9), squares)


def test_outside_the_disk_nothing_counts():
    offsets, target, disk = normal(B, K, 2, H, W), normal(B, K, 2, H, W, seed=2), some_disks()
    offsets.requires_grad_()
    loss = F.disk_offset_huber(offsets, target, disk)
    loss.sum().backward()
    outside = (disk == 0).unsqueeze(2).expand_as(offsets)
    assert (offsets.grad[outside] == 0).all()
    assert (offsets.grad[~outside] != 0).all()
    other = torch.where(outside, 7.0, offsets)
    assert_close(F.disk_offset_huber(other, target, disk), loss, rtol=0, atol=0)


def test_the_size_of_the_map_does_not_matter():
    offsets, target, disk = normal(B, K, 2, H, W), normal(B, K, 2, H, W, seed=2), some_disks()
    larger = [torch_f.pad(each, (3, 2, 1, 4)) for each in (offsets, target, disk)]
    assert_close(F.disk_offset_huber(*larger), F.disk_offset_huber(offsets, target, disk))


def test_an_empty_disk_is_zero_with_zero_gradient():
    offsets = normal(B, K, 2, H, W).requires_grad_()
    loss = F.disk_offset_huber(offsets, torch.zeros(B, K, 2, H, W), torch.zeros(B, K, H, W))
    assert (loss == 0).all()
    loss.sum().backward()
    assert (offsets.grad == 0).all()


def test_gradients_by_finite_differences():
    offsets = normal(B, K, 2, H, W).requires_grad_()
    target, disk, factors = normal(B, K, 2, H, W, seed=2), some_disks(), normal(B, K, seed=3)
    assert torch.autograd.gradcheck(
        lambda x: (factors * F.disk_offset_huber(x, target, disk, delta_px=0.8)).sum(), offsets
    )


def test_gradient_at_no_error_is_zero():
    offsets, target, disk = offset_inputs((0.0, 0.0), (0.2, 0.0))
    offsets.requires_grad_()
    F.disk_offset_huber(offsets, target, disk).sum().backward()
    # d/dx of (x^2 / 2) / 2 cells at x = .2
    assert_close(offsets.grad.flatten(), torch.tensor([0, 0.1, 0, 0], dtype=torch.float64))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    offsets = normal(B, K, 2, H, W).to(dtype).requires_grad_()
    target, disk = normal(B, K, 2, H, W, seed=2), some_disks()
    loss = F.disk_offset_huber(offsets, target, disk)
    assert loss.dtype == torch.float32
    exact = F.disk_offset_huber(offsets.detach().double(), target, disk)
    assert_close(loss.double(), exact, rtol=1e-6, atol=1e-6)
    loss.sum().backward()
    assert offsets.grad.dtype == dtype


def test_the_largest_float16_error_has_a_finite_gradient_even_without_a_linear_part():
    offsets = torch.full((1, 1, 2, 1, 1), 65504.0, dtype=torch.float16, requires_grad=True)
    target, disk = torch.full((1, 1, 2, 1, 1), -65504.0), torch.ones(1, 1, 1, 1)
    F.disk_offset_huber(offsets, target, disk, delta_px=1e6).sum().backward()
    assert (offsets.grad == 32752).all()


def test_wrong_arguments_of_the_offsets():
    offsets, target, disk = offset_inputs((1.0, 1.0))
    with pytest.raises(ValueError, match=r'delta_px must be > 0, got 0'):
        F.disk_offset_huber(offsets, target, disk, delta_px=0.0)
    with pytest.raises(ValueError, match=r'shape \(B, K, 2, H, W\) with H, W >= 1, got'):
        F.disk_offset_huber(offsets[:, :, :1], target[:, :, :1], disk)
    with pytest.raises(ValueError, match=r'target must have the shape'):
        F.disk_offset_huber(offsets, target, disk[..., :0])


# --- Hough voting -----------------------------------------------------------------------------


def slow_vote(probs, offsets):
    """The paper's double sum with the kernel max(0, 1 - |x|) max(0, 1 - |y|)."""
    fused = torch.zeros(*probs.shape[:2], H + 2, W + 2, dtype=torch.float64)
    for b, k, y, x in torch.cartesian_prod(*map(torch.arange, probs.shape)).tolist():
        at_x, at_y = x + offsets[b, k, 0, y, x].item(), y + offsets[b, k, 1, y, x].item()
        if not (-1 <= at_x <= W and -1 <= at_y <= H):
            continue
        for row, column in torch.cartesian_prod(torch.arange(H + 2), torch.arange(W + 2)).tolist():
            near = max(0, 1 - abs(at_x - column + 1)) * max(0, 1 - abs(at_y - row + 1))
            fused[b, k, row, column] += probs[b, k, y, x].item() * near
    return fused


def test_voting_against_loops():
    probs = normal(B, K, H, W).sigmoid()
    offsets = 2 * normal(B, K, 2, H, W, seed=2)
    assert_close(F.hough_vote(probs, offsets), slow_vote(probs, offsets))


def test_offsets_in_px():
    probs, offsets = normal(B, K, H, W).sigmoid(), 2 * normal(B, K, 2, H, W, seed=2)
    in_px = offsets * torch.tensor([8.0, 4.0]).reshape(2, 1, 1)
    fused = F.hough_vote(probs, in_px, cell_size=(8.0, 4.0))
    assert_close(fused, F.hough_vote(probs, offsets))


@pytest.mark.parametrize('order', ['grouped', 'interleaved'])
def test_voting_takes_the_views_of_the_maps(order):
    maps = normal(B, 3 * K, H, W)
    disks, offsets = F.split_offset_maps(maps, order)
    dense = F.hough_vote(disks.sigmoid().contiguous(), offsets.contiguous())
    assert_close(F.hough_vote(disks.sigmoid(), offsets), dense)


def test_no_vote_inside_is_lost_and_votes_outside_are():
    probs, offsets = normal(B, K, H, W).sigmoid(), torch.zeros(B, K, 2, H, W)
    assert_close(F.hough_vote(probs, offsets.double()).sum((2, 3)), probs.sum((2, 3)))
    for far in (W + 1.0, -W - 1.0, math.inf, -math.inf):
        assert (F.hough_vote(probs, offsets + far) == 0).all()


def test_votes_at_the_very_edge_of_the_grid_count():
    probs = torch.ones(1, 1, 1, 1)
    for x, y in ((-1, -1), (1, 1), (-1, 1)):
        fused = F.hough_vote(probs, torch.tensor([x, y]).float().reshape(1, 1, 2, 1, 1))
        assert fused.sum() == 1
        assert fused[0, 0, y + 1, x + 1] == 1


def test_min_vote_leaves_out_small_probabilities_relative_to_the_largest():
    probs = torch.tensor([0.5, 0.04, 0.06]).reshape(1, 1, 1, 3)
    offsets = torch.zeros(1, 1, 2, 1, 3)
    assert F.hough_vote(probs, offsets)[0, 0, 1].tolist() == pytest.approx([0, 0.5, 0.04, 0.06, 0])
    fused = F.hough_vote(probs, offsets, min_vote=0.1)
    assert fused[0, 0, 1].tolist() == pytest.approx([0, 0.5, 0, 0.06, 0])


@pytest.mark.parametrize('where', ['probs', 'offsets'])
def test_nan_shows_in_its_keypoint_alone(where):
    probs, offsets = normal(B, K, H, W).sigmoid(), normal(B, K, 2, H, W, seed=2)
    (probs if where == 'probs' else offsets)[1, 1, ..., 2, 2] = math.nan
    fused = F.hough_vote(probs, offsets, min_vote=0.01)
    broken = fused.isnan().any(-1).any(-1)
    assert broken.sum() == 1
    assert broken[1, 1]
    positions, votes = F.vote_peaks(fused)
    assert votes.isnan().sum() == 1
    assert positions.isnan().any(-1).sum() == 1


def test_half_probabilities_are_summed_in_float32():
    probs = torch.full((1, 1, 40, 60), 0.9).half()
    fused = F.hough_vote(probs, torch.zeros(1, 1, 2, 40, 60).half())
    assert fused.dtype == torch.float32
    assert_close(fused.sum(), probs.float().sum())


def test_wrong_shapes_of_votes():
    with pytest.raises(ValueError, match=r'probs must have the B, K, H and W of offsets'):
        F.hough_vote(torch.zeros(B, K, H, W + 1), torch.zeros(B, K, 2, H, W))
    with pytest.raises(ValueError, match=r'fused must have the shape \(B, K, H, W\)'):
        F.vote_peaks(torch.zeros(3, 4))


# --- peaks ------------------------------------------------------------------------------------


@given(st.floats(-1, W), st.floats(-1, H), st.floats(0.01, 1))
@settings(max_examples=60, deadline=None)
def test_one_position_is_found_wherever_it_lies(x, y, prob):
    cells = torch.stack(torch.meshgrid(torch.arange(W), torch.arange(H), indexing='xy')).double()
    offsets = (torch.tensor([x, y], dtype=torch.float64).reshape(2, 1, 1) - cells)[None, None]
    probs = torch.full((1, 1, H, W), prob, dtype=torch.float64)
    positions, votes = F.vote_peaks(F.hough_vote(probs, offsets))
    assert_close(positions.flatten().tolist(), [x, y], rtol=0, atol=1e-9)
    assert votes.item() == pytest.approx(prob * H * W)


def test_no_vote_at_all():
    positions, votes = F.vote_peaks(torch.zeros(2, 3, H + 2, W + 2))
    assert (positions == 0).all()
    assert (votes == 0).all()


def test_empty_batch():
    fused = F.hough_vote(torch.zeros(0, K, H, W), torch.zeros(0, K, 2, H, W))
    positions, votes = F.vote_peaks(fused)
    assert positions.shape == (0, K, 2)
    assert votes.shape == (0, K)


def test_value_checks_can_be_off():
    with value_checks(False):
        loss = F.disk_logistic(torch.zeros(1, 1, 1, 1), torch.full((1, 1, 1, 1), 2.0))
    assert_close(loss.item(), math.log(2), rtol=1e-6, atol=0)
