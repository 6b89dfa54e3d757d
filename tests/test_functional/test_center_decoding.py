"""Decoding of CenterNet against values by hand, loops and MMDetection's functions."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as torch_functional
from mmdet.models.dense_heads import CenterNetHead
from mmdet.models.utils import get_local_maximum, get_topk_from_heatmap
from torch.testing import assert_close

from mmloss_plugins.functional import (
    average_mirrored,
    center_targets,
    decode_centers,
    local_maxima,
    top_peaks,
    value_checks,
)
from tests.contract.test_device import NoSync, Operators

B, C, H, W = 3, 4, 18, 26


@pytest.fixture
def maps():
    """Logits, offsets and sizes."""
    generator = torch.Generator().manual_seed(0)
    heatmap = 2 * torch.randn(B, C, H, W, generator=generator) - 2
    offset = torch.rand(B, 2, H, W, generator=generator)
    return heatmap, offset, 6 * torch.rand(B, 2, H, W, generator=generator)


def test_by_hand():
    # Peaks at (2, 1) of class 0 and (0, 0) of class 1, with logits 0 and log 3.
    heatmap = torch.full((1, 2, 3, 4), -20.0)
    heatmap[0, 0, 1, 2], heatmap[0, 0, 1, 3], heatmap[0, 1, 0, 0] = 0.0, -1.0, math.log(3)
    offset = torch.zeros(1, 2, 3, 4)
    offset[0, :, 1, 2] = torch.tensor([0.5, 0.25])
    size_wh = torch.ones(1, 2, 3, 4)
    size_wh[0, :, 1, 2] = torch.tensor([3.0, 2.0])
    boxes, scores, labels = decode_centers(heatmap, offset, size_wh, (4.0, 2.0), k=2)
    # (0 -+ 0.5) * 4 and * 2; x: (2.5 -+ 1.5) * 4, y: (1.25 -+ 1) * 2
    assert_close(boxes, torch.tensor([[[-2.0, -1, 2, 1], [4, 0.5, 16, 4.5]]]))
    assert_close(scores, torch.tensor([[0.75, 0.5]]))
    assert labels.tolist() == [[1, 0]]


@pytest.mark.parametrize('k', [1, 40, 100])
@pytest.mark.parametrize('kernel', [3, 5])
def test_as_mmdet_decodes(mmdet_scope, maps, k, kernel):
    heatmap, offset, size_wh = maps[0].sigmoid(), *maps[1:]
    head = CenterNetHead(4, 4, num_classes=C)
    boxes, labels = head._decode_heatmap(
        heatmap, size_wh, offset, (4 * H, 5 * W), k=k, kernel=kernel
    )
    found = decode_centers(heatmap, offset, size_wh, (5, 4), k=k, kernel=kernel, from_logits=False)
    # Where an image has fewer peaks than k, the rest are cells of score 0, in any order.
    peaks = boxes[..., 4] > 0
    assert peaks.sum() > min(k, 20)
    assert torch.equal(found.scores, boxes[..., 4])
    assert torch.equal(found.labels[peaks], labels[peaks])
    assert torch.equal(found.boxes[peaks], boxes[..., :4][peaks])


def test_logits_and_probabilities_give_the_same(maps):
    heatmap, offset, size_wh = maps
    logits = decode_centers(heatmap, offset, size_wh, 4, k=50)
    given = decode_centers(heatmap.sigmoid(), offset, size_wh, 4, k=50, from_logits=False)
    assert_close(logits, given)


def test_targets_decode_to_their_boxes():
    boxes = torch.tensor([[[8.0, 12, 60, 33], [50, 41, 91, 70]], [[1, 2, 9, 11], [0, 0, 0, 0]]])
    labels, valid = torch.tensor([[1, 3], [0, 0]]), torch.tensor([[True, True], [True, False]])
    targets = center_targets(boxes, labels, valid, C, (H, W), 4.0)
    maps = torch.zeros(2, 2, 2, H, W)
    for image in range(2):
        for thing in range(int(valid[image].sum())):
            row, column = divmod(targets.cell_index[image, thing].item(), W)
            maps[0, image, :, row, column] = targets.offset[image, thing]
            maps[1, image, :, row, column] = targets.size_wh[image, thing]
    found = decode_centers(targets.heatmap, *maps, 4.0, k=2, from_logits=False)
    order = found.labels.argsort(1, descending=True)
    assert found.scores.tolist() == [[1, 1], [1, 0]]
    assert sorted(found.labels[0].tolist()) == [1, 3]
    assert_close(found.boxes[0][order[0]].flip(0), boxes[0])
    assert_close(found.boxes[1, 0], boxes[1, 0])


def test_no_offsets_mean_the_middle_of_a_cell(maps):
    heatmap, offset, size_wh = maps
    middle = decode_centers(heatmap, torch.full_like(offset, 0.5), size_wh, 4)
    assert_close(decode_centers(heatmap, None, size_wh, 4), middle)


def test_sizes_per_class(maps):
    heatmap, offset, _ = maps
    sizes = torch.arange(2.0 * C).reshape(1, 2 * C, 1, 1).expand(B, -1, H, W)
    boxes, _, labels = decode_centers(heatmap, offset, sizes, 1, k=30)
    assert len(labels.unique()) == C
    assert_close(boxes[..., 2] - boxes[..., 0], 2.0 * labels, rtol=0, atol=1e-5)
    assert_close(boxes[..., 3] - boxes[..., 1], 2.0 * labels + 1, rtol=0, atol=1e-5)


def test_fewer_peaks_than_boxes():
    heatmap = torch.arange(6.0).reshape(1, 1, 2, 3)
    found = decode_centers(heatmap, None, torch.ones(1, 2, 2, 3), 1, k=6)
    assert_close(found.scores, torch.tensor([[5.0, *[-math.inf] * 5]]).sigmoid())
    assert (found.scores[0, 1:] == 0).all()
    assert found.boxes.isfinite().all()


@pytest.mark.parametrize('kernel', [1, 3, 5, 7])
@pytest.mark.parametrize('size', [(9, 13), (1, 5), (5, 1), (2, 2)])
def test_local_maxima_are_those_of_max_pooling(kernel, size):
    # Of four values many neighbours are alike.
    values = torch.randint(0, 4, (3, 5, *size)).float() + 1
    expected = get_local_maximum(values, kernel)
    assert torch.equal(local_maxima(values, kernel, fill=0), expected)


def test_local_maxima_of_a_large_map_in_pieces():
    values = torch.randn(2, 9, 150, 170)
    highest = torch_functional.max_pool2d(values, 3, 1, 1)
    expected = torch.where(values == highest, values, -math.inf)
    assert torch.equal(local_maxima(values), expected)
    assert torch.equal(local_maxima(values.transpose(2, 3)), expected.transpose(2, 3))
    assert local_maxima(values.half()).dtype == torch.float16


def test_maps_are_left_as_they_are_and_get_no_gradient(maps):
    heatmap = maps[0].clone().requires_grad_()
    found = decode_centers(heatmap, *maps[1:], 4)
    assert torch.equal(heatmap, maps[0])
    assert not any(part.requires_grad for part in found)


def test_nan_comes_first():
    heatmap = torch.zeros(1, 1, 4, 5)
    heatmap[0, 0, 1, 2] = math.nan
    scores = decode_centers(heatmap, None, torch.ones(1, 2, 4, 5), 1, k=3).scores
    assert scores[0, 0].isnan()


@pytest.mark.parametrize('k', [1, 7, H * C, H * C + 5, C * H * W])
def test_top_peaks_are_those_of_mmdet(maps, k):
    values, labels, cells = top_peaks(maps[0], k)
    expected, index, classes, *_ = get_topk_from_heatmap(maps[0], k)
    assert torch.equal(values, expected)
    assert torch.equal(labels, classes)
    assert torch.equal(cells, index)


def test_no_sync_no_loop_and_one_graph(maps):
    def count(images):
        with NoSync(), Operators() as found:
            decode_centers(*(part[:images] for part in maps), 4, k=9)
        return found.counts

    with value_checks(False):
        assert count(2) == count(3)
        compiled = torch.compile(decode_centers, fullgraph=True, backend='aot_eager')
        found, expected = compiled(*maps, 4.0, k=9), decode_centers(*maps, 4.0, k=9)
    assert all(torch.equal(*pair) for pair in zip(found, expected))


def test_mirrored_by_hand():
    # Columns of the mirror image run the other way; the mean is one of probabilities.
    heatmap = torch.tensor([[0.0, 20, -20], [0.0, 20, -20]]).reshape(2, 1, 1, 3)
    offset = torch.tensor([0.25, 0.75]).reshape(2, 1, 1, 1).expand(2, 2, 1, 3)
    size_wh = torch.tensor([[1.0, 2, 3], [5, 6, 7]]).reshape(2, 1, 1, 3).expand(2, 2, 1, 3)
    mean, kept, size = average_mirrored(heatmap, offset, size_wh)
    assert_close(mean, torch.tensor([0.25, 1.0, 0.25]).reshape(1, 1, 1, 3))
    assert (kept == 0.25).all()
    assert kept.shape == (1, 2, 1, 3)
    assert_close(size[0, 0, 0], torch.tensor([4.0, 4.0, 4.0]))


def test_mirroring_what_is_mirrored_changes_nothing(maps):
    both = [torch.cat((part, part.flip(-1))) for part in maps]
    heatmap, offset, size_wh = average_mirrored(*both)
    assert_close(heatmap, maps[0].sigmoid())
    assert torch.equal(offset, maps[1])
    assert torch.equal(size_wh, maps[2])
    assert average_mirrored(both[0], None, both[2])[1] is None


@pytest.mark.parametrize(
    ('change', 'text'),
    [
        (dict(heatmap=torch.zeros(C, H, W)), r'heatmap must have the shape \(B, C, H, W\), got'),
        (dict(size_wh=torch.zeros(B, 3, H, W)), r'size_wh must have the shape \(3, 2, 18, 26\) or'),
        (dict(size_wh=torch.zeros(B, 2, W, H)), r'size_wh must have .* got \(3, 2, 26, 18\)'),
        (dict(offset=torch.zeros(B, 8, H, W)), r'offset must have the shape \(3, 2, 18, 26\), got'),
        (dict(kernel=4), 'kernel must be odd and positive, got 4'),
        (dict(kernel=0), 'kernel must be odd and positive, got 0'),
        (dict(k=0), r'k must be within \[1, 1872\] for maps'),
        (dict(k=C * H * W + 1), r'k must be within \[1, 1872\] for maps .* got 1873'),
    ],
)
def test_bad_arguments(maps, change, text):
    arguments = dict(zip(('heatmap', 'offset', 'size_wh'), maps), stride=4)
    with pytest.raises(ValueError, match=text):
        decode_centers(**{**arguments, **change})


def test_an_odd_number_of_images_is_refused(maps):
    with pytest.raises(ValueError, match='as many images as mirrored ones, got 3'):
        average_mirrored(*maps)
