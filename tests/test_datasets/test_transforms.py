"""PlaceBBox in front of the real TopdownAffine: the box lands where the config says."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from mmcv.transforms import Compose
from mmengine.registry import TRANSFORMS as ROOT
from mmengine.registry import init_default_scope
from mmpose.registry import TRANSFORMS as MMPOSE_TRANSFORMS

from mmloss_plugins.datasets import PlaceBBox
from mmloss_plugins.doctor import examine

# Sizes in [w, h]: the square of the minis, an upright and a wide rectangle.
SIZES = [(56, 56), (192, 256), (96, 64)]
BOX = (30.0, 40.0, 70.0, 120.0)  # 40 x 80, centre (50, 80)


@pytest.fixture(autouse=True)
def mmpose_scope():
    init_default_scope('mmpose')


def record(rotation=None, boxes=1):
    """Results of a sample with keypoints at the centre of the box and at its corners."""
    left, top, right, bottom = BOX
    points = [((left + right) / 2, (top + bottom) / 2)]
    points += [(x, y) for x in (left, right) for y in (top, bottom)]
    results = dict(
        img=np.full((160, 100, 3), 200, np.uint8),
        bbox=np.array([BOX] * boxes, np.float32),
        keypoints=np.array([points] * boxes, np.float32),
    )
    if rotation is not None:
        results['bbox_rotation'] = np.full(boxes, rotation, np.float32)
    return results


def run(place, rotation=None, before=()):
    affine = {key: place[key] for key in ('input_size', 'use_udp') if key in place}
    pipeline = Compose(
        [
            dict(type='GetBBoxCenterScale'),
            *before,
            dict(type='mmloss_plugins.PlaceBBox', **place),
            dict(type='TopdownAffine', **affine),
        ]
    )
    return pipeline(record(rotation))


def landed(results):
    """Positions of the centre and the corners as fractions of the crop."""
    return results['transformed_keypoints'][0] / np.array(results['input_size'])


@pytest.mark.parametrize('rotation', [None, 0.0, 33.0, -90.0, 180.0])
@pytest.mark.parametrize('place', [(0.5, 0.5), (0.25, 0.6), (0.0, 1.0)])
@pytest.mark.parametrize('size', [None, 0.4])
@pytest.mark.parametrize('input_size', SIZES)
def test_the_centre_of_the_box_lands_there(input_size, size, place, rotation):
    x, y = place
    options = dict(input_size=input_size, x=(x, x), y=(y, y))
    if size is not None:
        options['size'] = (size, size)
    found = landed(run(options, rotation))
    np.testing.assert_allclose(found[0], place, atol=1e-5)


@pytest.mark.parametrize(
    ('input_size', 'extent'),
    # A box of 40 x 80 px fills half of a crop: its height in a square of 160 x 160 px, and in the
    # upright crop of ratio 3 : 4, 120 x 160 px; in the wide one of ratio 3 : 2, 240 x 160 px.
    [((56, 56), (40 / 160, 0.5)), ((192, 256), (40 / 120, 0.5)), ((96, 64), (40 / 240, 0.5))],
)
def test_the_size_of_the_box(input_size, extent):
    place = dict(input_size=input_size, x=(0.3, 0.3), y=(0.4, 0.4), size=(0.5, 0.5))
    found = landed(run(place))
    np.testing.assert_allclose(found[4] - found[1], extent, atol=1e-5)
    # Rotation turns the crop about the box and leaves distances in px.
    turned = run(place, 33.0)['transformed_keypoints'][0]
    diagonal = np.hypot(*(np.array(extent) * input_size))
    assert np.hypot(*(turned[4] - turned[1])) == pytest.approx(diagonal, abs=1e-3)


def test_a_wide_box_is_measured_along_its_width():
    results = record() | dict(bbox=np.array([[10, 20, 90, 40]], np.float32))  # 80 x 20
    results |= dict(bbox_center=np.zeros((1, 2)), bbox_scale=np.ones((1, 2)))
    results = PlaceBBox((56, 56), x=(0.25, 0.25), size=(0.5, 0.5))(results)
    np.testing.assert_allclose(results['bbox_scale'], [[160, 160]])
    # The box is centred on (50, 30), a quarter of 160 px left of the middle of the crop.
    np.testing.assert_allclose(results['bbox_center'], [[90, 30]])


@pytest.mark.parametrize('rotation', [None, 20.0, -75.0])
def test_with_udp_fractions_are_of_the_distance_between_the_outer_pixels(rotation):
    place = dict(input_size=(57, 41), x=(0.25, 0.25), y=(0.9, 0.9), use_udp=True)
    found = run(place, rotation)['transformed_keypoints'][0, 0]
    np.testing.assert_allclose(found, [14, 36], atol=1e-3)


def test_in_the_middle_and_without_a_size_nothing_changes():
    for rotation in (None, 25.0):
        plain = Compose(
            [dict(type='GetBBoxCenterScale'), dict(type='TopdownAffine', input_size=(56, 56))]
        )
        expected = plain(record(rotation))
        results = run(dict(input_size=(56, 56)), rotation)
        np.testing.assert_array_equal(results['img'], expected['img'])
        np.testing.assert_allclose(results['input_center'], expected['input_center'])
        np.testing.assert_allclose(results['input_scale'], expected['input_scale'])


def test_a_random_shift_before_has_no_effect_and_a_random_scale_has():
    before = [
        dict(
            type='RandomBBoxTransform',
            shift_factor=0.3,
            shift_prob=1.0,
            scale_factor=(0.5, 1.5),
            scale_prob=1.0,
        )
    ]
    place = dict(input_size=(56, 56), x=(0.25, 0.25), y=(0.5, 0.5))
    seen = [landed(run(place, before=before)) for _ in range(5)]
    np.testing.assert_allclose([found[0] for found in seen], [(0.25, 0.5)] * 5, atol=1e-5)
    assert np.ptp([found[4, 1] - found[1, 1] for found in seen]) > 0.05


def test_ranges_are_filled_and_the_seed_decides():
    place = PlaceBBox((56, 56), x=(0.2, 0.3), y=(0.4, 0.8), size=(0.25, 0.5))

    def draws():
        np.random.seed(3)  # noqa: NPY002 (what MMEngine seeds)
        many = []
        for _ in range(400):
            results = record() | dict(bbox_center=np.zeros((1, 2)), bbox_scale=np.ones((1, 2)))
            results = place(results)
            side = results['bbox_scale'][0, 0]
            many.append(
                [*((np.array([50, 80]) - results['bbox_center'][0]) / side + 0.5), 80 / side]
            )
        return np.array(many)

    values = draws()
    np.testing.assert_array_equal(values, draws())
    low, high = np.array([0.2, 0.4, 0.25]), np.array([0.3, 0.8, 0.5])
    assert (values >= low - 1e-5).all()
    assert (values <= high + 1e-5).all()
    # Uniform: the mean of 400 is within 5 standard errors of the middle.
    assert (np.abs(values.mean(0) - (low + high) / 2) < 5 * (high - low) / np.sqrt(12 * 400)).all()
    assert (np.abs(np.corrcoef(values.T) - np.eye(3)) < 0.25).all()


def test_every_box_has_a_place_of_its_own():
    results = record(boxes=3, rotation=30.0)
    results |= dict(bbox_center=np.zeros((3, 2)), bbox_scale=np.ones((3, 2)))
    results = PlaceBBox((56, 40), x=(0.0, 1.0), size=(0.3, 0.6))(results)
    assert results['bbox_center'].shape == results['bbox_scale'].shape == (3, 2)
    assert results['bbox_center'].dtype == results['bbox_scale'].dtype == np.float32
    assert len(np.unique(results['bbox_center'][:, 0])) == 3


def test_predictions_go_back_to_the_image():
    """What MMPose's estimators do with input_center and input_scale inverts the crop."""
    results = run(dict(input_size=(96, 64), x=(0.2, 0.2), y=(0.7, 0.7), size=(0.5, 0.5)))
    center, scale, size = (results[f'input_{name}'] for name in ('center', 'scale', 'size'))
    found = results['transformed_keypoints'][0] / size * scale + center - 0.5 * scale
    np.testing.assert_allclose(found, results['keypoints'][0], atol=1e-4)


