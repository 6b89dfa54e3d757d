"""Radii and Gaussians against roots by NumPy, loops in float64 and MMDetection's functions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from mmdet.models.utils import gaussian_target
from torch.testing import assert_close

from mmloss_plugins.functional import draw_peaks, gaussian_radius, max_radius

B, N, C, H, W = 3, 7, 2, 20, 31


def authors_radius(width, height, overlap=0.7):
    """CornerNet's code: leading coefficient times the larger root, of three equations."""
    total, area = width + height, width * height
    equations = (
        (1, -total, area * (1 - overlap) / (1 + overlap)),
        (4, -2 * total, (1 - overlap) * area),
        (4 * overlap, 2 * overlap * total, (overlap - 1) * area),
    )
    return min(equation[0] * np.roots(equation).real.max() for equation in equations)


def gaussian_loop(cells, radii, labels, valid, shape):
    """The definition, cell by cell, in float64."""
    maps = np.zeros((len(cells), *shape))
    for image, thing in np.argwhere(valid):
        x, y = cells[image, thing]
        radius = int(radii[image, thing])
        sigma = (2 * radius + 1) / 6
        for row in range(max(0, y - radius), min(shape[1], y + radius + 1)):
            for column in range(max(0, x - radius), min(shape[2], x + radius + 1)):
                value = math.exp(-((column - x) ** 2 + (row - y) ** 2) / (2 * sigma**2))
                cell = image, labels[image, thing], row, column
                maps[cell] = max(maps[cell], value)
    return maps


@pytest.fixture
def peaks():
    """Cells, radii, labels and which are valid: peaks overlap and are cut off by the border."""
    rng = np.random.default_rng(0)
    cells = rng.integers((0, 0), (W, H), (B, N, 2))
    radii = rng.uniform(0, 9, (B, N))
    return cells, radii, rng.integers(0, C, (B, N)), rng.random((B, N)) < 0.8


def draw(peaks, **options):
    cells, radii, labels, valid = (torch.from_numpy(part) for part in peaks)
    return draw_peaks(cells, radii, labels, valid, (C, H, W), **{'max_radius': 9, **options})


@pytest.mark.parametrize(
    ('impl', 'overlap', 'size', 'expected'),
    [
        # 40 x 40: total 80, area 1600. Both outside: b = 112, c = -480, a = 2.8:
        # sqrt(12544 + 5376) = 133.866, (133.866 - 112) / 2 = 10.933.
        ('centernet', None, (40, 40), 10.933),
        # Both inside: 4 r^2 - 160 r + 1120 = 0: (160 - sqrt(25600 - 17920)) / 8 = 9.046.
        ('mmdet', None, (40, 40), 9.046),
        # (160 - sqrt(25600 - 7680)) / 8 = 3.267
        ('mmdet', 0.7, (40, 40), 3.267),
        ('centernet', None, (20, 30), 6.58),
        ('mmdet', None, (20, 30), 5.34),
    ],
)
def test_radius_by_hand(impl, overlap, size, expected):
    found = gaussian_radius(torch.tensor(size, dtype=torch.float64), impl, overlap)
    assert found.item() == pytest.approx(expected, abs=5e-3)


