from __future__ import annotations

import copy
import json
import re
import sys

import numpy as np
import pytest
import torch
from mmpose.evaluation.functional import keypoint_pck_accuracy
from mmpose.models import build_pose_estimator

from mmloss_plugins.visualization import draw_predictions, read_scalars
from mmloss_plugins.visualization._figure import MAX_BYTES, new_figure, save, style
from mmloss_plugins.visualization._run import PoseRun, Sample, load_config
from mmloss_plugins.visualization.pose import side_colours, title, view
from tests.test_visualization.conftest import HEATMAP, small
from tests.test_visualization.pictures import check_picture


@pytest.fixture(scope='module')
def run(trained):
    return PoseRun(trained.config, trained.checkpoint)


@pytest.fixture(scope='module')
def samples(run):
    return run.predict(range(16))


def mmpose_pck(sample, thr):
    side = (sample.bbox[2:] - sample.bbox[:2]).max()
    arrays = sample.keypoints[None], sample.labels[None], sample.labelled[None]
    return keypoint_pck_accuracy(*arrays, thr, np.full((1, 2), side))[1]


def make(keypoints, visibility, bbox=(10, 20, 110, 70), size=128):
    keypoints = np.array(keypoints, dtype=np.float64)
    return Sample(
        name='a.png',
        image=np.zeros((size, size, 3), np.uint8),
        bbox=np.array(bbox, dtype=np.float64),
        labels=np.full_like(keypoints, 50),
        visibility=np.array(visibility),
        keypoints=keypoints,
        scores=np.ones(len(keypoints)),
    )


def test_pck_and_title_by_hand():
    # Longer side 100: errors 0.03, 0.05 (not below the threshold), 0.5; the last has no label.
    sample = make([[53, 50], [50, 55], [20, 90], [50, 50]], [2, 1, 2, 0])
    np.testing.assert_allclose(sample.errors(), [0.03, 0.05, 0.5, np.nan])
    assert sample.pck(0.05) == pytest.approx(1 / 3)
    assert sample.pck(0.051) == pytest.approx(2 / 3)
    assert title(sample) == 'PCK@.05 33 %  (1 of 3)'
    assert np.isnan(make([[1, 1]], [0]).pck())


@pytest.mark.parametrize('thr', [0.02, 0.05, 0.2, 0.5])
def test_pck_is_mmposes(samples, thr):
    found = [sample.pck(thr) for sample in samples]
    np.testing.assert_allclose(found, [mmpose_pck(sample, thr) for sample in samples])
    assert thr < 0.5 or max(found) > 0


def test_predictions_are_those_that_the_run_was_tested_with(trained, samples):
    """PCK averaged per joint, as the metric does, gives the last value in the log."""
    errors = np.stack([sample.errors() for sample in samples])
    near = [(row[~np.isnan(row)] < 0.05).mean() for row in errors.T if not np.isnan(row).all()]
    logged = read_scalars(trained.work_dir).series('pck@.05/PCK')[1][-1]
    assert np.mean(near) == pytest.approx(logged, abs=1e-6)


def test_labels_are_those_of_the_file(data, samples):
    annotations = json.loads((data / 'figures/annotations/figures_val.json').read_text())
    by_image = {entry['image_id']: entry for entry in annotations['annotations']}
    names = {image['file_name'].split('/')[-1]: image['id'] for image in annotations['images']}
    flags = set()
    for sample in samples:
        expected = np.reshape(by_image[names[sample.name]]['keypoints'], (-1, 3))
        np.testing.assert_array_equal(sample.visibility, expected[:, 2])
        np.testing.assert_allclose(sample.labels, expected[:, :2], atol=1e-3)
        flags |= set(sample.visibility)
    assert flags == {0, 1, 2}


def test_draw_predictions(trained, tmp_path):
    drawn = draw_predictions(trained.config, trained.checkpoint, tmp_path / 'p.png', num=8)
    check_picture(tmp_path / 'p.png')
    assert len({sample.name for sample in drawn}) == 8
    for sample in drawn:
        percent, near, labelled = map(int, re.findall(r'(?<!\.)\b\d+', title(sample)))
        assert labelled == sample.labelled.sum()
        assert percent == round(100 * near / labelled) == round(100 * mmpose_pck(sample, 0.05))


