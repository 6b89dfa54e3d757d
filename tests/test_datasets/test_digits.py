"""The generated digits: what is drawn, and whether its labels are those of the visible pixels."""

from __future__ import annotations

import hashlib

import cv2
import numpy as np
import pytest
from pycocotools import mask as run_lengths

from mmloss_plugins.datasets import digits_draw, digits_scene
from mmloss_plugins.datasets.digits_backdrop import backdrop

# SHA-256 of three pictures and their extreme points.
PIXELS = '282e03580cdff3feac83218214bcdc5217949583d1ebaa33d21e811006eff10b'


@pytest.fixture(scope='module')
def many() -> list[digits_scene.Scene]:
    return [scene_of(index) for index in range(60)]


def scene_of(index: int, size: int = 128) -> digits_scene.Scene:
    return digits_scene.render_scene(
        np.random.default_rng([3, index]), size, digits_scene.glyphs_of('train')
    )


class TestScenes:
    def test_three_to_eight_digits_of_fourteen_to_forty_eight_pixels(self, many):
        for scene in many:
            assert scene.image.shape == (128, 128, 3)
            assert scene.image.dtype == np.uint8
        counts = {len(scene.labels) for scene in many}
        assert counts == set(range(3, 9))
        sides = np.array([max(label['bbox'][2:]) for scene in many for label in scene.labels])
        assert np.mean((sides >= 14) & (sides <= 48)) > 0.98
        assert sides.max() - sides.min() > 24

    def test_every_class_is_as_frequent(self, many):
        classes = [label['category_id'] for scene in many for label in scene.labels]
        counts = np.bincount(classes, minlength=11)
        assert counts[0] == 0
        # About 330 digits: 33 of a class, with a standard deviation of 5.4.
        assert counts[1:].min() >= 15
        assert len(counts) == 11

    def test_labels_are_those_of_the_pixels_on_top(self, many):
        for scene in many:
            assert scene.owner.max() == len(scene.labels) - 1
            for number, label in enumerate(scene.labels):
                visible = scene.owner == number
                decoded = run_lengths.decode(label['segmentation'])
                assert (decoded == visible).all()
                assert label['area'] == visible.sum() >= 40
                assert label['bbox'] == run_lengths.toBbox(label['segmentation']).tolist()
                assert label['category_id'] == digits_draw.load_glyphs()[1][label['glyph']] + 1

    def test_extreme_points_lie_on_the_digit_and_on_its_box(self, many):
        for scene in many:
            for number, label in enumerate(scene.labels):
                x, y, width, height = label['bbox']
                top, left, bottom, right = label['extreme_points']
                assert (left[0], right[0]) == (x, x + width - 1)
                assert (top[1], bottom[1]) == (y, y + height - 1)
                for across, along in label['extreme_points']:
                    # The middle of an even run lies between two pixels of the digit.
                    for end in (np.floor, np.ceil):
                        assert scene.owner[int(end(along)), int(end(across))] == number

    def test_digits_overlap(self, many):
        hidden = 0
        for scene in many:
            boxes = [[x, y, w, h] for x, y, w, h in (label['bbox'] for label in scene.labels)]
            crowd = [0] * len(boxes)
            overlaps = run_lengths.iou(np.array(boxes, float), np.array(boxes, float), crowd)
            hidden += np.count_nonzero((overlaps - np.eye(len(boxes))).max(axis=1) > 0.01)
        assert 0.2 < hidden / sum(len(scene.labels) for scene in many) < 0.6

    def test_a_digit_stands_out_from_its_surroundings(self, many):
        differences = []
        for scene in many:
            luma = cv2.cvtColor(scene.image, cv2.COLOR_BGR2GRAY).astype(float)
            for number in range(len(scene.labels)):
                digit = scene.owner == number
                core = cv2.erode(digit.astype(np.uint8), np.ones((3, 3))) > 0
                near = cv2.dilate(digit.astype(np.uint8), np.ones((7, 7))) > 0
                around = (
                    near
                    & (scene.owner < 0)
                    & ~cv2.dilate(digit.astype(np.uint8), np.ones((3, 3))).astype(bool)
                )
                if core.any() and around.any():
                    differences.append(abs(np.median(luma[core]) - np.median(luma[around])))
        assert len(differences) > 150
        assert np.mean(np.array(differences) > 40) > 0.95

    @pytest.mark.parametrize('size', [64, 200])
    def test_digits_grow_with_the_image(self, size):
        scenes = [scene_of(index, size) for index in range(6)]
        sides = [max(label['bbox'][2:]) for scene in scenes for label in scene.labels]
        assert scenes[0].image.shape == (size, size, 3)
        assert 0.1 < np.median(sides) / size < 0.35
        assert all(len(scene.labels) >= 3 for scene in scenes)

    def test_the_splits_share_no_glyph(self):
        train, val = (digits_scene.glyphs_of(split) for split in ('train', 'val'))
        classes = digits_draw.load_glyphs()[1]
        assert sorted([*train, *val]) == list(range(1797))
        # load_digits has 174 to 183 of a class: every fifth from the fifth on are 34 to 36.
        assert set(np.bincount(classes[val])) <= {34, 35, 36}
        assert len(val) == 355

    def test_the_same_pixels_on_every_machine(self):
        # Drawn in whole numbers: a machine, compiler or library that rounds otherwise shows here.
        state = hashlib.sha256()
        for index in range(3):
            scene = scene_of(index)
            state.update(scene.image.tobytes())
            state.update(repr([label['extreme_points'] for label in scene.labels]).encode())
        assert state.hexdigest() == PIXELS


