"""SigmoidFocalLoss where MMDetection's FocalLoss stands: value, gradient, normalisers."""

from __future__ import annotations

import copy

import pytest
import torch
from mmdet.models.losses import CrossEntropyLoss, FocalLoss
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import nn
from torch.nn.functional import one_hot
from torch.testing import assert_close

from mmloss_plugins.losses import SigmoidFocalLoss

C = 5
SIZE = (64, 96)  # (h, w), so that H != W
STRIDES = (8, 16, 32)
BOXES = torch.tensor([[4.0, 4.0, 40.0, 36.0], [20.0, 8.0, 60.0, 60.0], [61.0, 30.0, 90.0, 62.0]])
LABELS = torch.tensor([0, C - 1, 2])
# Which of the boxes each image has.
BATCHES = {'objects': ([0, 1], [2]), 'one image without': ([0, 1, 2], []), 'none': ([], [])}

LOSS = dict(
    type='mmloss_plugins.SigmoidFocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.5
)
HEADS = {
    'FCOSHead': dict(strides=STRIDES, regress_ranges=((-1, 16), (16, 32), (32, 1e8))),
    'RetinaHead': dict(
        anchor_generator=dict(
            type='AnchorGenerator',
            octave_base_scale=4,
            scales_per_octave=2,
            ratios=[0.5, 1.0],
            strides=STRIDES,
        ),
        bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
        train_cfg=ConfigDict(
            assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0),
            sampler=dict(type='PseudoSampler'),
            allowed_border=-1,
            pos_weight=-1,
            debug=False,
        ),
    ),
}

pytestmark = pytest.mark.usefixtures('mmdet_scope')


def build(name, prefix='', **loss):
    config = dict(num_classes=C, in_channels=8, feat_channels=8, stacked_convs=1, norm_cfg=None)
    options = {**LOSS, **loss}
    head = MODELS.build({'type': prefix + name, **config, **HEADS[name], 'loss_cls': options})
    head.init_weights()
    return head


def samples(batch):
    found = []
    for chosen in batch:
        sample = DetDataSample(
            metainfo=dict(img_shape=SIZE, batch_input_shape=SIZE, pad_shape=SIZE, scale_factor=1.0)
        )
        sample.gt_instances = InstanceData(bboxes=BOXES[chosen], labels=LABELS[chosen])
        found.append(sample)
    return found