def test_other_head_and_other_keypoints(data, tmp_path):
    """A stock heatmap head, on a set of three keypoints with colours of its own."""
    config = small(HEATMAP, tmp_path)
    joints = {'tip': 0, 'near': 9, 'far': 10}
    annotations = json.loads((data / 'figures/annotations/figures_val.json').read_text())
    for entry in annotations['annotations']:
        points = np.reshape(entry['keypoints'], (-1, 3))[list(joints.values())]
        entry.update(keypoints=points.reshape(-1).tolist(), num_keypoints=int((points > 0).sum()))
    annotations['categories'][0].update(keypoints=list(joints), skeleton=[[1, 2]])
    file = tmp_path / 'three.json'
    file.write_text(json.dumps(annotations))
    info = {
        place: dict(name=name, id=place, color=[255, 0, 90 * place], type='', swap='')
        for place, name in enumerate(joints)
    }
    link = dict(link=('tip', 'near'), id=0, color=[0, 255, 0])
    config.val_dataloader.dataset.metainfo = dict(
        dataset_name='three',
        keypoint_info=info,
        skeleton_info={0: link},
        joint_weights=[1.0] * 3,
        sigmas=[0.05] * 3,
    )
    config.val_dataloader.dataset.ann_file = str(file)
    config.model.head.out_channels = 3
    torch.save(build_pose_estimator(config.model).state_dict(), tmp_path / 'w.pth')
    drawn = draw_predictions(config, tmp_path / 'w.pth', tmp_path / 'p.png', num=2)
    check_picture(tmp_path / 'p.png')
    assert [sample.keypoints.shape for sample in drawn] == [(3, 2)] * 2
    meta = PoseRun(config, tmp_path / 'w.pth').meta
    assert side_colours(meta) == {'prediction': (1.0, 0.0, 0.0)}


def test_legend_names_the_sides_of_coco(run):
    assert side_colours(run.meta) == {
        'prediction, left': (0.0, 1.0, 0.0),
        'prediction, right': (1.0, 128 / 255, 0.0),
    }


@pytest.mark.parametrize(
    ('bbox', 'expected'),
    [
        # Longer side 50, margin 5 on both sides: a square of 60 about the centre.
        ((40, 50, 90, 70), (35, 95, 30, 90)),
        # At the corner it is moved inside.
        ((0, 0, 50, 20), (0, 60, 0, 60)),
        # The margin ends at the image, and a box beyond it is shown whole.
        ((2, 4, 126, 100), (0, 128, 0, 128)),
        ((-10, 0, 130, 100), (-6, 134, -6, 134)),
    ],
)
def test_view_is_a_square_around_the_box(bbox, expected):
    # Edges of pixels lie half a pixel before their centres.
    np.testing.assert_allclose(view(make([[0, 0]], [2], bbox)), np.array(expected) - 0.5)


def test_big_picture_gets_small(tmp_path):
    noise = np.random.default_rng(0).random((600, 900, 3))
    with style():
        figure = new_figure(8.4, 6)
        figure.figimage(noise, resize=False)
        path = save(figure, tmp_path / 'noise.png')
    assert path.stat().st_size <= MAX_BYTES
    with pytest.raises(ValueError, match=r"out_file must end in \.png, got '.*noise\.jpg'"):
        save(figure, tmp_path / 'noise.jpg')


def test_spread_covers_the_set(run):
    assert run.spread(16) == run.spread(99) == list(range(16))
    assert run.spread(4) == [0, 5, 10, 15]
    with pytest.raises(ValueError, match='num must be at least 1, got 0'):
        run.spread(0)


def test_missing_checkpoint_lists_what_is_there(trained):
    name = trained.work_dir / 'iter_7.pth'
    with pytest.raises(
        FileNotFoundError, match=r'must be a file, got .*In that folder: iter_18\.pth, iter_20\.pth'
    ):
        PoseRun(trained.config, name)


def test_checkpoint_of_another_model(trained, tmp_path):
    config = small(HEATMAP, tmp_path)
    with pytest.raises(
        ValueError, match=r'must hold the \d+ weights of the model.* such as head\.'
    ):
        PoseRun(config, trained.checkpoint)


def test_missing_data_says_how_to_get_it(trained, tmp_path):
    config = copy.deepcopy(trained.config)
    config.val_dataloader.dataset.data_root = str(tmp_path / 'none')
    with pytest.raises(FileNotFoundError, match=r'ann_file must be a file.*datasets\.figures'):
        PoseRun(config, trained.checkpoint)


def test_predictions_of_another_number_of_keypoints(trained, run, monkeypatch):
    monkeypatch.setattr(run.model, 'test_step', lambda batch: [short_result(run, batch)])
    with pytest.raises(ValueError, match='must predict the 17 keypoints of the val set, got 5'):
        run.predict([0])


def short_result(run, batch):
    result = batch['data_samples'][0]
    result.pred_instances = result.gt_instances.clone()
    result.pred_instances.keypoints = np.zeros((1, 5, 2))
    result.pred_instances.keypoint_scores = np.ones((1, 5))
    return result


@pytest.mark.parametrize(
    ('change', 'got'),
    [
        ({'default_scope': 'mmdet'}, "default_scope='mmdet'"),
        ({'model': None}, 'no model with a head'),
        ({'val_dataloader': None}, 'no val_dataloader'),
        ({'val_dataloader.dataset.data_mode': 'bottomup'}, "data_mode='bottomup'"),
    ],
)
def test_config_of_something_else(trained, change, got):
    config = copy.deepcopy(trained.config)
    config.merge_from_dict(change)
    with pytest.raises(ValueError, match=f'must be that of a top-down MMPose model.*got {got}'):
        load_config(config)


def test_config_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config must be a file, got '.*none\.py'"):
        load_config(tmp_path / 'none.py')


def test_without_matplotlib(trained, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'matplotlib', None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install mmloss-plugins\[claims\]'):
        draw_predictions(trained.config, trained.checkpoint, tmp_path / 'p.png')