@pytest.mark.parametrize('overlap', [0.3, 0.7])
def test_radius_of_the_authors_of_every_size(overlap):
    width, height = torch.meshgrid(torch.arange(1, 140, 9), torch.arange(1, 99, 8), indexing='ij')
    found = gaussian_radius(torch.stack((width, height), -1).double(), 'centernet', overlap)
    expected = [
        [authors_radius(w, h, overlap) for w, h in zip(*pair)]
        for pair in zip(width.tolist(), height.tolist())
    ]
    assert_close(found, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize('overlap', [0.1, 0.3, 0.7])
def test_radius_of_mmdet(overlap):
    sizes = torch.rand(300, 2) * torch.tensor([130.0, 90.0])
    found = gaussian_radius(sizes, 'mmdet', overlap)
    expected = [gaussian_target.gaussian_radius((h, w), overlap) for w, h in sizes]
    assert_close(found, torch.stack(expected), rtol=0, atol=0)


def test_the_right_root_has_the_overlap_that_is_asked_for():
    width, height = torch.rand(2, 50, dtype=torch.float64) * 60 + 1
    r = gaussian_radius(torch.stack((width, height), -1), 'mmdet', 0.5)
    area, kept = width * height, (width - r) * (height - r)
    overlaps = torch.stack(
        (
            kept / (2 * area - kept),
            (width - 2 * r) * (height - 2 * r) / area,
            area / ((width + 2 * r) * (height + 2 * r)),
        )
    )
    assert_close(overlaps.amin(0), torch.full_like(r, 0.5))


@pytest.mark.parametrize('impl', ['centernet', 'mmdet'])
def test_max_radius_is_that_of_the_whole_map(impl):
    sizes = torch.rand(500, 2, dtype=torch.float64) * torch.tensor([128, 96])
    largest = max_radius((96, 128), impl)
    assert largest == int(gaussian_radius(torch.tensor([128.0, 96.0]).double(), impl))
    assert gaussian_radius(sizes, impl).max() < largest + 1


@pytest.mark.parametrize('overlap', [0.0, 1.0, -0.1, float('nan')])
def test_overlap_outside_of_0_to_1_is_refused(overlap):
    with pytest.raises(ValueError, match=r'min_overlap must be within \(0, 1\), got'):
        gaussian_radius(torch.ones(2), 'mmdet', overlap)


def test_an_unknown_radius_is_refused():
    with pytest.raises(ValueError, match=r"got 'centrenet'\. Did you mean 'centernet'\?"):
        max_radius((4, 4), 'centrenet')


def test_peaks_by_hand():
    # r = 1: sigma 1/2, exp(-2) at distance 1; r = 0: one cell.
    cells = torch.tensor([[[0, 1], [3, 0], [1, 1]]])
    radius = torch.tensor([[1.9, 0.0, 0.0]])
    labels, valid = torch.tensor([[0, 0, 1]]), torch.tensor([[True, True, False]])
    found = draw_peaks(cells, radius, labels, valid, (2, 3, 4), max_radius=2)
    one, two = math.exp(-2), math.exp(-4)
    first = torch.tensor([[one, two, 0, 1], [1, one, 0, 0], [one, two, 0, 0]])
    assert_close(found, torch.stack((first, torch.zeros(3, 4)))[None])


def test_peaks_are_those_of_the_definition(peaks):
    found = draw(peaks, dtype=torch.float64)
    expected = torch.from_numpy(gaussian_loop(*peaks, (C, H, W)))
    assert_close(found, expected, rtol=1e-12, atol=0)
    assert (found == 1).sum() == (expected == 1).sum() > 10
    assert draw(peaks).dtype == torch.float32
    assert_close(draw(peaks), expected.float(), rtol=1e-6, atol=0)


def test_peaks_are_those_of_mmdet(peaks):
    cells, radii, labels, valid = peaks
    expected = torch.zeros(B, C, H, W)
    for image, thing in np.argwhere(valid):
        gaussian_target.gen_gaussian_target(
            expected[image, labels[image, thing]],
            cells[image, thing].tolist(),
            int(radii[image, thing]),
        )
    found = draw(peaks)
    assert_close(found, expected, rtol=1e-6, atol=0)
    assert torch.equal(found == 0, expected == 0)
    assert torch.equal(found == 1, expected == 1)


def test_max_radius_leaves_smaller_ones_as_they_are(peaks):
    assert torch.equal(draw(peaks), draw(peaks, max_radius=40))


def test_a_larger_radius_is_cut(peaks):
    cells, radii, labels, valid = peaks
    assert_close(draw(peaks, max_radius=3), draw((cells, radii.clip(max=3), labels, valid)))


def test_a_centre_outside_of_the_map_shows_its_slope():
    one = torch.ones(1, 1, dtype=torch.long)
    found = draw_peaks(torch.tensor([[[-1, 1]]]), one, 0 * one, one > 0, (1, 2, 3), max_radius=1)
    assert_close(found, torch.tensor([[math.exp(-4), 0, 0], [math.exp(-2), 0, 0]])[None, None])


def test_padding_may_hold_anything(peaks):
    cells, radii, labels, valid = peaks
    clean = draw(peaks)
    cells[~valid], labels[~valid], radii[~valid] = 10**6, -5, math.nan
    assert torch.equal(draw((cells, radii, labels, valid)), clean)


@pytest.mark.parametrize('label', [-1, C])
def test_a_wrong_label_never_draws_on_another_image(peaks, label):
    labels, valid = peaks[2:]
    image, thing = np.argwhere(valid)[0]
    labels[image, thing] = label
    with pytest.raises(RuntimeError, match='out of bounds'):
        draw(peaks)


def test_no_objects():
    none = torch.zeros(2, 0)
    cells = torch.zeros(2, 0, 2, dtype=torch.long)
    found = draw_peaks(cells, none, none.long(), none > 0, (C, 4, 5), max_radius=2)
    assert_close(found, torch.zeros(2, C, 4, 5))