def features(images=2):
    return [torch.randn(images, 8, SIZE[0] // s, SIZE[1] // s) for s in STRIDES]


def total(losses):
    return sum(sum(value) if isinstance(value, list) else value for value in losses.values())


def trained(head, feats, batch):
    """Return the terms and the gradient of every parameter."""
    head.zero_grad()
    losses = head.loss(feats, samples(batch))
    total(losses).backward()
    slopes = {key: p.grad.clone() for key, p in head.named_parameters() if p.grad is not None}
    return losses, slopes


@pytest.mark.parametrize('batch', BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize('name', HEADS)
def test_stock_heads_train_as_with_their_own_loss(name, batch):
    head, feats = build(name), features()
    assert type(head.loss_cls) is SigmoidFocalLoss
    # The heads read use_sigmoid from the config: without it there would be one more channel.
    assert head.cls_out_channels == C
    ours = trained(head, feats, batch)
    head.loss_cls = FocalLoss(gamma=2.0, alpha=0.25, loss_weight=1.5)
    theirs = trained(head, feats, batch)
    assert_close(ours, theirs)
    assert (ours[1]['conv_cls.bias' if name == 'FCOSHead' else 'retina_cls.bias'] != 0).all()


@pytest.mark.parametrize('name', HEADS)
def test_a_config_needs_nothing_but_another_type(name):
    config = ConfigDict(bbox_head=dict(type=name, num_classes=C, in_channels=8, **HEADS[name]))
    theirs = dict(type='FocalLoss', use_sigmoid=True, gamma=1.5, alpha=0.4, loss_weight=2.0)
    config.bbox_head.loss_cls = theirs
    stock = MODELS.build(copy.deepcopy(config.bbox_head)).loss_cls
    config.bbox_head.loss_cls.type = 'mmloss_plugins.SigmoidFocalLoss'
    ours = MODELS.build(config.bbox_head).loss_cls
    logits, labels = torch.randn(7, C), torch.randint(C + 1, (7,))
    assert_close(ours(logits, labels, avg_factor=3.0), stock(logits, labels, avg_factor=3.0))


@pytest.mark.parametrize('name', HEADS)
@pytest.mark.parametrize('loss', ['FocalLoss', 'mmloss_plugins.SigmoidFocalLoss'])
def test_heads_add_a_channel_where_the_config_leaves_use_sigmoid_out(loss, name):
    """What the docstring warns of."""
    options = dict(num_classes=C, in_channels=8, loss_cls=dict(type=loss))
    head = MODELS.build({'type': name, **options, **HEADS[name], 'norm_cfg': None})
    assert head.cls_out_channels == C + 1


@pytest.mark.parametrize('name', HEADS)
def test_predictions_do_not_depend_on_the_class_of_the_loss(name):
    head, feats = build(name).eval(), features()
    if name == 'FCOSHead':
        nn.init.zeros_(head.conv_cls.bias)
    else:
        nn.init.zeros_(head.retina_cls.bias)
    config = ConfigDict(
        nms_pre=100,
        min_bbox_size=0,
        score_thr=0.05,
        nms=dict(type='nms', iou_threshold=0.6),
        max_per_img=10,
    )
    head.test_cfg = config
    with torch.no_grad():
        ours = head.predict(feats, samples(BATCHES['objects']), rescale=False)
        head.loss_cls = FocalLoss()
        theirs = head.predict(feats, samples(BATCHES['objects']), rescale=False)
    for mine, other in zip(ours, theirs):
        assert len(mine) == 10
        assert_close(mine.bboxes, other.bboxes)
        assert_close(mine.scores, other.scores)
        assert (mine.labels == other.labels).all()


# --- the loss alone ---------------------------------------------------------------------------


def value_and_gradient(loss, pred, *args, **options):
    pred = pred.detach().clone().requires_grad_()
    value = loss(pred, *args, **options)
    return value.detach(), torch.autograd.grad(value.sum() * 0.7, pred)[0]


def points(count=40):
    """Logits, some of them far out, and labels of which about half are background."""
    logits = 4 * torch.randn(count, C)
    logits[0, 0], logits[1, 1] = 60.0, -60.0
    labels = torch.randint(C, (count,))
    labels[torch.rand(count) < 0.5] = C
    return logits, labels


@pytest.mark.parametrize('alpha', [0.25, 0.75])
@pytest.mark.parametrize('gamma', [0.0, 1.0, 2.0])
def test_value_and_gradient_of_the_host(gamma, alpha):
    logits, labels = points()
    options = dict(gamma=gamma, alpha=alpha, loss_weight=2.0)
    ours, theirs = SigmoidFocalLoss(**options), FocalLoss(**options)
    weight = torch.rand(len(labels))
    weight[::5] = 0
    calls = [
        dict(),
        dict(avg_factor=7.0),
        dict(avg_factor=torch.tensor(7.0)),
        dict(weight=weight, avg_factor=7.0),
        dict(weight=weight, reduction_override='sum'),
        dict(weight=weight[:, None] * torch.ones(C), avg_factor=7.0),
        dict(reduction_override='none'),
    ]
    for call in calls:
        mine = value_and_gradient(ours, logits, labels, **call)
        assert_close(mine, value_and_gradient(theirs, logits, labels, **call))
    background = torch.full_like(labels, C)
    mine = value_and_gradient(ours, logits, background, avg_factor=1.0)
    assert_close(mine, value_and_gradient(theirs, logits, background, avg_factor=1.0))
    assert (mine[1] > 0).any()


def test_without_gamma_and_alpha_it_is_the_cross_entropy_of_the_host():
    logits, labels = points()
    ours = SigmoidFocalLoss(gamma=0.0, alpha=None)
    target = one_hot(labels, C + 1)[:, :C].float()
    theirs = CrossEntropyLoss(use_sigmoid=True)
    mine = value_and_gradient(ours, logits, labels, avg_factor=9.0)
    assert_close(mine, value_and_gradient(theirs, logits, target, avg_factor=9.0))


# The worked example of the source: 4 points of 5 classes, of which two are background. Its third
# value is that of target 0; the sum of the first row with the right one, .0089, is .8346, those of
# the others are 1.0070, 1.2866 and .9456 from the printed values.
EXAMPLE = torch.tensor(
    [
        [0.1, 0.2, 0.8, 0.4, 0.4],
        [0.9, 0.6, 0.2, 0.3, 0.5],
        [0.6, 0.2, 0.3, 0.4, 0.6],
        [0.1, 0.3, 0.1, 0.2, 0.4],
    ]
)
EXAMPLE_LABELS = torch.tensor([2, 0, C, C])


def test_worked_example_over_all_positives():
    logits, labels = EXAMPLE, EXAMPLE_LABELS
    rows = SigmoidFocalLoss(reduction='none')(logits, labels).sum(1)
    printed = torch.tensor([0.8346, 1.0070, 1.2866, 0.9456])
    assert_close(rows, printed, rtol=0, atol=2e-4)
    # Two positives.
    expected = torch.tensor(2.0369)
    for found in (
        SigmoidFocalLoss()(logits, labels, avg_factor=2.0),
        SigmoidFocalLoss(mean_over='positives')(logits, labels),
    ):
        assert_close(found, expected, rtol=0, atol=2e-4)


def test_worked_example_image_by_image():
    # Two images of two points: (.8346 + 1.0070) / 2 positives and (1.2866 + .9456) / 1, as the
    # second has none; their mean.
    logits = EXAMPLE.view(2, 2, C).transpose(1, 2)
    loss = SigmoidFocalLoss(mean_over='positives_per_image')
    found = loss(logits, EXAMPLE_LABELS.view(2, 2))
    assert_close(found, torch.tensor(1.5765), rtol=0, atol=2e-4)


def test_point_without_an_object_counts_in_full():
    # The source prints 1.1794 for it, divided by one positive, as there is none.
    logits = torch.tensor([[0.2, 0.4, 0.1, 0.8, 0.2]])
    labels = torch.tensor([C])
    for loss in (
        SigmoidFocalLoss(mean_over='positives')(logits, labels),
        SigmoidFocalLoss()(logits, labels, avg_factor=0.0),
        SigmoidFocalLoss(mean_over='positives_per_image')(logits[..., None], labels[:, None]),
    ):
        assert_close(loss, torch.tensor(1.1794), rtol=0, atol=1e-4)


BCE = dict(alpha=None, gamma=0.0)
A75, A25 = dict(alpha=0.75, gamma=0.0), dict(alpha=0.25, gamma=0.0)


@pytest.mark.parametrize(
    ('options', 'prior', 'positives', 'percent', 'per_positive'),
    [
        # 94 of 10,000 decisions at p = .01; the slope of BCE is 1 - p = .99 and p = .01:
        # 94 * .99 = 93.06 to 9906 * .01 = 99.06, 192.12 in all.
        (BCE, 0.01, 94, 48.44, 2.0438),
        # Times .75 and .25: 69.795 to 24.765; times .25 and .75: 23.265 to 74.295.
        (A75, 0.01, 94, 73.81, 1.0060),
        (A25, 0.01, 94, 23.85, 1.0379),
        # .25 * .99^2 * (.99 + 2 * .01 * 4.60517) = .265143 to
        # .75 * .01^2 * (.01 + 2 * .99 * .0100503) = 2.24247e-6: 24.923 to .022214.
        (dict(), 0.01, 94, 99.91, 0.26538),
        # 17 of 10,000.
        (dict(), 0.01, 17, 99.51, 0.26646),
        (BCE, 0.01, 17, 14.43, 6.8624),
        (A75, 0.01, 17, 33.59, 2.2106),
        (A25, 0.01, 17, 5.32, 4.6518),
        # At p = .5 each decision weighs as much as alpha says.
        (dict(), 0.5, 94, 0.3153, None),
        (BCE, 0.5, 94, 0.94, None),
        (A75, 0.5, 94, 2.768, None),
        (A25, 0.5, 94, 0.3153, None),
    ],
)
def test_share_of_the_gradient_before_the_first_step(
    options, prior, positives, percent, per_positive
):
    logits = torch.full((1000, 10), torch.tensor(prior).logit().item())
    labels = torch.full((1000,), 10)
    labels[:positives] = torch.arange(positives) % 10
    loss = SigmoidFocalLoss(reduction='sum', **options)
    _, slopes = value_and_gradient(loss, logits, labels)
    sizes = slopes.abs() / 0.7  # value_and_gradient multiplies
    found = -slopes[slopes < 0].sum() / 0.7
    assert (100 * found / sizes.sum()).item() == pytest.approx(percent, rel=1e-3)
    if per_positive is not None:
        assert (sizes.sum() / positives).item() == pytest.approx(per_positive, rel=1e-3)


# --- image by image, in the head ---------------------------------------------------------------


@pytest.mark.parametrize('batch', BATCHES.values(), ids=BATCHES)
def test_head_divides_each_image_by_its_own_positives(batch):
    head = build('FCOSHead', 'mmloss_plugins.', mean_over='positives_per_image')
    stock = build('FCOSHead')
    stock.load_state_dict(head.state_dict())
    feats = features()
    ours = head.loss(feats, samples(batch))
    whole = stock.loss(feats, samples(batch))
    images = [
        stock.loss([level[i : i + 1] for level in feats], samples(batch[i : i + 1]))['loss_cls']
        for i in range(len(batch))
    ]
    assert_close(ours['loss_cls'], sum(images) / len(images))
    for term in ('loss_bbox', 'loss_centerness'):
        assert_close(ours[term], whole[term], rtol=0, atol=0)
    if batch == BATCHES['one image without']:
        assert (ours['loss_cls'] - whole['loss_cls']).abs() > 0.01
    slopes = torch.autograd.grad(ours['loss_cls'], head.conv_cls.weight)[0]
    expected = torch.autograd.grad(sum(images) / len(images), stock.conv_cls.weight)[0]
    assert_close(slopes, expected)


def test_head_with_another_normaliser_is_the_stock_head():
    head = build('FCOSHead', 'mmloss_plugins.')
    stock = build('FCOSHead')
    stock.load_state_dict(head.state_dict())
    feats = features()
    batch = BATCHES['objects']
    assert_close(head.loss(feats, samples(batch)), stock.loss(feats, samples(batch)))
    stock.loss_cls = head.loss_cls = FocalLoss()
    assert_close(head.loss(feats, samples(batch)), stock.loss(feats, samples(batch)))
