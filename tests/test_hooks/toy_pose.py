"""A toy pose model with given heatmaps, a val set and a Runner around them."""

from __future__ import annotations

import uuid

import numpy as np
import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.model import BaseModel
from mmengine.structures import InstanceData, PixelData
from mmpose.structures import PoseDataSample
from torch import nn

from mmloss_plugins.hooks import heatmap_visualization
from tests.test_hooks.toys import toy_runner

NAMES = ('nose', 'left_ear', 'right_ear')
HEIGHT, WIDTH = 24, 16


class Samples(list):
    """A val set of black images, each with its number in its first pixel."""

    metainfo = dict(keypoint_id2name=dict(enumerate(NAMES)))

    def __init__(self, num=5):
        super().__init__(self.make(number) for number in range(num))

    @staticmethod
    def make(number):
        image = torch.zeros(3, HEIGHT, WIDTH, dtype=torch.uint8)
        image[:, 0, 0] = number
        size = np.array([WIDTH, HEIGHT])
        meta = dict(img_path=f'{number}.png', input_center=size / 2, input_scale=size)
        sample = PoseDataSample(metainfo=dict(meta, input_size=size))
        sample.gt_instances = InstanceData(
            keypoints=np.array([[[5.5, 8.0], [3.0, 3.0], [9.0, 9.0]]]),
            keypoints_visible=np.array([[1.0, 0.0, 1.0]]),
        )
        return dict(inputs=image, data_samples=sample)


class ToyPose(BaseModel):
    """Gives ``maps`` (K, h, w) for every image, if its test_cfg asks for them."""

    def __init__(self, maps, **test_cfg):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.maps = maps
        self.test_cfg = test_cfg
        self.asked = []

    def forward(self, inputs, data_samples=None, mode='loss'):
        if mode == 'loss':
            return dict(loss_kpt=self.weight.sum())
        self.asked.append(self.test_cfg.get('output_heatmaps'))
        if self.asked[-1] and self.maps is not None:
            for sample in data_samples:
                sample.pred_fields = PixelData()
                sample.pred_fields.set_field(self.maps, 'heatmaps')
        return data_samples


class Count(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results.extend(data_samples)

    def compute_metrics(self, results):
        return dict(count=len(results))


def runner_of(model, work_dir, samples=None, iterations=4, batch_size=2, hook=None, **options):
    name = f'{work_dir.name}-{uuid.uuid4()}'
    loader = dict(
        batch_size=batch_size,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=Samples() if samples is None else samples,
        collate_fn=dict(type='pseudo_collate'),
    )
    backends = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
    arguments = dict(
        iterations=iterations,
        val_dataloader=loader,
        val_evaluator=Evaluator(Count()),
        val_cfg={},
        train_cfg=dict(by_epoch=False, max_iters=iterations, val_interval=2),
        custom_hooks=[dict(type='mmloss_plugins.HeatmapVisualizationHook', **(hook or {}))],
        visualizer=dict(type='Visualizer', vis_backends=backends, name=name),
    )
    return toy_runner(model, work_dir, None, **{**arguments, **options})


def record_panels(monkeypatch):
    """Return a list that gets the panels of every picture, in place of the slow drawing."""
    found = []

    def render(panels, sigmas):
        found.append(panels)
        return np.zeros((4, 4, 3), np.uint8)

    monkeypatch.setattr(heatmap_visualization, 'render', render)
    return found