def bar(height: int, width: int, ink: int = 9) -> digits_draw.Glyph:
    """Return a glyph that covers ``ink`` of the 9 samples of each of its pixels."""
    full = np.full((height, width), ink)
    return digits_draw.Glyph(ink=full, body=255 * full, mask=2 * full > 9)


class TestColours:
    NOBODY = np.full((30, 30), -1)

    def test_paints_its_own_pixels_alone_and_far_from_what_was_there(self):
        for seed, grey in enumerate((0, 60, 128, 255)):
            image = np.full((30, 30, 3), grey)
            rng = np.random.default_rng(seed)
            assert digits_scene._paint(rng, image, self.NOBODY, bar(6, 4), (-2, 27))
            changed = digits_scene._luma(image) != grey
            assert changed[:4, 27:].all()
            assert changed.sum() == 4 * 3
            assert (abs(digits_scene._luma(image[:4, 27:]) - grey) >= 60).all()

    def test_a_pixel_covered_in_part_is_mixed(self):
        whole, third = (np.full((30, 30, 3), 30) for _ in range(2))
        for image, ink in ((whole, 9), (third, 3)):
            rng = np.random.default_rng(1)
            assert digits_scene._paint(rng, image, self.NOBODY, bar(6, 4, ink), (8, 8))
        assert third[9, 9] == pytest.approx((2 * 30 + whole[9, 9]) / 3, abs=1)

    def test_the_rim_is_dark_about_a_bright_digit_and_bright_about_a_dark_one(self):
        glyph, bright = bar(6, 4), []
        rim = digits_draw.Glyph(ink=glyph.ink, body=0 * glyph.body, mask=glyph.mask)
        for seed in range(12):
            filled, hollow = (np.full((30, 30, 3), 30) for _ in range(2))
            for image, drawn in ((filled, glyph), (hollow, rim)):
                rng = np.random.default_rng(seed)
                assert digits_scene._paint(rng, image, self.NOBODY, drawn, (8, 8))
            fill = filled[9, 9]
            bright.append(bool(digits_scene._luma(fill) > 127))
            # Two fifths of the way from black or from white.
            expected = 0.4 * fill if bright[-1] else 255 - 0.4 * (255 - fill)
            assert hollow[9, 9] == pytest.approx(expected, abs=1)
        assert set(bright) == {False, True}

    def test_a_digit_that_no_colour_tells_from_those_below_is_not_drawn(self):
        # Clutter of 60 needs a colour above 120; stripes of 140 and 215 leave none above that.
        image = np.full((30, 30, 3), 60)
        image[8:11], image[11:14] = 140, 215
        owner = self.NOBODY.copy()
        owner[8:14] = 0
        before = image.copy()
        for seed in range(20):
            rng = np.random.default_rng(seed)
            assert not digits_scene._paint(rng, image, owner, bar(10, 6), (6, 8))
        assert (image == before).all()
        assert digits_scene._paint(rng, image, owner, bar(3, 6), (8, 8))


