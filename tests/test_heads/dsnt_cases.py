"""Heads, packed samples and perfect maps that the tests of the DSNT heads share."""

from __future__ import annotations

import numpy as np
import torch
from mmpose.datasets.transforms import GenerateTarget, PackPoseInputs

from mmloss_plugins.registry import MODELS

INPUT, MAP = (64, 48), (16, 12)  # (w, h), so that H != W
CODECS = {
    'centered': dict(type='mmloss_plugins.DSNTLabel', input_size=INPUT),
    'mmpose': dict(type='mmloss_plugins.DSNTLabel', input_size=INPUT, coordinates='mmpose'),
    'host': dict(type='IntegralRegressionLabel', input_size=INPUT, heatmap_size=MAP, sigma=1.0),
}
CODEC = CODECS['centered']


def build(keypoints=3, codec=CODEC, kind='DSNTHead', **options):
    config = dict(
        type=f'mmloss_plugins.{kind}',
        in_channels=8,
        out_channels=keypoints,
        deconv_out_channels=None,
        decoder=codec and dict(codec),
    )
    head = MODELS.build({**config, **options})
    head.init_weights()
    return head


def draw(batch=2, keypoints=3, margin=12):
    """Points (B, 1, K, 2) in pixels of the input, at least ``margin`` from its border."""
    rng = np.random.default_rng(0)
    return rng.uniform(margin, np.array(INPUT) - 1 - margin, (batch, 1, keypoints, 2))


def pack(points, visible=None, codec=CODEC):
    """Samples as the pipeline makes them; points (B, 1, K, 2) in pixels of the input."""
    encode, form = GenerateTarget(encoder=dict(codec)), PackPoseInputs(meta_keys=('flip_indices',))
    visible = np.ones(points.shape[:3]) if visible is None else visible
    samples = []
    for keypoints, flags in zip(points, visible):
        results = dict(
            img=np.zeros((INPUT[1], INPUT[0], 3), np.uint8),
            keypoints=keypoints,
            keypoints_visible=flags.astype(np.float32),
            dataset_keypoint_weights=np.ones(points.shape[2], np.float32),
            flip_indices=list(range(points.shape[2]))[::-1],
        )
        samples.append(form(encode(results))['data_samples'])
    return samples


def features(batch=2, size=MAP, channels=8):
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(batch, channels, size[1], size[0], generator=generator),)


def gaussian_logits(cells, sigma=1.0, size=MAP):
    """Logits (B, K, H, W) of Gaussians around (B, K, 2) places in cells, x first."""
    x, y = torch.arange(size[0]), torch.arange(size[1])
    dx = x - cells[..., 0, None, None]
    dy = y[:, None] - cells[..., 1, None, None]
    return -(dx**2 + dy**2) / (2 * sigma**2)


def cells_of(points, convention):
    """Return the places (B, K, 2) in cells of pixels (B, 1, K, 2) of the input."""
    stride = torch.tensor(INPUT) / torch.tensor(MAP)
    pixels = torch.from_numpy(points[:, 0]).float()
    return (pixels + 0.5) / stride - 0.5 if convention == 'centered' else pixels / stride


def mirrored(points):
    """The keypoints of the mirrored image, in the order of ``flip_indices``."""
    result = points[:, :, ::-1].copy()
    result[..., 0] = INPUT[0] - 1 - result[..., 0]
    return result


def without_layers(head):
    """Let the features be the logits."""
    head.deconv_layers = head.conv_layers = head.final_layer = torch.nn.Identity()
    return head
