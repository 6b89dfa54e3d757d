"""Detectors for the tests of pictures: of random weights, or with the maps of their targets."""

from __future__ import annotations

from pathlib import Path

import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmloss_plugins.visualization._detection_run import DetectionRun

CONFIGS = Path(__file__).resolve().parents[2] / 'configs' / 'detection'
CENTERNET = CONFIGS / 'centernet' / 'centernet_mini_tiny-hg_digits-128x128.py'
MMDET = CONFIGS / 'centernet' / 'centernet-mmdet_mini_tiny-hg_digits-128x128.py'
EXTREMENET = CONFIGS / 'extremenet' / 'extremenet_mini_tiny-hg_digits-128x128.py'
FCOS = CONFIGS / 'fcos' / 'fcos-focal_mini_tiny-r18_digits-128x128.py'
LAST = 'iter_1.pth'
# That of the training, without what moves pixels.
PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='mmloss_plugins.AddExtremePoints'),
    dict(type='mmloss_plugins.PackExtremePoints'),
]


def make_run(config: Path, work_dir: Path) -> Path:
    """Write what a training leaves in its work folder, with random weights; return the folder."""
    work_dir.mkdir(parents=True)
    config = Config.fromfile(config)
    config.dump(work_dir / Path(config.filename).name)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(config.model)
    torch.save(dict(state_dict=model.state_dict()), work_dir / LAST)
    (work_dir / 'last_checkpoint').write_text(f'/moved/since/{LAST}')
    return work_dir


def with_targets(run: DetectionRun, peak: float = 0.9) -> DetectionRun:
    """Return ``run`` with a head that gives the targets of each image, scaled to ``peak``."""
    options = dict(run.config.val_dataloader.dataset, test_mode=True)
    options['pipeline'] = PIPELINE
    dataset = DATASETS.build(options)
    head = run.model.bbox_head
    collate, shown = run._batch, []

    def batch(index):
        shown.append(index)
        return collate(index)

    def forward(features):
        truth = dataset[shown[-1]]['data_samples'].gt_instances
        size = tuple(features[-1].shape[-2:])
        target = head.targets([truth], size, (128 / size[1], 128 / size[0]), None)
        logits = {
            name: dict(
                heatmap=torch.logit((peak * maps['heatmap']).clamp(1e-3)),
                **({'offset': offsets(maps, size)} if 'offset' in maps else {}),
            )
            for name, maps in target.items()
        }
        return ([logits],)

    run._batch = batch
    head.forward = forward
    return run


def offsets(maps: dict, size: tuple[int, int]) -> torch.Tensor:
    """Return the map (1, 2, h, w) that has the offset of each object in its cell."""
    found = torch.zeros(2, size[0] * size[1])
    found[:, maps['cell_index'][0]] = maps['offset'][0].T
    return found.view(1, 2, *size)
