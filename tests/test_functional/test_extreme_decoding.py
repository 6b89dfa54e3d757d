"""ExtremeNet's decode against loops in float64 and against the product of all groups."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from benchmarks.rows.extremenet import draw_objects, product_of_four
from mmloss_plugins import functional as F
from mmloss_plugins.functional import _extreme_groups, value_checks
from tests.test_functional.extreme_oracles import (
    CLASS,
    SCORE,
    assert_same_detections,
    decode_by_loops,
    detections,
    generator,
)


def noise(*shape, seed=0, power=1, scale=1.0):
    """Probabilities; a power makes large ones rare, so that aggregation lifts few above 1."""
    return torch.rand(shape, generator=generator(seed)) ** power * scale


def some_offsets(batch, height, width, seed=9):
    return torch.rand(4, batch, 2, height, width, generator=generator(seed))


def realistic(batch=2, classes=3, height=30, width=23, objects=6, seed=0):
    """Maps as of a trained head, with objects enough for groups across objects."""
    shape = batch, classes, height, width
    return draw_objects(generator(seed), shape, objects)


CASES = {
    'objects': (realistic(), 12),
    'many objects of one class': (realistic(classes=1, objects=9, seed=1), 9),
    'noise': (noise(5, 2, 1, 12, 17, power=2, scale=0.6), 9),
    'agnostic objects': ((realistic(seed=2)[:4].amax(2, keepdim=True), realistic(seed=2)[4]), 8),
}


@pytest.mark.parametrize('with_offsets', [True, False])
@pytest.mark.parametrize('name', CASES)
def test_decode_is_that_of_loops_over_all_groups(name, with_offsets):
    maps, top_k = CASES[name]
    extremes, center = (maps[:4], maps[4]) if isinstance(maps, torch.Tensor) else maps
    offsets = some_offsets(2, *center.shape[-2:]) if with_offsets else None
    expected = decode_by_loops(extremes, center, offsets, top_k, 200)
    assert all(len(rows) for rows in expected)
    found = F.extreme_decode(extremes, center, offsets, top_k=top_k, num_dets=200)
    assert found.shape == (2, 200, 14)
    assert_same_detections(found, expected, 200)


@pytest.mark.parametrize('weight', [0.0, 0.1])
@pytest.mark.parametrize('kind', ['objects', 'noise'])
def test_decode_of_full_size_is_the_product_of_all_groups(kind, weight):
    shape = 1, 80, 128, 128
    # One class more often, so that there are groups in the noise.
    maps = noise(5, *shape, power=8, scale=0.5, seed=4)
    maps[:, :, 3] = maps[:, :, 3] ** 0.5
    if kind == 'objects':
        maps = draw_objects(generator(3), shape)
    offsets = some_offsets(1, 128, 128)
    expected = product_of_four(maps[:4], maps[4], offsets, aggr_weight=weight)
    found = F.extreme_decode(maps[:4], maps[4], offsets, aggr_weight=weight)
    assert len(detections(expected[0])) >= 30
    assert_same_detections(found, expected, 1000)


@pytest.mark.parametrize(
    ('shape', 'top_k'),
    [((2, 1, 30, 22), 10), ((1, 80, 128, 128), 40)],
    ids=['one class', 'full size'],
)
def test_of_more_than_k_peaks_above_one_the_first_count(shape, top_k):
    """Uniform noise, in which aggregation lifts every peak of some height to 1 or more."""
    maps = noise(5, *shape, seed=11)
    offsets = some_offsets(shape[0], *shape[2:])
    options = dict(aggr_weight=0.1, top_k=top_k, num_dets=100)
    expected = product_of_four(maps[:4], maps[4], offsets, **options)
    assert all(len(detections(rows)) for rows in expected)
    assert (F.edge_aggregate(maps[0], 'x') >= 1).flatten(1).sum(1).min() > 3 * top_k
    found = F.extreme_decode(maps[:4], maps[4], offsets, **options)
    assert_same_detections(found, expected, 100)


def test_one_image_with_too_many_peaks_above_one_beside_others():
    shape = 1, 3, 30, 22
    noisy, objects = noise(5, *shape, seed=11), draw_objects(generator(4), shape, 6)
    maps = torch.cat((objects, noisy, torch.zeros_like(noisy)), 1)
    found = F.extreme_decode(maps[:4], maps[4], top_k=10)
    for image, alone in enumerate(maps.split(1, 1)):
        assert_close(found[image], F.extreme_decode(alone[:4], alone[4], top_k=10)[0])
    assert (found[:2, 0, SCORE] > 0).all()


def test_groups_are_tested_in_parts(monkeypatch):
    maps = realistic(classes=1, objects=9, seed=5)
    whole = F.extreme_decode(maps[:4], maps[4], top_k=12, num_dets=7)
    monkeypatch.setattr(_extreme_groups, 'TESTS_AT_A_TIME', 30)
    assert_close(F.extreme_decode(maps[:4], maps[4], top_k=12, num_dets=7), whole)
    assert (whole[:, 0, SCORE] > 0).all()


def test_rows_are_sorted_and_filled_up():
    maps = realistic(objects=4, seed=6)
    maps[:, 1] = 0  # an image without objects
    found = F.extreme_decode(maps[:4], maps[4], num_dets=50)
    scores = found[0, :, SCORE]
    number = int((scores > 0).sum())
    assert 0 < number < 50
    assert (scores[:-1] >= scores[1:]).all()
    empty = torch.zeros(14)
    empty[[SCORE, CLASS]] = -1
    assert_close(found[0, number:], empty.expand(50 - number, 14))
    assert_close(found[1], empty.expand(50, 14))


def one_object(score=0.6, center=0.9, dtype=torch.float32):
    """Four points around the cell (4, 3), which lies in their middle."""
    maps = torch.zeros(5, 1, 2, 8, 9, dtype=dtype)
    for side, (x, y) in enumerate([(4, 1), (2, 4), (3, 6), (7, 3)]):
        maps[side, 0, 1, y, x] = score
    maps[4, 0, 1, 3, 4] = center
    return maps


def decode_one(maps, **options):
    return F.extreme_decode(maps[:4], maps[4], **{'num_dets': 2, **options})[0]


def test_one_object_by_hand():
    # (4 * 0.6 + 2 * 0.9) / 6 = 0.7; each point in the middle of its cell.
    expected = [2.5, 1.5, 7.5, 6.5, 0.7, 4.5, 1.5, 2.5, 4.5, 3.5, 6.5, 7.5, 3.5, 1]
    assert_close(decode_one(one_object())[0], torch.tensor(expected))
    offsets = torch.zeros(4, 1, 2, 8, 9)
    offsets[0, 0, :, 1, 4] = torch.tensor([0.25, 0.75])
    found = F.extreme_decode(one_object()[:4], one_object()[4], offsets)[0, 0]
    assert_close(found[:8], torch.tensor([2, 1.75, 7, 6, 0.7, 4.25, 1.75, 2]))


def test_the_four_maps_come_as_a_list_too():
    maps = one_object()
    assert_close(F.extreme_decode(list(maps[:4]), maps[4], num_dets=2)[0], decode_one(maps))


@pytest.mark.parametrize(
    ('what', 'keeps'),
    [
        (dict(score=0.1, center=0.1), True),  # at the threshold
        (dict(score=0.0999), False),
        (dict(center=0.0999), False),
    ],
)
def test_thresholds_are_the_least_values(what, keeps):
    found = decode_one(one_object(**what), aggr_weight=0.0)
    assert bool(found[0, SCORE] > 0) is keeps


@pytest.mark.parametrize(
    ('side', 'cell'),
    # Each point beyond another one: top below left, left beyond bottom, ...
    [(0, (4, 5)), (1, (5, 4)), (2, (3, 2)), (3, (3, 3))],
)
def test_points_on_the_wrong_side_make_no_group(side, cell):
    maps = one_object()
    maps[4] = 0.9
    assert decode_one(maps)[0, SCORE] > 0
    maps[side] = 0
    maps[side, 0, 1, cell[1], cell[0]] = 0.6
    assert decode_one(maps)[0, SCORE] == -1


def test_points_of_different_classes_make_no_group():
    maps = one_object()
    maps[2] = maps[2].flip(1)
    assert decode_one(maps)[0, SCORE] == -1


def test_agnostic_points_take_the_class_of_the_centre():
    maps = one_object()
    extremes = maps[:4].amax(2, keepdim=True)
    assert F.extreme_decode(extremes, maps[4])[0, 0, CLASS] == 1
    assert F.extreme_decode(extremes, maps[4].flip(1))[0, 0, CLASS] == 0


def test_a_score_above_one_counts_as_one():
    maps = one_object(score=0.9, center=1.0)
    maps[0, 0, 1, 1] = torch.tensor([0.1, 0.5, 0.6, 0.8, 0.95, 0.9, 0.7, 0.5, 0.4])
    found = decode_one(maps, top_k=1)
    # Top: 0.95 + 0.1 * (0.1 + 0.5 + ...) = 1.4, counted as 1.
    assert_close(found[0, SCORE], torch.tensor((1 + 3 * 0.9 + 2) / 6))


def test_points_at_the_border():
    maps = torch.zeros(5, 1, 1, 4, 6)
    for side, (x, y) in enumerate([(5, 0), (0, 0), (0, 3), (5, 3)]):
        maps[side, 0, 0, y, x] = 0.5
    maps[4, 0, 0, 1, 2] = 0.5
    assert_close(decode_one(maps)[0, :5], torch.tensor([0.5, 0.5, 5.5, 3.5, 0.5]))


def test_thresholds_of_zero_and_more_peaks_than_cells():
    maps = noise(5, 2, 1, 3, 2, seed=3)
    expected = decode_by_loops(maps[:4], maps[4], None, 40, 300, thr=0.0)
    options = dict(top_k=40, num_dets=300, score_thr=0.0, center_thr=0.0)
    assert_same_detections(F.extreme_decode(maps[:4], maps[4], **options), expected, 300)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_maps_are_decoded_in_float32(dtype):
    maps = realistic(seed=7).to(dtype)
    found = F.extreme_decode(maps[:4], maps[4], top_k=12)
    assert found.dtype == torch.float32
    whole = maps.float()
    assert_same_detections(found, F.extreme_decode(whole[:4], whole[4], top_k=12), 1000)


def test_maps_of_a_training_step_give_no_gradient():
    maps = one_object()
    found = F.extreme_decode(maps[:4].requires_grad_(), maps[4], num_dets=2)[0]
    assert_close(found, decode_one(one_object()))
    assert not found.requires_grad


def test_an_image_is_decoded_as_if_alone_and_maps_stay():
    maps = realistic(batch=3, seed=8)
    before = maps.clone()
    found = F.extreme_decode(maps[:4], maps[4], top_k=12)
    for image in range(3):
        alone = maps[:, image : image + 1]
        assert_close(found[image], F.extreme_decode(alone[:4], alone[4], top_k=12)[0])
    assert torch.equal(maps, before)


def test_an_empty_batch():
    assert F.extreme_decode(torch.zeros(4, 0, 2, 5, 6), torch.zeros(0, 2, 5, 6)).shape == (
        0,
        1000,
        14,
    )


@pytest.mark.parametrize(
    ('change', 'text'),
    [
        (dict(top_k=0), 'top_k must be a whole number >= 1, got 0'),
        (dict(num_dets=1.5), 'num_dets must be a whole number'),
        (dict(score_thr=1.1), r'score_thr must be within \[0, 1\], got 1.1'),
        (dict(aggr_weight=-0.1), 'aggr_weight must be within'),
        (
            dict(center_probs=torch.zeros(2, 8, 9)),
            r'center_probs must have the shape \(B, C, H, W\)',
        ),
        (dict(extreme_probs=torch.zeros(5, 1, 2, 8, 9)), 'extreme_probs must be four maps, got 5'),
        (
            dict(extreme_probs=torch.zeros(4, 1, 3, 8, 9)),
            r'extreme_probs \(top\) must have the shape',
        ),
        (
            dict(offsets=torch.zeros(4, 1, 2, 9, 8)),
            r'offsets \(top\) must have the shape \(1, 2, 8, 9',
        ),
    ],
)
def test_what_does_not_fit_is_refused(change, text):
    maps = one_object()
    arguments = dict(extreme_probs=maps[:4], center_probs=maps[4]) | change
    with pytest.raises(ValueError, match=text):
        F.extreme_decode(**arguments)


def test_a_mixture_of_agnostic_and_other_maps_is_refused():
    maps = one_object()
    mixed = [maps[0], maps[1], maps[2][:, :1], maps[3]]
    with pytest.raises(ValueError, match='extreme_probs must have one shape, got'):
        F.extreme_decode(mixed, maps[4])


def test_logits_are_refused_under_value_checks():
    maps = one_object(center=3.0)
    with pytest.raises(ValueError, match=r'center_probs must be within \[0, 1\], got 3 .*sigmoid'):
        decode_one(maps)
    with value_checks(False):
        assert decode_one(maps)[0, SCORE] > 1
