"""Extreme points of masks: by hand, by symmetry, and by a walk along the outline."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mmloss_plugins.datasets.digits_labels import extreme_points, label_of


class TestExtremePoints:
    def test_by_hand(self):
        # . . # # . .    top: columns 2 and 3
        # . # # # # .    right: column 5 in row 3
        # # # # # . .    left: rows 2 and 3
        # # . . . . #
        # . . # . . .    bottom: column 2
        mask = np.array(
            [
                [0, 0, 1, 1, 0, 0],
                [0, 1, 1, 1, 1, 0],
                [1, 1, 1, 1, 0, 0],
                [1, 0, 0, 0, 0, 1],
                [0, 0, 1, 0, 0, 0],
            ]
        )
        expected = [[2.5, 0], [0, 2.5], [2, 4], [5, 3]]
        assert extreme_points(mask) == expected
        shifted = np.pad(mask, ((7, 3), (2, 9)))
        assert extreme_points(shifted) == [[x + 2, y + 7] for x, y in expected]

    def test_one_pixel(self):
        mask = np.zeros((4, 6), bool)
        mask[3, 1] = True
        assert extreme_points(mask) == [[1, 3]] * 4
        label = label_of(mask)
        assert label['bbox'] == [1, 3, 1, 1]
        assert label['area'] == 1

    def test_the_longest_run_counts_and_the_first_of_equals(self):
        mask = np.ones((3, 9), bool)
        mask[0, [0, 3]] = False  # runs 1-2 and 4-8
        mask[2, 4] = False  # runs 0-3 and 5-8
        top, _, bottom, _ = extreme_points(mask)
        assert top == [6, 0]
        assert bottom == [1.5, 2]

    def test_within_the_tolerance_a_run_grows_but_must_touch_the_border(self):
        mask = np.zeros((100, 40), bool)
        mask[2:, :] = True
        mask[0, 10:12] = mask[1, 8:16] = True  # 2 % of 100 px: rows 0, 1 and 2 count
        mask[2, 30] = False  # a run of its own, 31-39, that does not reach row 0
        assert extreme_points(mask, tolerance=0)[0] == [10.5, 0]
        assert extreme_points(mask, tolerance=0.01)[0] == [11.5, 0]
        assert extreme_points(mask)[0] == [14.5, 0]  # 0-29

    def test_mirrored_masks_have_mirrored_points(self):
        rng = np.random.default_rng(5)
        for _ in range(20):
            mask = cv2.blur(rng.random((40, 60)), (9, 9)) > 0.5
            points = np.array(extreme_points(mask, tolerance=0))
            mirrored = np.array(extreme_points(mask[:, ::-1], tolerance=0))
            mirrored[:, 0] = 59 - mirrored[:, 0]
            runs = [np.count_nonzero(np.diff(np.pad(edge * 1, 1)) == 1) for edge in edges_of(mask)]
            # Among several runs of the same length, left and right decide differently.
            single = np.array(runs)[[0, 2]] == 1
            assert (mirrored[[0, 2]] == points[[0, 2]])[single].all()
            assert (mirrored[[3, 1]] == points[[1, 3]]).all()

    def test_as_a_walk_along_the_outline(self):
        for seed in range(40):
            mask = random_ellipse(np.random.default_rng(seed))
            found = np.floor(extreme_points(mask))
            assert found.tolist() == outline_walk(mask).tolist()

    @pytest.mark.parametrize(
        ('mask', 'tolerance', 'text'),
        [
            (np.zeros((3, 4)), 0.02, r'mask must have a pixel that is set, got none\. Leave out'),
            (np.ones(3), 0.02, r'mask must have shape \(H, W\), got \(3,\)'),
            (np.ones((1, 3, 4)), 0.02, r'mask must have shape \(H, W\), got \(1, 3, 4\)'),
            (np.ones((3, 4)), -0.1, 'tolerance must be from 0 to 1, got -0.1'),
            (np.ones((3, 4)), 2, 'tolerance must be from 0 to 1, got 2'),
        ],
    )
    def test_refusals(self, mask, tolerance, text):
        with pytest.raises(ValueError, match=text):
            extreme_points(mask, tolerance)


def edges_of(mask: np.ndarray) -> list[np.ndarray]:
    """Return the outermost rows and columns: top, left, bottom, right."""
    rows, columns = np.nonzero(mask)
    return [
        mask[rows.min()],
        mask[:, columns.min()],
        mask[rows.max()],
        mask[:, columns.max()],
    ]


def random_ellipse(rng: np.random.Generator) -> np.ndarray:
    axes = rng.uniform(25, 110, 2)
    box = ((150, 140), axes * 2, rng.uniform(0, 180))
    canvas = np.zeros((280, 300), np.uint8)
    return cv2.ellipse(canvas, box, 1, -1) > 0


def outline_walk(mask: np.ndarray) -> np.ndarray:
    """Extreme points by walking both ways along the outline from each outermost pixel."""
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = outlines[0][:, 0].astype(float)
    sides = np.ptp(outline, axis=0) + 1
    found = []
    for axis, sign in ((1, 1), (0, 1), (1, -1), (0, -1)):
        depth = sign * outline[:, axis]
        depth = depth - depth.min()
        start, near = int(np.argmin(depth)), depth <= 0.02 * sides[axis]
        run = [start]
        for step in (1, -1):
            at = (start + step) % len(outline)
            while near[at] and at not in run:
                run.append(at)
                at = (at + step) % len(outline)
        other = outline[run, 1 - axis]
        point = np.empty(2)
        point[axis] = outline[start, axis]
        point[1 - axis] = (other.min() + other.max()) // 2
        found.append(point)
    return np.array(found)