class TestLayout:
    @pytest.mark.parametrize(
        ('spot', 'fits'),
        [
            ((0, 0), True),
            ((0, 26), True),  # 6 x 6 of 6 x 6 inside
            ((0, 27), True),  # 30 of 36: 83 %
            ((0, 28), False),  # 24 of 36: 67 %
            ((-1, -1), False),  # 25 of 36: 69 %
        ],
    )
    def test_at_least_80_percent_lie_inside(self, spot, fits):
        layout = digits_scene.Layout(32)
        assert layout.fits(bar(6, 6), spot) is fits

    def test_70_percent_of_the_whole_digit_stay_visible(self):
        layout = digits_scene.Layout(32)
        layout.put(bar(10, 10), (4, -1))  # 90 of 100 pixels inside
        assert (layout.owner == 0).sum() == 90
        assert layout.fits(bar(10, 2), (4, 7))  # leaves 70
        assert not layout.fits(bar(10, 3), (4, 6))  # leaves 60
        layout.put(bar(10, 2), (4, 7))
        assert (layout.owner == 0).sum() == 70
        assert not layout.fits(bar(1, 1), (4, 0))
        # Hiding what is hidden already takes nothing away from the first, but from the second.
        assert layout.fits(bar(3, 2), (4, 7))
        assert not layout.fits(bar(4, 2), (4, 7))

    def test_no_spot_for_a_digit_larger_than_the_picture(self):
        layout = digits_scene.Layout(32)
        assert layout.find_spot(np.random.default_rng(0), bar(40, 40)) is None
        top, left = layout.find_spot(np.random.default_rng(0), bar(8, 4))
        assert -2 <= top <= 26
        assert -1 <= left <= 29


class TestGlyphs:
    GLYPH = np.zeros((8, 8), np.int64)
    GLYPH[:, 2:6] = 16  # a bar of 8 x 4 cells

    @pytest.mark.parametrize('height_px', [16, 25, 40])
    def test_height_and_width(self, height_px):
        upright = digits_draw.place_glyph(self.GLYPH, 8 * height_px, 100, 0, (0, 0))
        # The outline bulges by the same amount on every side, so 8 x 4 is not exactly 2 : 1.
        assert upright.mask.shape[0] == pytest.approx(height_px, abs=1.01)
        assert upright.mask.shape[1] == pytest.approx(height_px / 2, abs=0.06 * height_px + 1)
        wide = digits_draw.place_glyph(self.GLYPH, 8 * height_px, 120, 0, (0, 0))
        assert wide.mask.shape[1] / upright.mask.shape[1] == pytest.approx(1.2, abs=0.13)

    def test_a_quarter_turn_is_clockwise(self):
        hook = np.zeros((8, 8), np.int64)
        hook[:, 2:4] = hook[6:, 2:7] = 16  # an L
        upright, turned = (
            digits_draw.place_glyph(hook, 8 * 48, 100, angle, (1, 1)).mask for angle in (0, 90)
        )
        expected = np.rot90(upright, -1)
        assert abs(np.subtract(turned.shape, expected.shape)).max() <= 1
        height, width = np.minimum(turned.shape, expected.shape)
        assert np.mean(turned[:height, :width] == expected[:height, :width]) > 0.95

    def test_ink_and_body_agree_with_the_mask(self):
        images, _ = digits_draw.load_glyphs()
        for index in range(0, 200, 20):
            glyph = digits_draw.place_glyph(images[index], 200, 100, -20, (2, 0))
            assert glyph.ink.min() == 0
            assert glyph.ink.max() == digits_draw.FINE**2
            assert ((2 * glyph.ink > 9) == glyph.mask).all()
            assert (glyph.body <= digits_draw.FULL * glyph.ink).all()
            assert glyph.body.max() > 0.9 * digits_draw.FULL * 9
            assert glyph.ink.any(axis=0).all()
            assert glyph.ink.any(axis=1).all()

    def test_enlarged_cells_keep_their_value_and_sum_to_one(self):
        weights = digits_draw._cubic_weights()
        assert (weights[24:-24].sum(axis=1) == digits_draw._UNIT).all()
        # Half a sample beside a cell's centre the cubic is 1 - 2.5 / 32^2 + 1.5 / 32^3.
        cell, sample = 5, 5 * 16 + 8
        expected = 1 - 2.5 / 32**2 + 1.5 / 32**3
        assert weights[sample, cell] / digits_draw._UNIT == pytest.approx(expected, rel=1e-12)

    def test_turns_are_rounded_to_twelve_bits(self):
        assert digits_draw.fixed_turn(0) == (4096, 0)
        assert digits_draw.fixed_turn(90) == (0, 4096)
        assert digits_draw.fixed_turn(-30) == (3547, -2048)  # 4096 cos 30 = 3547.2


class TestBackdrop:
    def test_in_range_and_never_twice_the_same(self):
        pictures = [backdrop(np.random.default_rng(seed), 96) for seed in range(12)]
        for picture in pictures:
            assert picture.shape == (96, 96, 3)
            assert picture.min() >= 0
            assert picture.max() <= 255
            assert picture.std() > 3
        assert len({picture.tobytes() for picture in pictures}) == 12
        light = [picture.mean() for picture in pictures]
        assert max(light) - min(light) > 60
