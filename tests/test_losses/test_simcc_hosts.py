"""KLDiscretLoss inside MMPose's own heads and configs."""

from __future__ import annotations

from pathlib import Path

import mmpose
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import OptimWrapper
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from mmpose.models.losses import KLDiscretLoss as HostLoss
from mmpose.registry import KEYPOINT_CODECS, MODELS
from mmpose.structures import PoseDataSample

from mmloss_plugins.losses import KLDiscretLoss

OURS = 'mmloss_plugins.KLDiscretLoss'
CONFIGS = Path(mmpose.__file__).parent / '.mim/configs/body_2d_keypoint'
SIMCC = CONFIGS / 'simcc/coco/simcc_res50_8xb64-210e_coco-256x192.py'
RTMPOSE = CONFIGS / 'rtmpose/coco/rtmpose-s_8xb256-420e_coco-256x192.py'
INPUT_SIZE = (64, 96)
K = 5


@pytest.fixture(autouse=True)
def mmpose_scope():
    with DefaultScope.overwrite_default_scope('mmpose'):
        yield


def packed_samples(codec, size=3, keypoints=K):
    """Return samples as the pipeline packs them: one person, some joints not visible."""
    rng = np.random.default_rng(0)
    encoder = KEYPOINT_CODECS.build(codec)
    samples = []
    for index in range(size):
        points = rng.uniform((4, 4), np.array(INPUT_SIZE) - 5, (1, keypoints, 2))
        visible = (np.arange(keypoints)[None] != index).astype(np.float32)
        encoded = encoder.encode(keypoints=points.astype(np.float32), keypoints_visible=visible)
        labels = {name: torch.as_tensor(value) for name, value in encoded.items()}
        sample = PoseDataSample(
            metainfo=dict(flip_indices=list(range(keypoints)), input_size=INPUT_SIZE)
        )
        sample.gt_instance_labels = InstanceData(**labels)
        sample.gt_instances = InstanceData(bboxes=np.array([[0, 0, *INPUT_SIZE]], np.float32))
        samples.append(sample)
    return samples


def simcc_codec(scope, **options):
    return dict(
        type=f'{scope}.SimCCLabel',
        input_size=INPUT_SIZE,
        sigma=3.0,
        **{'simcc_split_ratio': 2.0, **options},
    )


def head_config(name, loss, codec):
    return dict(
        type=name,
        in_channels=8,
        out_channels=K,
        input_size=INPUT_SIZE,
        in_featuremap_size=(2, 3),
        simcc_split_ratio=2.0,
        loss=loss,
        decoder=codec,
        **(dict(deconv_out_channels=None) if name == 'SimCCHead' else {}),
    )


LOSSES = {
    'SimCCHead': dict(use_target_weight=True),
    'RTMCCHead': dict(use_target_weight=True, beta=10.0, label_softmax=True),
}


@pytest.mark.parametrize('scope', ['mmpose', 'mmloss_plugins'])
@pytest.mark.parametrize('name', LOSSES)
def test_stock_head_trains_with_our_loss(name, scope):
    codec = simcc_codec(scope)
    head = MODELS.build(head_config(name, dict(type=OURS, **LOSSES[name]), codec))
    assert type(head.loss_module) is KLDiscretLoss
    feats = (torch.randn(3, 8, 3, 2),)
    samples = packed_samples(codec)
    losses = head.loss(feats, samples)
    assert set(losses) == {'loss_kpt', 'acc_pose'}
    losses['loss_kpt'].backward()
    slopes = [parameter.grad for parameter in head.parameters() if parameter.grad is not None]
    assert len(slopes) >= 4
    assert all(torch.isfinite(slope).all() for slope in slopes)
    assert any((slope != 0).any() for slope in slopes)
    head.loss_module = HostLoss(**LOSSES[name])
    theirs = head.loss(feats, samples)['loss_kpt']
    torch.testing.assert_close(theirs, losses['loss_kpt'] * len(samples), rtol=1e-5, atol=0)


