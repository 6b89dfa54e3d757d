"""Every pose config loads, builds and takes a step and a prediction on real packed samples."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from mmpose.registry import DATASETS, MODELS
from mmpose.utils import register_all_modules

from mmloss_plugins.codecs import SimCCLabel
from mmloss_plugins.losses import KLDiscretLoss
from tests.faces import LANDMARKS, annotate_faces

CONFIGS = [
    file
    for file in sorted((Path(__file__).parents[2] / 'configs' / 'pose').rglob('*.py'))
    if file.parent.name != 'imbalance'  # no MMPose models: test_imbalance_configs.py
    and 'mpii' not in file.stem  # shrunk: test_dsnt_full_configs.py
]


@pytest.fixture(params=CONFIGS, ids=lambda file: file.stem)
def config(request):
    register_all_modules(init_default_scope=False)
    cfg = Config.fromfile(request.param)
    init_default_scope(cfg.default_scope)
    return cfg


def build_batch(loader, figures, split):
    """Two samples of the figure set through the pipeline of ``loader``."""
    dataset = loader.dataset
    ann_file = f'annotations/figures_{split}.json'
    if dataset.type in LANDMARKS:
        ann_file = annotate_faces(figures, split, dataset.type)
    dataset.update(
        data_root=str(figures),
        ann_file=ann_file,
        data_prefix=dict(img=f'images/{split}/'),
        bbox_file=None,
    )
    built = DATASETS.build(dataset)
    return pseudo_collate([built[0], built[1]])


def build_model(config):
    for part in (config.model, config.model.backbone):
        part.init_cfg = None  # pretrained weights would be downloaded
    model = MODELS.build(config.model)
    model.init_weights()
    return model


def test_takes_a_step_that_reaches_every_parameter(config, figures):
    model = build_model(config)
    batch = model.data_preprocessor(build_batch(config.train_dataloader, figures, 'train'), True)
    total, log = model.parse_losses(model(**batch, mode='loss'))
    total.backward()
    assert torch.isfinite(total)
    assert total > 0
    # The sum that is minimised holds every term once and no diagnostic.
    terms = [value.item() for name, value in log.items() if name.startswith('loss_')]
    assert total.item() == pytest.approx(sum(terms))
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []


def test_predicts_inside_the_box(config, figures):
    model = build_model(config).eval()
    samples = build_batch(config.val_dataloader, figures, 'val')
    with torch.no_grad():
        predictions = model.test_step(samples)
    for prediction in predictions:
        instances = prediction.pred_instances
        centre, scale = prediction.metainfo['input_center'], prediction.metainfo['input_scale']
        num_keypoints = LANDMARKS.get(config.val_dataloader.dataset.type, 17)
        assert instances.keypoints.shape == (1, num_keypoints, 2)
        assert np.isfinite(instances.keypoints).all()
        # MMPose's heatmap decoding reaches up to one cell of the 7x7 maps over the border, and the
        # Newton step of its UDPHeatmap anywhere while the maps are noise.
        if config.model.head.decoder.type != 'UDPHeatmap':
            assert (np.abs(instances.keypoints - centre) <= scale * (1 / 2 + 1 / 7)).all()
        assert np.isfinite(instances.keypoint_scores).all()


def test_simcc_configs_use_our_loss_and_codec(config):
    if config.model.head.type != 'SimCCHead':
        return
    head = build_model(config).head
    assert type(head.loss_module) is KLDiscretLoss
    assert type(head.decoder) is SimCCLabel
    encoder = config.train_dataloader.dataset.pipeline[-2].encoder
    assert encoder == config.model.head.decoder
    assert tuple(head.input_size) == tuple(encoder.input_size)
    assert head.simcc_split_ratio == encoder.simcc_split_ratio


@pytest.fixture
def simcc_config():
    register_all_modules(init_default_scope=True)
    return Config.fromfile(next(f for f in CONFIGS if 'simcc_mini' in f.name))


def first_step(config, figures):
    model = build_model(config)
    batch = model.data_preprocessor(build_batch(config.train_dataloader, figures, 'train'), True)
    return model(**batch, mode='loss')


def test_wrong_bins_stop_at_the_first_batch(simcc_config, figures):
    simcc_config.model.head.simcc_split_ratio = 3.0
    with pytest.raises(ValueError, match=r'target_x must have the 192 bins of pred, got .*128'):
        first_step(simcc_config, figures)


def test_wrong_number_of_keypoints_stops_at_the_first_batch(simcc_config, figures):
    simcc_config.model.head.out_channels = 16
    with pytest.raises(ValueError, match=r"have the 16 keypoints of pred.* Set the head's out_ch"):
        first_step(simcc_config, figures)


@pytest.fixture
def mirror_mouse(monkeypatch):
    beside = Path(__file__).parents[3] / 'shared' / 'datasets' / 'mirror_mouse'
    folder = Path(os.environ.get('MIRROR_MOUSE', beside))
    if not folder.is_dir():
        pytest.skip(f'no real frames: {folder} is absent and MIRROR_MOUSE is not set')
    monkeypatch.setenv('MIRROR_MOUSE', str(folder))


def test_mirror_mouse_config_reads_the_real_frames(mirror_mouse):
    register_all_modules(init_default_scope=True)
    config = Config.fromfile(next(f for f in CONFIGS if 'simcc_mini_tiny-res_mirror' in f.name))
    train, val = (
        DATASETS.build(loader.dataset)
        for loader in (config.train_dataloader, config.val_dataloader)
    )
    assert (len(train), len(val)) == (72, 18)
    assert train.metainfo['keypoint_id2name'][16] == 'obsLow_bot'
    model = build_model(config)
    batch = model.data_preprocessor(pseudo_collate([train[0], train[1]]), True)
    loss = model(**batch, mode='loss')['loss_kpt']
    # Before training the prediction is nearly uniform: log(128) bins less the label's entropy.
    sigma_bins = 2.0
    entropy = np.log(sigma_bins * np.sqrt(2 * np.pi * np.e))
    assert loss.item() == pytest.approx(2 * (np.log(128) - entropy), rel=0.25)
