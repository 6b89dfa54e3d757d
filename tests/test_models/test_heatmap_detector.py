"""HeatmapDetector: what it trains and returns, mirrored images, scales, what it refuses."""

from __future__ import annotations

import pytest
import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS as ROOT
from torch.nn.functional import avg_pool2d
from torch.testing import assert_close

from mmloss_plugins.registry import MODELS
from tests.test_heads.centernet_cases import INPUT, MAP, sample, samples, stirred

pytestmark = pytest.mark.usefixtures('mmdet_scope')
CHANNELS = 4
FLIP = dict(flip_test=True)
NMS = dict(type='soft_nms', iou_threshold=0.5, method='gaussian', min_score=0.01)


@ROOT.register_module(name='PooledColours', force=True)
class PooledColours(BaseModule):
    """Means over 4 px times 5 px and a bias: no padding, so that mirrored images are the same."""

    def __init__(self, maps=1):
        super().__init__()
        self.maps = maps
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, images):
        found = self.scale * avg_pool2d(images, (4, 5))
        return (torch.cat((found, torch.ones_like(found[:, :1])), 1),) * self.maps


def build(backbone=None, head=None, **options):
    config = dict(
        type='mmloss_plugins.HeatmapDetector',
        backbone=dict(type='PooledColours', **(backbone or {})),
        bbox_head={
            'type': 'mmloss_plugins.CenterNetHead',
            'in_channels': CHANNELS,
            'feat_channels': 6,
            'num_classes': 3,
            **(head or {}),
        },
    )
    model = ROOT.build({**config, **options})
    model.init_weights()
    return model


def images(batch=2, size=INPUT):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(batch, 3, *size, generator=generator)


def symmetric(model):
    """Let the head be one that gives mirrored maps for mirrored images."""
    with torch.no_grad():
        for name, branch in model.bbox_head.stacks[-1].items():
            branch[0].weight.copy_((branch[0].weight + branch[0].weight.flip(-1)) / 2)
            if name == 'offset':
                # x of a centre is 1 - x in the mirrored image; only the middle is both.
                branch[-1].weight[0] = 0
                branch[-1].bias[0] = 0.5
    return model


def predict(model, inputs, batch, **options):
    model.eval()
    with torch.no_grad():
        return [each.pred_instances for each in model.predict(inputs, batch, **options)]


# --- modes ------------------------------------------------------------------------------------


def test_a_step():
    model = stirred(build(head=dict(num_stacks=2), backbone=dict(maps=2)))
    losses = model(images(), samples(), mode='loss')
    assert list(losses) == ['loss_heatmap', 'loss_offset', 'loss_size']
    sum(losses.values()).backward()
    assert all(each.grad.abs().sum() > 0 for each in model.parameters())


def test_tensor_mode_gives_the_maps():
    model = build()
    (stacks,) = model(images(), mode='tensor')
    channels = {name: maps.shape[1] for name, maps in stacks[0].items()}
    assert channels == {'heatmap': 3, 'offset': 2, 'size_wh': 2}
    assert all(maps.shape[2:] == MAP for maps in stacks[0].values())


def test_without_options_it_is_the_single_stage_detector():
    model = stirred(build())
    batch = samples(scale_factor=(0.5, 2.0), border=[4.0, 60.0, 8.0, 90.0])
    for rescale in (True, False):
        found = predict(model, images(), batch, rescale=rescale)
        expected = model.bbox_head.predict(model.extract_feat(images()), batch, rescale=rescale)
        for one, other in zip(found, expected):
            assert_close(one.bboxes, other.bboxes)
            assert_close(one.scores, other.scores)
            assert (one.labels == other.labels).all()


def test_a_pretrained_detector_keeps_its_head(tmp_path):
    trained = stirred(build())
    torch.save({'state_dict': trained.state_dict()}, tmp_path / 'model.pth')
    model = build(init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'model.pth')))
    assert_close(dict(model.named_parameters()), dict(trained.named_parameters()))
    assert model.bbox_head.stacks[0]['heatmap'][-1].bias.std() > 0.01


# --- mirrored images --------------------------------------------------------------------------


def test_a_flip_test_of_a_symmetric_model_changes_nothing():
    model, mirrored = symmetric(stirred(build())), symmetric(stirred(build(test_cfg=FLIP)))
    mirrored.load_state_dict(model.state_dict())
    found, expected = (predict(each, images(), samples()) for each in (mirrored, model))
    for one, other in zip(found, expected):
        assert len(one) > 20
        assert_close(one.scores, other.scores)
        assert_close(one.bboxes, other.bboxes, rtol=1e-5, atol=1e-3)
        assert (one.labels == other.labels).all()


def test_a_flip_test_is_the_mean_of_both_maps():
    model = stirred(build(test_cfg=FLIP))
    found = predict(model, images(), samples())
    with torch.no_grad():
        maps, other = (model(each, mode='tensor')[0][0] for each in (images(), images().flip(-1)))
    heatmap = (maps['heatmap'].sigmoid() + other['heatmap'].sigmoid().flip(-1)) / 2
    size = (maps['size_wh'] + other['size_wh'].flip(-1)) / 2
    joined = dict(heatmap=heatmap.logit(), offset=maps['offset'], size_wh=size)
    metas = [each.metainfo for each in samples()]
    expected = model.bbox_head.predict_by_feat([joined], metas)
    plain = model.bbox_head.predict_by_feat([maps], metas)
    for one, both, single in zip(found, expected, plain):
        assert_close(one.scores, both.scores, rtol=1e-5, atol=0)
        assert_close(one.bboxes, both.bboxes, rtol=1e-4, atol=1e-3)
        assert (one.scores[:5] - single.scores[:5]).abs().max() > 1e-3


