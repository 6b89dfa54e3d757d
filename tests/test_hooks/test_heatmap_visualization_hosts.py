"""HeatmapVisualizationHook with whole models: our head, MMPose's, with and without flip test."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from mmengine.evaluator import Evaluator
from mmengine.registry import DefaultScope
from mmpose.registry import MODELS
from mmpose.testing import get_packed_inputs

from tests.test_hooks.toy_pose import Count, record_panels, runner_of


def pose_model(head, **test_cfg):
    with DefaultScope.overwrite_default_scope('mmpose'):
        return MODELS.build(
            dict(
                type='TopdownPoseEstimator',
                data_preprocessor=dict(type='PoseDataPreprocessor'),
                backbone=dict(type='ResNet', depth=18),
                head=dict(head, in_channels=512, deconv_out_channels=None),
                test_cfg=test_cfg,
            )
        )


OURS = dict(
    type='mmloss_plugins.DSNTHead',
    out_channels=3,
    decoder=dict(type='mmloss_plugins.DSNTLabel', input_size=(96, 64)),
)
MMPOSE = dict(
    type='DSNTHead',
    in_featuremap_size=(3, 2),
    num_joints=3,
    loss=dict(
        type='MultipleLossWrapper',
        losses=[dict(type='SmoothL1Loss'), dict(type='JSDiscretLoss')],
    ),
    decoder=dict(type='IntegralRegressionLabel', input_size=(96, 64), heatmap_size=(3, 2), sigma=1),
)


@pytest.mark.parametrize(
    ('head', 'flip_test'), [(OURS, False), (OURS, True), (MMPOSE, False), (MMPOSE, True)]
)
def test_heads_of_ours_and_of_mmpose(tmp_path, monkeypatch, head, flip_test):
    """The mean that is drawn is the position that our head predicts."""
    drawn = record_panels(monkeypatch)
    model = pose_model(copy.deepcopy(head), flip_test=flip_test)
    size = dict(num_keypoints=3, img_shape=(64, 96), input_size=(96, 64), heatmap_size=(3, 2))
    batch = get_packed_inputs(batch_size=4, **size)
    samples = [
        dict(inputs=i, data_samples=s) for i, s in zip(batch['inputs'], batch['data_samples'])
    ]
    for sample in samples:
        sample['data_samples'].set_metainfo(dict(flip_indices=[0, 2, 1]))
    metric = Count()
    options = dict(val_evaluator=Evaluator(metric), hook=dict(num_images=2))
    runner = runner_of(model, tmp_path, samples, **options)
    seen = {}
    metric.compute_metrics = lambda results: seen.update({s['img_id']: s for s in results}) or {}
    runner.val()
    assert sorted(seen) == [0, 1, 2, 3]
    assert len(drawn) == 2
    for number, panels in zip((0, 3), drawn):
        found = seen[number]
        first = found['input_center'] - 0.5 * found['input_scale']
        scale = found['input_scale'] / found['input_size']
        positions = np.stack([panel.mean for panel in panels]) * scale + first
        labels = np.stack([panel.label for panel in panels]) * scale + first
        np.testing.assert_allclose(labels, found['gt_instances']['keypoints'][0], atol=1e-3)
        assert panels[0].heatmap.shape == (2, 3)
        if head is OURS:
            predicted = found['pred_instances']['keypoints'][0]
            np.testing.assert_allclose(positions, predicted, atol=1e-2)
