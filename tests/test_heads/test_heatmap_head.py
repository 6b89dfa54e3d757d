"""HeatmapHead: the loss gets logits, the codec gets what they mean."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData, PixelData
from mmpose.evaluation.functional import pose_pck_accuracy
from mmpose.models.heads import HeatmapHead as HostHead
from mmpose.structures import PoseDataSample
from torch.testing import assert_close

from mmloss_plugins.heads.heatmap import HeatmapHead, heatmap_pck
from mmloss_plugins.losses import HeatmapMSELoss
from mmloss_plugins.registry import MODELS

INPUT, MAP = (64, 96), (16, 24)  # (w, h), so that H != W
MSRA = dict(type='MSRAHeatmap', input_size=INPUT, heatmap_size=MAP, sigma=2)
CODECS = {
    'msra': MSRA,
    'msra unbiased': {**MSRA, 'unbiased': True},
    'udp': dict(type='UDPHeatmap', input_size=INPUT, heatmap_size=MAP, sigma=2),
}
# Each activation with the losses that it belongs to.
LOSSES = {
    'mse': ('none', dict(type='mmloss_plugins.HeatmapMSELoss')),
    'spatial': ('spatial_softmax', dict(type='mmloss_plugins.SpatialSoftmaxCELoss')),
    'pixel': ('pixel_softmax', dict(type='mmloss_plugins.PixelSoftmaxCELoss')),
    'focal': ('sigmoid', dict(type='mmloss_plugins.SigmoidFocalLoss')),
    'gaussian focal': ('sigmoid', dict(type='mmloss_plugins.GaussianFocalLoss')),
    'host': ('none', dict(type='KeypointMSELoss', use_target_weight=True)),
}
ON_LOGITS = ['spatial', 'pixel', 'focal', 'gaussian focal']


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmpose')


def build(name='mse', keypoints=3, codec=MSRA, **options):
    activation, loss = LOSSES[name]
    head = HeatmapHead(
        in_channels=8,
        out_channels=keypoints,
        deconv_out_channels=None,
        activation=activation,
        loss=dict(loss),
        decoder=dict(codec),
        **options,
    )
    head.init_weights()
    return head


def sample(keypoints, visible, codec):
    """One packed sample as the pipeline makes it; keypoints (K, 2) in pixels of the input."""
    encoded = codec.encode(keypoints[None].astype(np.float32), visible[None].astype(np.float32))
    packed = PoseDataSample(metainfo=dict(flip_indices=list(range(len(keypoints)))[::-1]))
    packed.gt_fields = PixelData(heatmaps=torch.from_numpy(encoded['heatmaps']))
    packed.gt_instance_labels = InstanceData(
        keypoint_weights=torch.from_numpy(encoded['keypoint_weights'])
    )
    return packed


def samples(head, batch=2, keypoints=3, visible=None):
    rng = np.random.default_rng(0)
    visible = np.ones((batch, keypoints)) if visible is None else visible
    return [
        sample(rng.uniform(8, 56, (keypoints, 2)), visible[b], head.decoder) for b in range(batch)
    ]


def features(batch=2):
    return (torch.randn(batch, 8, MAP[1], MAP[0]),)


def planted(head, x, y, peak=-0.5, floor=-9.0):
    """Logits whose map k is highest in the cell nearest to the pixel (x[k], y[k]) of the input.

    All negative, and Gaussian in shape as a trained network's are.
    """
    width, height = MAP
    step = np.array(INPUT) / MAP
    if type(head.decoder).__name__ == 'UDPHeatmap':
        step = (np.array(INPUT) - 1) / (np.array(MAP) - 1)
    columns = torch.arange(width) - torch.tensor(x)[:, None, None] / step[0]
    rows = torch.arange(height)[:, None] - torch.tensor(y)[:, None, None] / step[1]
    bump = torch.exp(-(columns**2 + rows**2) / 8)
    logits = (floor + (peak - floor) * bump)[None].float()
    if head.activation == 'pixel_softmax':
        background = torch.full((1, 1, height, width), -1.5)
        logits = torch.cat([logits, background], 1)
    return logits


def predict_from(head, logits, **test_cfg):
    """Predict as if the layers had returned ``logits``; (keypoints, scores) of the first sample."""
    head.deconv_layers = head.final_layer = torch.nn.Identity()
    head.eval()
    with torch.no_grad():
        predictions = head.predict((logits,), None, test_cfg)
    return predictions[0].keypoints[0], predictions[0].keypoint_scores[0]


# --- training --------------------------------------------------------------------------------


@pytest.mark.parametrize('name', LOSSES)
@pytest.mark.parametrize(('batch', 'keypoints'), [(2, 3), (1, 1), (1, 3)])
def test_loss_on_packed_samples(name, batch, keypoints):
    head = build(name, keypoints)
    losses = head.loss(features(batch), samples(head, batch, keypoints))
    assert set(losses) == {'loss_kpt', 'acc_pose'}
    losses['loss_kpt'].backward()
    assert losses['loss_kpt'] > 0
    assert all(torch.isfinite(p.grad).all() for p in head.parameters())
    assert any((p.grad != 0).any() for p in head.parameters())
    assert 0 <= losses['acc_pose'] <= 1


@pytest.mark.parametrize('name', LOSSES)
def test_invisible_joint_gets_no_gradient(name):
    head = build(name)
    visible = np.array([[1, 0, 1], [1, 0, 1]])
    head.loss(features(), samples(head, visible=visible))['loss_kpt'].backward()
    gradient = head.final_layer.weight.grad
    assert torch.isfinite(gradient).all()
    assert (gradient[0] != 0).any()
    if name == 'pixel':  # its pixels are background, where the logit of the keypoint counts
        assert (gradient[1] != 0).any()
    else:
        assert (gradient[1] == 0).all()


@pytest.mark.parametrize('name', LOSSES)
def test_no_visible_joint(name):
    head = build(name)
    losses = head.loss(features(), samples(head, visible=np.zeros((2, 3))))
    losses['loss_kpt'].backward()
    assert losses['loss_kpt'] == 0
    assert all((p.grad == 0).all() for p in head.parameters())
    assert losses['acc_pose'] == 0


@pytest.mark.parametrize('name', LOSSES)
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
def test_autocast(name, dtype):
    head = build(name)
    feats, packed = features(), samples(head)
    exact = head.loss(feats, packed)['loss_kpt']
    with torch.autocast('cpu', dtype=dtype):
        assert head.logits(feats).dtype == dtype
        loss = head.loss(feats, packed)['loss_kpt']
    loss.backward()
    assert loss.dtype == torch.float32
    assert_close(loss, exact, rtol=0.02, atol=1e-3)
    assert all(torch.isfinite(p.grad).all() for p in head.parameters())


def test_loss_is_that_of_the_stock_head_without_activation():
    head = build('host')
    host = HostHead(
        8, 3, deconv_out_channels=None, loss=dict(LOSSES['host'][1]), decoder=dict(MSRA)
    )
    host.load_state_dict(head.state_dict())
    feats, packed = features(), samples(head)
    assert_close(head.loss(feats, packed)['loss_kpt'], host.loss(feats, packed)['loss_kpt'])
    assert_close(head(feats), host(feats))


def test_the_default_loss_is_ours_in_any_scope():
    head = MODELS.build(dict(type='mmloss_plugins.HeatmapHead', in_channels=8, out_channels=2))
    assert type(head.loss_module) is HeatmapMSELoss
    assert isinstance(head, HostHead)


def test_target_threshold_gives_disks():
    class Recorder(torch.nn.Module):
        def forward(self, pred, target, weight):
            self.target = target
            return pred.sum()

    head = build('focal', target_threshold=0.5)
    packed = samples(head)
    head.loss_module = Recorder()
    head.loss(features(), packed)
    heatmaps = torch.stack([s.gt_fields.heatmaps for s in packed])
    assert_close(head.loss_module.target, (heatmaps >= 0.5).float())
    # Radius 2 sqrt(2 log 2) = 2.35 cells: 21 cells in a disk.
    assert head.loss_module.target.sum((2, 3)).max() == 21


# --- accuracy --------------------------------------------------------------------------------


def test_accuracy_can_be_switched_off():
    head = build(train_accuracy=False)
    assert set(head.loss(features(), samples(head))) == {'loss_kpt'}
    head = build()
    off = head.loss(features(), samples(head), dict(compute_acc=False))
    assert set(off) == {'loss_kpt'}


@pytest.mark.parametrize('name', ON_LOGITS)
def test_accuracy_of_negative_logits(name):
    """The stock head reads them as missing: accuracy 0 for a perfect prediction."""
    head = build(name)
    x, y = np.array([12.0, 40.0, 24.0]), np.array([20.0, 80.0, 52.0])
    packed = [sample(np.stack([x, y], -1), np.ones(3), head.decoder)]
    logits = planted(head, x, y)
    head.deconv_layers = head.final_layer = torch.nn.Identity()
    assert (logits < 0).all()
    assert head.loss((logits,), packed)['acc_pose'] == 1
    moved = planted(head, x + 8, y)
    assert head.loss((moved,), packed)['acc_pose'] == 0


def test_pck_is_that_of_mmpose_on_square_positive_maps():
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(6, 4, 9, 9, generator=generator)
    near = target + 0.1 * torch.rand(target.shape, generator=generator)
    mask = torch.rand(6, 4, generator=generator) > 0.3
    mask[:, 2] = False
    for pred in (target, near, torch.rand(target.shape, generator=generator)):
        _, expected, _ = pose_pck_accuracy(pred.numpy(), target.numpy(), mask.numpy(), thr=0.12)
        assert heatmap_pck(pred, target, mask, thr=0.12).item() == pytest.approx(expected)
    assert 0.2 < heatmap_pck(near, target, mask, thr=0.12) < 1


def test_pck_measures_in_widths_and_heights():
    target, pred = torch.zeros(1, 2, 50, 10), torch.zeros(1, 2, 50, 10)
    target[..., 20, 5] = 1
    pred[0, 0, 22, 5] = 1  # 2 of 50 rows: 0.04
    pred[0, 1, 20, 6] = 1  # 1 of 10 columns: 0.1
    assert heatmap_pck(pred, target) == 0.5
    assert heatmap_pck(pred, target, thr=0.11) == 1
    assert heatmap_pck(pred, torch.zeros_like(target)) == 0


# --- prediction ------------------------------------------------------------------------------


@pytest.mark.parametrize('codec', CODECS)
@pytest.mark.parametrize('name', ON_LOGITS)
def test_planted_peak_is_found_where_every_logit_is_negative(name, codec):
    head = build(name, codec=CODECS[codec])
    x, y = np.array([13.0, 40.0, 30.0]), np.array([22.0, 70.0, 50.0])
    logits = planted(head, x, y)
    assert (logits < 0).all()
    keypoints, scores = predict_from(head, logits)
    # MSRA without DARK is a quarter of a cell (4 px) exact, and half a cell where labels round.
    tolerance = 2.1 if codec == 'msra' else 1.0
    assert_close(keypoints, np.stack([x, y], -1), atol=tolerance, rtol=0, check_dtype=False)
    assert (scores > 0.2).all()
    stock, _ = predict_from(HostHead(8, 3, None, None, decoder=dict(CODECS[codec])), logits[:, :3])
    if codec != 'udp':
        assert (stock < 0).all(), 'the stock head calls them missing'


def test_saturated_half_logits_keep_their_maximum():
    head = build('focal')
    logits = torch.full((1, 3, MAP[1], MAP[0]), 9.0, dtype=torch.float16)
    logits[0, :, 10, 7] = 10.0
    assert (torch.sigmoid(logits) == 1).all()
    keypoints, _ = predict_from(head, logits)
    assert_close(keypoints, np.array([[28.0, 40.0]] * 3), check_dtype=False)


@pytest.mark.parametrize('name', ['mse', *ON_LOGITS])
def test_flip_test_averages_activated_maps(name):
    head = build(name)
    torch.nn.init.normal_(head.final_layer.weight, std=1.0)
    head.eval()
    feats, flipped = features(1), features(1)
    packed = samples(head, 1)
    packed[0].set_metainfo(dict(flip_indices=[1, 0, 2]))
    cfg = dict(flip_test=True, flip_mode='heatmap', output_heatmaps=True)
    with torch.no_grad():
        _, fields = head.predict([feats, flipped], packed, cfg)
        maps, other = head.activate(head.logits(feats)), head.activate(head.logits(flipped))
    expected = (maps + other[:, [1, 0, 2]].flip(-1)) / 2
    assert fields[0].heatmaps.shape == (3, MAP[1], MAP[0])
    assert_close(fields[0].heatmaps, expected[0])


def test_activations_by_hand():
    # One pixel pair, two keypoints: x = (0, log 3) and (log 2, 0), the background at 0.
    logits = torch.tensor([[[0.0, math.log(3)]], [[math.log(2), 0.0]]])[None]
    assert_close(build('mse').activate(logits), logits)
    expected = torch.tensor([[[1 / 2, 3 / 4]], [[2 / 3, 1 / 2]]])[None]
    assert_close(build('focal', 2).activate(logits), expected)
    expected = torch.tensor([[[1 / 4, 3 / 4]], [[2 / 3, 1 / 3]]])[None]
    assert_close(build('spatial', 2, score_scale=1.0).activate(logits), expected)
    assert_close(build('spatial', 2, score_scale=3.0).activate(logits), 3 * expected)
    with_background = torch.cat([logits, torch.zeros(1, 1, 1, 2)], 1)
    expected = torch.tensor([[[1 / 4, 3 / 5]], [[2 / 4, 1 / 5]]])[None]
    assert_close(build('pixel', 2).activate(with_background), expected)


@pytest.mark.parametrize('codec', CODECS)
def test_spatial_softmax_equal_to_its_label_scores_one(codec):
    head = build('spatial', 1, codec=CODECS[codec])
    label = samples(head, 1, 1)[0].gt_fields.heatmaps[None]
    assert head.score_scale == pytest.approx(2 * math.pi * 4, rel=0.04)  # 2 pi sigma^2
    maps = head.activate(label.clamp(min=1e-30).log())
    assert maps.max().item() == pytest.approx(1, abs=0.05)


def test_score_scale_of_one_hot_labels_and_without_decoder():
    one_hot = dict(type='mmloss_plugins.SpatialSoftmaxCELoss', label='one_hot')
    options = dict(activation='spatial_softmax', deconv_out_channels=None)
    assert HeatmapHead(8, 3, loss=one_hot, decoder=dict(MSRA), **options).score_scale == 1
    soft = dict(type='mmloss_plugins.SpatialSoftmaxCELoss')
    assert HeatmapHead(8, 3, loss=soft, **options).score_scale == 1
    assert HeatmapHead(8, 3, loss=soft, decoder=dict(MSRA), **options).score_scale > 20


# --- construction ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('name', 'options', 'bias'),
    [
        ('focal', {}, -math.log(99)),
        ('focal', {'prior_prob': 0.1}, -math.log(9)),
        ('focal', {'prior_prob': 0.5}, 0.0),
        ('mse', {}, 0.0),
        ('spatial', {}, 0.0),
    ],
)
def test_prior(name, options, bias):
    head = build(name, **options)
    assert_close(head.final_layer.bias.detach(), torch.full((3,), bias))
    if name == 'focal':
        expected = options.get('prior_prob', 0.01)
        assert head(features()).mean().item() == pytest.approx(expected, rel=0.01)


def test_prior_leaves_a_pretrained_bias_alone(tmp_path):
    head = build('focal')
    torch.nn.init.constant_(head.final_layer.bias, 3.0)
    torch.save(dict(state_dict=head.state_dict()), tmp_path / 'head.pth')
    loaded = build('focal', init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'head.pth')))
    assert (loaded.final_layer.bias == 3).all()


def test_background_channel_is_added():
    head = build('pixel')
    assert head.out_channels == 3
    assert head.final_layer.out_channels == 4
    assert head.logits(features()).shape == (2, 4, 24, 16)
    assert head(features()).shape == (2, 3, 24, 16)


@pytest.mark.parametrize(
    ('name', 'options', 'text'),
    [
        ('focal', {'prior_prob': 1.0}, 'prior_prob must lie between 0 and 1, got 1.0'),
        ('spatial', {'prior_prob': 0.1}, "prior_prob must be None without activation='sigmoid'"),
        ('focal', {'final_layer': dict(bias=False)}, 'must have a bias of final_layer'),
        ('focal', {'final_layer': None}, 'must have a bias of final_layer'),
        ('focal', {'target_threshold': 1.5}, r'target_threshold must lie in \(0, 1\]'),
        ('spatial', {'score_scale': -1.0}, 'score_scale must be positive'),
    ],
)
def test_mistakes_in_a_config_stop_at_construction(name, options, text):
    with pytest.raises(ValueError, match=text):
        build(name, **options)


def test_unknown_activation():
    with pytest.raises(ValueError, match=r"got 'softmax'.*activation|activation must be one of"):
        HeatmapHead(8, 3, activation='softmax')


# --- export ----------------------------------------------------------------------------------


@pytest.mark.parametrize('name', ['mse', *ON_LOGITS])
def test_exports_the_maps_that_the_decoder_reads(name):
    head = build(name).eval()
    feats = features()
    expected = head(feats)
    exported = torch.export.export(head, (feats,)).module()
    assert_close(exported(feats), expected)
    traced = torch.jit.trace(head, (feats,), check_trace=False)
    other = features()
    assert_close(traced(other), head(other))
