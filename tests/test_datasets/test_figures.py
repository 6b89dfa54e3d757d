"""The generated figures: labels tell what is drawn, and where to a tenth of a pixel."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mmloss_plugins.datasets import figures_draw, figures_pose, figures_scene

RED, BLUE = 2, 0


@pytest.fixture(scope='module')
def many() -> list[figures_scene.Scene]:
    return [figures_scene.render_scene(np.random.default_rng([5, i]), 128) for i in range(120)]


class TestLabels:
    def test_shapes_and_ranges(self, many):
        for scene in many:
            assert scene.image.shape == (128, 128, 3)
            assert scene.image.dtype == np.uint8
            flags = scene.keypoints[:, 2]
            assert set(flags) <= {0, 1, 2}
            assert (scene.keypoints[flags == 0] == 0).all()
            labelled = scene.keypoints[flags > 0, :2]
            assert len(labelled) >= figures_scene.MIN_LABELLED
            assert labelled.min() >= 0
            assert labelled.max() <= 127

    def test_shares_of_the_flags(self, many):
        flags = np.concatenate([scene.keypoints[:, 2] for scene in many])
        missing, hidden, seen = (np.mean(flags == flag) for flag in (0, 1, 2))
        assert 0.05 < missing < 0.2
        assert 0.1 < hidden < 0.3
        assert 0.55 < seen < 0.85

    def test_every_joint_is_sometimes_seen_and_sometimes_not(self, many):
        flags = np.stack([scene.keypoints[:, 2] for scene in many])
        assert (np.mean(flags == 2, axis=0) > 0.35).all()
        assert (np.mean(flags == 2, axis=0) < 0.97).all()

    def test_box_holds_the_labelled_joints_with_a_margin_inside_the_image(self, many):
        for scene in many:
            x, y, width, height = scene.bbox
            assert min(x, y) >= 0
            assert max(x + width, y + height) <= 127 + 1e-9
            points = scene.keypoints[scene.keypoints[:, 2] > 0, :2]
            margin = np.concatenate(
                [points.min(0) - [x, y], [x + width, y + height] - points.max(0)]
            )
            at_border = np.array([x == 0, y == 0, x + width >= 126.999, y + height >= 126.999])
            assert (margin[~at_border] >= 4 - 1e-3).all()
            assert 100 < scene.area < 128 * 128

    def test_a_seen_joint_stands_out_from_what_was_behind_it(self, many):
        differences = []
        for scene in many:
            change = np.abs(scene.image.astype(float) - scene.backdrop).max(axis=2)
            # 3 x 3 pixels: the rim and the shading of a limb count, one noisy pixel does not.
            change = cv2.blur(change, (3, 3))
            for x, y, flag in scene.keypoints:
                if flag == 2:
                    differences.append(change[round(y), round(x)])
        assert np.mean(np.array(differences) > 25) > 0.97

    def test_left_is_warm_and_right_is_cool(self):
        warmth = {0: [], 1: []}
        for seed in range(40):
            style = figures_draw.sample_style(np.random.default_rng(seed))
            for colours in (style.sleeves, style.trousers, style.marks):
                for side in (0, 1):
                    warmth[side].append(colours[side][RED] - colours[side][BLUE])
        assert min(warmth[0]) > 20
        assert max(warmth[1]) < -20

    def test_left_and_right_hips_differ_in_the_picture(self, many):
        warm = []
        for scene in many:
            pair = scene.keypoints[list(figures_pose.HIPS)]
            if (pair[:, 2] < 2).any() or np.hypot(*(pair[0] - pair[1])[:2]) < 4:
                continue
            columns = np.rint(pair[:, :2]).astype(int)
            left, right = (scene.image[y, x].astype(float) for x, y in columns)
            warm.append((left[RED] - left[BLUE]) - (right[RED] - right[BLUE]))
        assert len(warm) > 20
        assert np.mean(np.array(warm) > 30) > 0.97

    def test_names_match_the_flip_pairs_of_coco(self):
        left = [name for name in figures_pose.KEYPOINT_NAMES if name.startswith('left')]
        assert len(figures_pose.KEYPOINT_NAMES) == 17
        for name in left:
            at = figures_pose.KEYPOINT_NAMES.index(name)
            assert figures_pose.KEYPOINT_NAMES[at + 1] == name.replace('left', 'right')

    @pytest.mark.parametrize('size', [32, 300])
    def test_every_size_of_image(self, size):
        for seed in range(6):
            scene = figures_scene.render_scene(np.random.default_rng(seed), size)
            assert scene.image.shape == (size, size, 3)
            points = scene.keypoints[scene.keypoints[:, 2] > 0, :2]
            assert np.ptp(points, axis=0).max() > 0.3 * size
            assert points.max() <= size - 1


class TestGeometry:
    @pytest.mark.parametrize('factor', [2, 4])
    @pytest.mark.parametrize('xy', [(20.0, 31.0), (20.25, 31.4), (19.5, 30.9), (20.77, 31.63)])
    def test_a_disc_has_its_centroid_at_its_coordinate(self, xy, factor):
        # Integer i is the centre of pixel i: a half-pixel slip moves the centroid by 0.5.
        black = np.zeros((64, 64, 3), np.uint8)
        canvas = figures_draw.Canvas(black, factor)
        canvas.disc(np.array(xy), 5.3, np.full(3, 255.0), 1)
        weight = canvas.image()[..., 0].astype(float)
        rows, columns = np.mgrid[:64, :64]
        centroid = np.array([(weight * columns).sum(), (weight * rows).sum()]) / weight.sum()
        assert centroid == pytest.approx(xy, abs=0.1)
        radius = np.sqrt(weight.sum() / 255 / np.pi)
        assert radius == pytest.approx(5.3, abs=0.6 / factor)

    def test_the_drawn_nose_has_its_centroid_at_its_keypoint(self):
        checked = 0
        for seed in range(30):
            body = figures_pose.sample_body(np.random.default_rng(seed))
            body = body.placed(30.0, np.array([64.3, 70.8]))
            canvas = figures_draw.Canvas(np.zeros((128, 128, 3), np.uint8))
            style = figures_draw.sample_style(np.random.default_rng(seed))
            figures_draw.FigurePainter(canvas, body, style).paint()
            rows, columns = np.nonzero(canvas.pixels[..., 3] == figures_draw.NOSE)
            nose_radius = 0.16 * body.head_radius + 0.6 * 0.022 * 30
            if len(rows) < 0.97 * np.pi * (4 * nose_radius) ** 2:
                continue  # something hides a part of it
            centroid = (np.array([columns.mean(), rows.mean()]) + 0.5) / 4 - 0.5
            assert centroid == pytest.approx(body.joints[figures_pose.NOSE, :2], abs=0.1)
            checked += 1
        assert checked > 8

    def test_a_frontal_figure_has_its_left_at_larger_x(self):
        frontal = []
        for seed in range(200):
            body = figures_pose.sample_body(np.random.default_rng(seed))
            chest = body.chest_axes[2]
            if abs(chest[2]) > 0.6 and body.chest_axes[1][1] > 0.6:
                width = np.subtract(*body.joints[list(figures_pose.SHOULDERS), 0])
                frontal.append(np.sign(width) == np.sign(chest[2]))
        assert len(frontal) > 80
        assert all(frontal)

    def test_bones_keep_their_length_and_limbs_mirror(self):
        for seed in range(20):
            joints = figures_pose.sample_body(np.random.default_rng(seed)).joints
            for start, end in ((5, 7), (7, 9), (11, 13), (13, 15)):
                left = np.linalg.norm(joints[start] - joints[end])
                right = np.linalg.norm(joints[start + 1] - joints[end + 1])
                assert left == pytest.approx(right, rel=1e-9)
                assert 0.4 < left < 0.9

    def test_a_hidden_joint_counts_as_hidden(self):
        body = figures_pose.sample_body(np.random.default_rng(3)).placed(28.0, np.array([64, 70.0]))
        canvas = figures_draw.Canvas(np.zeros((128, 128, 3), np.uint8))
        figures_draw.FigurePainter(
            canvas, body, figures_draw.sample_style(np.random.default_rng(3))
        ).paint()
        xy, inside = body.joints[:, :2], np.ones(17, bool)
        seen = np.flatnonzero(figures_scene._visible(canvas, xy, inside))
        assert len(seen) >= 6
        for joint in seen:
            canvas.disc(xy[joint], 3.0, np.zeros(3), figures_draw.CLUTTER)
        assert not figures_scene._visible(canvas, xy, inside)[seen].any()