def test_a_flip_test_does_not_mix_up_images():
    model = stirred(build(test_cfg=FLIP))
    both = predict(model, images(), samples())
    second = predict(model, images()[1:], samples()[1:])
    assert_close(both[1].bboxes, second[0].bboxes, rtol=1e-5, atol=1e-4)


# --- scales -----------------------------------------------------------------------------------


def squares(size):
    """An image whose brightest cell is (row 4, column 8) at every scale, and its box."""
    found = torch.zeros(1, 3, *size)
    height, width = size[0] // 16, size[1] // 24
    found[:, 0, 4 * height : 6 * height, 8 * width : 10 * width] = 1
    return found, [8.0 * width, 4.0 * height, 10.0 * width, 6.0 * height]


def square_finder(**options):
    """A model that finds the centre of a bright square of two cells, whatever the scale.

    The heatmap is the sum over 3x3 cells of the red channel.
    """
    model = build(head=dict(feat_channels=1, num_classes=1), **options)
    stack = model.bbox_head.stacks[0]
    with torch.no_grad():
        for each in model.bbox_head.parameters():
            each.zero_()
        stack['heatmap'][0].weight[:, 0] = 1
        stack['heatmap'][-1].weight.fill_(2.0)
        stack['heatmap'][-1].bias.fill_(-6.0)
        stack['offset'][-1].bias.fill_(0.5)
        # In cells at scale 1: twice as many at scale 2, which the scale of the map undoes.
        stack['size_wh'][-1].bias.fill_(2.0)
    return model


@pytest.mark.parametrize('scale', [0.5, 1.0, 1.5, 2.0])
def test_boxes_of_every_scale_are_in_px_of_the_input(scale):
    size = (128, 240)  # strides of 4 and 5 px; 64 x 120 at half of it
    inputs, (x1, y1, x2, y2) = squares(size)
    model = square_finder(test_cfg=dict(scales=[scale], size_divisor=4, score_thr=0.3))
    (found,) = predict(model, inputs, [sample(size=size)])
    centres = (found.bboxes[:, :2] + found.bboxes[:, 2:]) / 2
    expected = torch.tensor([(x1 + x2) / 2, (y1 + y2) / 2])
    # Cells of 5 x 4 px at scale 1; the best centre is at most one cell off.
    cell = torch.tensor([5.0, 4.0]) / scale
    assert ((centres[0] - expected).abs() <= cell).all()
    # Two cells of each scale.
    assert_close(found.bboxes[0, 2:] - found.bboxes[0, :2], 2 * cell, rtol=1e-3, atol=1e-3)


def test_sizes_are_rounded_to_the_divisor_and_boxes_keep_their_place(monkeypatch):
    seen = []
    model = stirred(build(test_cfg=dict(scales=[0.7], size_divisor=20)))
    monkeypatch.setattr(
        model, 'extract_feat', lambda x: seen.append(tuple(x.shape)) or model.backbone(x)
    )
    predict(model, images(), samples())
    # 64 * 0.7 = 44.8 and 120 * 0.7 = 84
    assert seen == [(2, 3, 40, 80)]


def test_scales_are_joined_before_soft_nms():
    size = (128, 240)
    inputs, _ = squares(size)
    options = dict(size_divisor=4, score_thr=0.3, nms=NMS)
    single = []
    for scale in (1.0, 2.0):
        model = square_finder(test_cfg=dict(scales=[scale], **options))
        single += predict(model, inputs, [sample(size=size)])
    both = square_finder(test_cfg=dict(scales=[1.0, 2.0], **options))
    (found,) = predict(both, inputs, [sample(size=size)])
    assert found.scores[0] == max(each.scores[0] for each in single)
    assert len(found) > max(len(each) for each in single)
    # Sorted, and no box twice with its full score.
    assert (found.scores.diff() <= 0).all()
    with torch.no_grad():
        scores = torch.cat([both._detect(inputs, scale)['scores'] for scale in (1.0, 2.0)])
    assert found.scores.sum() < scores[scores > 0.3].sum() - 0.1


# --- bad configs ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('test_cfg', 'error', 'text'),
    [
        (dict(scales=()), ValueError, r'scales must be positive numbers, got \(\)'),
        (dict(scales=(1, 0)), ValueError, r'scales must be positive numbers, got \(1, 0\)'),
        (dict(scales=1.5), TypeError, 'scales must be a sequence, got 1.5'),
        (dict(scales='1'), TypeError, "scales must be a sequence, got '1'"),
        (dict(scales=(1, 2)), ValueError, 'nms must be set to join several scales, got None. Set'),
        (dict(flip_test='horizontal'), TypeError, "flip_test must be a bool, got 'horizontal'"),
        (dict(size_divisor=0), ValueError, 'size_divisor must be an integer >= 1, got 0'),
        (dict(flip_tests=True), TypeError, "test_cfg: argument must .* got 'flip_tests'"),
    ],
)
def test_bad_test_options(test_cfg, error, text):
    with pytest.raises(error, match=text):
        build(test_cfg=test_cfg)


def test_another_head():
    head = dict(type='mmdet.CenterNetHead')
    with pytest.raises(TypeError, match=r'bbox_head must be CenterNetHead or .* got CenterNetHead'):
        build(head=head)


def test_number_of_features_and_stacks():
    model = build(backbone=dict(maps=2))
    with pytest.raises(ValueError, match=r'x must be num_stacks=1 feature maps, got 2. Set num'):
        model(images(), samples(), mode='loss')


def test_registered():
    kind = MODELS.get('mmloss_plugins.HeatmapDetector')
    assert kind.__module__ == 'mmloss_plugins.models.heatmap_detector'