@pytest.mark.parametrize('key', ['bbox', 'bbox_center', 'bbox_scale'])
def test_too_early_in_the_pipeline(key):
    results = record() | dict(bbox_center=np.zeros((1, 2)), bbox_scale=np.ones((1, 2)))
    del results[key]
    with pytest.raises(ValueError, match=f"results must have '{key}'.*behind GetBBoxCenterScale"):
        PlaceBBox((56, 56))(results)


def test_too_late_in_the_pipeline():
    results = run(dict(input_size=(56, 56)))
    with pytest.raises(ValueError, match=r'must come without the input_size.*got \(56, 56\)'):
        PlaceBBox((56, 56))(results)


@pytest.mark.parametrize(
    ('options', 'error', 'text'),
    [
        ({'sizes': (1, 1)}, TypeError, "got 'sizes'. Did you mean 'size'"),
        ({'input_size': 56}, ValueError, 'input_size must be two positive whole numbers'),
        ({'input_size': (56, 0)}, ValueError, r'input_size must be .*got \(56, 0\)'),
        ({'x': (0.3, 0.2)}, ValueError, r'x must be two numbers .*<= 1, got \(0.3, 0.2\)'),
        ({'x': 0.5}, ValueError, 'x must be two numbers'),
        ({'x': (True, True)}, ValueError, 'x must be two numbers'),
        ({'y': (-0.1, 0.2)}, ValueError, 'y must be two numbers'),
        ({'y': (0.5, 1.1)}, ValueError, 'y must be two numbers'),
        ({'y': (0.5, float('nan'))}, ValueError, 'y must be two numbers'),
        ({'use_udp': 1}, TypeError, 'use_udp must be True or False'),
        ({'size': (0.0, 0.5)}, ValueError, r'size must be > 0, got \(0.0, 0.5\)'),
        ({'size': (0.5, float('inf'))}, ValueError, 'size must be two numbers'),
    ],
)
def test_bad_arguments(options, error, text):
    with pytest.raises(error, match=text):
        PlaceBBox(**{'input_size': (56, 56), **options})


def test_resolves_from_every_registry_of_transforms_and_in_the_report():
    config = dict(type='mmloss_plugins.PlaceBBox', input_size=(56, 56), x=(0.2, 0.3))
    for registry in (ROOT, MMPOSE_TRANSFORMS):
        assert type(registry.build(config)) is PlaceBBox
    assert 'PlaceBBox' in examine().registered['transforms']


def test_copies_pickles_and_shows_its_arguments():
    place = PlaceBBox([56, 40], x=[0.2, 0.2], size=(0.5, 0.5))
    expected = (
        'PlaceBBox(input_size=(56, 40), x=(0.2, 0.2), y=(0.5, 0.5), size=(0.5, 0.5), use_udp=False)'
    )
    for other in (place, copy.deepcopy(place), pickle.loads(pickle.dumps(place))):
        assert repr(other) == expected