@pytest.mark.parametrize('name', LOSSES)
def test_loss_of_the_head_falls(name):
    codec = simcc_codec('mmpose')
    loss = dict(type=OURS, bin_reduction='sum', **LOSSES[name])
    head = MODELS.build(head_config(name, loss, codec))
    feats, samples = (torch.randn(3, 8, 3, 2),), packed_samples(codec)
    optimizer = torch.optim.Adam(head.parameters(), lr=3e-2)
    values = []
    for _ in range(25):
        optimizer.zero_grad()
        value = head.loss(feats, samples)['loss_kpt']
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.5 * values[0], values


def stock_model(file, loss_type, **loss_options):
    """Build the model of a stock config at a small input size, without pretrained weights."""
    config = Config.fromfile(file)
    config.model.head.loss.type = loss_type
    config.model.head.loss.update(loss_options)
    config.model.backbone.init_cfg = None
    config.codec.input_size = INPUT_SIZE
    config.model.head.input_size = INPUT_SIZE
    config.model.head.in_featuremap_size = tuple(side // 32 for side in INPUT_SIZE)
    config.model.head.decoder = config.codec
    return revert_sync_batchnorm(MODELS.build(config.model)), config.codec


@pytest.mark.parametrize('file', [SIMCC, RTMPOSE], ids=lambda file: file.stem.split('_')[0])
def test_stock_config_switches_by_its_type_alone(file):
    model, codec = stock_model(file, OURS)
    loss = model.head.loss_module
    assert type(loss) is KLDiscretLoss
    w, h = INPUT_SIZE
    samples = packed_samples(codec, size=2, keypoints=17)
    images = [torch.randint(0, 256, (3, h, w), dtype=torch.uint8) for _ in samples]
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    before = [parameter.detach().clone() for parameter in model.head.parameters()]
    logged = model.train().train_step(dict(inputs=images, data_samples=samples), wrapper)
    assert torch.isfinite(logged['loss'])
    assert logged['loss'] == logged['loss_kpt'] > 0
    moved = [(old != new).any() for old, new in zip(before, model.head.parameters())]
    assert all(moved)


@pytest.mark.parametrize('file', [SIMCC, RTMPOSE], ids=lambda file: file.stem.split('_')[0])
def test_stock_config_with_the_scale_of_mmpose_gives_the_same_loss(file):
    model, codec = stock_model(file, OURS, scale='mmpose')
    samples = packed_samples(codec, size=2, keypoints=17)
    channels = Config.fromfile(file).model.head.in_channels
    w, h = INPUT_SIZE
    feats = (torch.randn(2, channels, h // 32, w // 32),)
    ours = model.head.loss(feats, samples)['loss_kpt']
    options = {k: v for k, v in Config.fromfile(file).model.head.loss.items() if k != 'type'}
    model.head.loss_module = HostLoss(**options)
    theirs = model.head.loss(feats, samples)['loss_kpt']
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)


def test_codec_with_another_split_ratio_is_reported():
    head = MODELS.build(head_config('SimCCHead', dict(type=OURS), simcc_codec('mmpose')))
    samples = packed_samples(simcc_codec('mmpose', simcc_split_ratio=3.0))
    with pytest.raises(
        ValueError, match=r'must have the 128 bins of pred, got .*Give head and codec the same'
    ):
        head.loss((torch.randn(3, 8, 3, 2),), samples)


def test_data_with_another_number_of_keypoints_is_reported():
    codec = simcc_codec('mmpose')
    head = MODELS.build(head_config('SimCCHead', dict(type=OURS), codec))
    with pytest.raises(ValueError, match=rf"must have the {K} keypoints.*Set the head's out_chan"):
        head.loss((torch.randn(3, 8, 3, 2),), packed_samples(codec, keypoints=7))


def test_misspelt_argument_in_a_config_is_reported():
    loss = dict(type=OURS, use_target_wieght=True)
    with pytest.raises(TypeError, match="Did you mean 'use_target_weight'"):
        MODELS.build(head_config('SimCCHead', loss, simcc_codec('mmpose')))
