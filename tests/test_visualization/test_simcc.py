from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmpose.codecs import SimCCLabel as StockSimCCLabel
from mmpose.models import build_pose_estimator

from mmloss_plugins.visualization import draw_simcc
from mmloss_plugins.visualization._run import PoseRun, Sample
from mmloss_plugins.visualization._simcc_panels import describe
from mmloss_plugins.visualization.simcc import (
    _target,
    _to_probabilities,
    choose_instances,
    choose_joints,
    has_simcc_codec,
    predict_distributions,
)
from tests.test_visualization.conftest import HEATMAP, small
from tests.test_visualization.pictures import check_picture

META = dict(
    keypoint_id2name={0: 'nose', 1: 'left_eye', 2: 'right_eye', 3: 'left_ear'},
    keypoint_name2id=dict(nose=0, left_eye=1, right_eye=2, left_ear=3),
)


@pytest.fixture(scope='module')
def run(trained):
    return PoseRun(trained.config, trained.checkpoint)


@pytest.fixture(scope='module')
def found(run):
    return predict_distributions(run, range(16))


def make(errors, visibility):
    """Return a sample whose box side is 100 and whose keypoints lie that far from the labels."""
    labels = np.tile([40.0, 30.0], (len(errors), 1))
    return Sample(
        name='a.png',
        image=np.zeros((64, 64, 3), np.uint8),
        bbox=np.array([0.0, 0.0, 100.0, 50.0]),
        labels=labels,
        visibility=np.array(visibility),
        keypoints=labels + np.stack([np.array(errors), np.zeros(len(errors))], 1),
        scores=np.linspace(0.9, 0.1, len(errors)),
    )


def test_distributions_are_distributions_about_the_labels(found):
    for item in found:
        shown = item.sample.labelled
        for axis in range(2):
            assert item.predicted[axis].shape == item.target[axis].shape == (17, 128)
            np.testing.assert_allclose(item.predicted[axis].sum(-1), 1, atol=1e-5)
            mass = item.target[axis].sum(-1)
            inside = shown & (item.sample.labels[:, axis] > 3) & (item.sample.labels[:, axis] < 60)
            np.testing.assert_allclose(mass[inside], 1, atol=1e-5)
            np.testing.assert_array_equal(mass[~shown], 0)
            mean = item.target[axis] @ np.arange(128) / 2
            # The label is in px of the input and the target is centred on it.
            np.testing.assert_allclose(mean[inside], item.sample.labels[inside, axis], atol=0.02)


def test_positions_are_those_of_the_predictions(run, found):
    """Mapped from the input to the image they are what ``mim test`` evaluates."""
    for item, sample in zip(found, run.predict(range(16))):
        scale = (sample.bbox[2:] - sample.bbox[:2]).max() * 1.25 / 64
        centre = (sample.bbox[2:] + sample.bbox[:2]) / 2
        there = (item.sample.keypoints - 32) * scale + centre
        np.testing.assert_allclose(there, sample.keypoints, atol=0.01)
        labels = (item.sample.labels - 32) * scale + centre
        shown = sample.labelled
        np.testing.assert_allclose(labels[shown], sample.labels[shown], atol=0.01)
        np.testing.assert_allclose(item.sample.errors()[shown], sample.errors()[shown], atol=1e-3)


def test_image_of_a_sample_is_the_input(run, found):
    packed = run.dataset[3]['inputs'].numpy()
    np.testing.assert_array_equal(found[3].sample.image[..., 0], packed[2])
    assert found[3].sample.image.shape == (64, 64, 3)


def test_draw_simcc(trained, tmp_path):
    shown = draw_simcc(trained.config, trained.checkpoint, tmp_path / 's.png')
    check_picture(tmp_path / 's.png')
    assert len({item.sample.name for item in shown}) == 3


def test_draw_simcc_with_named_joints(trained, tmp_path):
    joints = ['nose', 'left_wrist']
    shown = draw_simcc(trained.config, trained.checkpoint, tmp_path / 's.png', 4, joints)
    assert len(shown) == 4
    assert (tmp_path / 's.png').stat().st_size > 20_000


def test_joints_are_good_middling_and_bad():
    # Sorted errors 0.1 (3), 1 (0), 3 (4), 40 (1); the geometric mean of 0.1 and 40 is 2.
    sample = make([1, 40, 0, 0.1, 3], [2, 1, 0, 2, 2])
    assert choose_joints(sample, None, META) == [3, 4, 1]
    assert choose_joints(make([2, 1], [2, 2]), None, META) == [1, 0]
    assert choose_joints(sample, ['left_eye', 'nose'], META) == [1, 0]
    with pytest.raises(ValueError, match=r"joints must be one of nose, .*, got 'nise'"):
        choose_joints(sample, ['nise'], META)


def test_instances_go_from_typical_to_worst():
    visible = [make([1, worst], [2, 2]) for worst in (5, 1, 9, 7, 3)]
    assert choose_instances(visible, 3) == [0, 3, 2]
    assert choose_instances(visible, 1) == [2]
    assert choose_instances(visible, 9) == [1, 4, 0, 3, 2]
    occluded = [make([1, worst], [2, 1]) for worst in (4, 2)]
    assert choose_instances([*visible, *occluded], 2) == [6, 5]


def test_row_of_the_table():
    sample = make([3, 0, 0, 1.25], [1, 2, 2, 0])
    assert describe(sample, 0, META) == ('nose', '43.0, 30.0', '0.90', '3.0')
    assert describe(sample, 3, META) == ('left ear', '41.2, 30.0', '0.10', 'no label')


def test_unnormalised_labels_get_the_softmax_of_their_loss():
    """RTMPose: the target of the loss is softmax(label_beta * label), and beta is the loss's."""
    codec = StockSimCCLabel((64, 64), sigma=2.0, simcc_split_ratio=2.0, normalize=False)
    loss = SimpleNamespace(beta=10.0, label_softmax=True, label_beta=10.0)
    head = SimpleNamespace(decoder=codec, loss_module=loss)
    sample = make([0, 0], [2, 0])
    x, y = _target(head, sample)
    labels = np.exp(-((np.arange(128) - 80) ** 2) / (2 * 2.0**2))
    expected = np.exp(10 * labels) / np.exp(10 * labels).sum()
    np.testing.assert_allclose(x[0], expected, rtol=1e-4)
    assert y[0].argmax() == 60
    np.testing.assert_array_equal(x[1], 0)
    logits = torch.tensor([[[0.1, 0.0]]])
    # softmax((1, 0)) = e / (e + 1)
    np.testing.assert_allclose(_to_probabilities(head, logits)[0, 0, 0], np.e / (np.e + 1), 1e-5)


def test_head_without_distributions(data, tmp_path):
    config = small(HEATMAP, tmp_path)
    assert not has_simcc_codec(config)
    torch.save(build_pose_estimator(config.model).state_dict(), tmp_path / 'w.pth')
    with pytest.raises(ValueError, match=r'have a codec with simcc_split_ratio.*got HeatmapHead'):
        draw_simcc(config, tmp_path / 'w.pth', tmp_path / 's.png')
