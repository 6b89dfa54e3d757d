"""CenterNetHead in MMDetection's detector, on MMDetection's data set, under its hooks."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.engine.hooks import NumClassCheckHook
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.registry import DATASETS
from mmengine.config import ConfigDict
from mmengine.dataset import pseudo_collate
from mmengine.registry import MODELS as ROOT
from mmengine.runner import Runner
from torch.testing import assert_close

from mmloss_plugins.datasets import generate_digits
from mmloss_plugins.functional import value_checks
from tests.test_heads.centernet_cases import (
    BOXES,
    CHANNELS,
    CLASSES,
    LABELS,
    TEST_CFG,
    build,
    sample,
    stirred,
)

pytestmark = pytest.mark.usefixtures('mmdet_scope')
THEIRS = {
    'loss_heatmap': 'loss_center_heatmap',
    'loss_offset': 'loss_offset',
    'loss_size': 'loss_wh',
}


def detector(head, **options):
    config = dict(type=head, in_channels=CHANNELS, feat_channels=6, num_classes=CLASSES)
    return ROOT.build(
        dict(
            type='mmdet.CenterNet',
            backbone=dict(
                type='ResNet', depth=18, base_channels=4, out_indices=(3,), norm_eval=False
            ),
            neck=dict(
                type='CTResNetNeck',
                in_channels=32,
                num_deconv_filters=(16, 8, CHANNELS),
                num_deconv_kernels=(4, 4, 4),
                use_dcn=False,
            ),
            bbox_head={**config, **options},
            train_cfg=None,
            test_cfg=ConfigDict(TEST_CFG),
        )
    )


def test_by_its_type_alone_in_the_detector_of_mmdet():
    theirs = detector('CenterNetHead')
    theirs.init_weights()
    stirred(theirs.bbox_head)
    ours = detector('mmloss_plugins.CenterNetHead', radius_impl='mmdet')
    ours.load_state_dict(theirs.state_dict())
    batch = [
        sample(boxes, labels, [], (64, 128), border=[0.0] * 4)
        for boxes, labels in zip(BOXES, LABELS)
    ]
    images = torch.randn(2, 3, 64, 128)
    found, expected = (each(images, batch, mode='loss') for each in (ours, theirs))
    for name, other in THEIRS.items():
        assert_close(found[name], expected[other], rtol=1e-4, atol=0)
    sum(found.values()).backward()
    assert all(each.grad is not None for each in ours.bbox_head.parameters())
    ours.load_state_dict(theirs.eval().state_dict())
    ours.eval()
    with torch.no_grad():
        found = [each.pred_instances for each in ours(images, batch, mode='predict')]
        expected = [each.pred_instances for each in theirs(images, batch, mode='predict')]
    for one, other in zip(found, expected):
        peaks = other[other.scores > 0]
        assert len(one) == len(peaks) > 5
        assert_close(one.scores, peaks.scores)
        assert_close(one.bboxes, peaks.bboxes, rtol=1e-5, atol=1e-3)
        assert (one.labels == peaks.labels).all()


# --- the generated digits, through MMDetection's data set and preprocessor ---------------------


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('set') / 'digits'
    return generate_digits(folder, num_train=6, num_val=2, image_size=128, seed=7, progress=False)


def dataset_config(folder, split='train'):
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)]
    return dict(
        type='CocoDataset',
        data_root=str(folder),
        metainfo=dict(classes=tuple('0123456789')),
        ann_file=f'annotations/digits_{split}.json',
        data_prefix=dict(img=f'images/{split}/'),
        pipeline=[*pipeline, dict(type='PackDetInputs')],
    )


def digits_batch(folder):
    dataset = DATASETS.build(dataset_config(folder))
    preprocessor = DetDataPreprocessor(mean=[0.0] * 3, std=[255.0] * 3, pad_size_divisor=32)
    return preprocessor(pseudo_collate([dataset[index] for index in range(4)]), training=True)


def test_targets_of_the_digits_lie_on_their_boxes(folder):
    batch = digits_batch(folder)['data_samples']
    head = build(num_classes=10)
    target = head.targets(
        [each.gt_instances for each in batch],
        (32, 32),
        (4.0, 4.0),
        [each.ignored_instances for each in batch],
    )
    assert target.weight is None
    for number, each in enumerate(batch):
        boxes, labels = each.gt_instances.bboxes, each.gt_instances.labels
        count = len(boxes)
        assert target.mask[number].sum() == count > 0
        size_wh = target.size_wh[number, :count]
        centre = torch.stack(
            (target.cell_index[number, :count] % 32, target.cell_index[number, :count] // 32), -1
        )
        centre = centre + target.offset[number, :count]
        found = torch.cat((centre - size_wh / 2, centre + size_wh / 2), 1) * 4
        assert_close(found, boxes, rtol=0, atol=1e-3)
        peaks = target.heatmap[number].flatten(1)[labels, target.cell_index[number, :count]]
        assert (peaks == 1).all()


def test_crowds_are_ignored_regions(folder):
    batch = digits_batch(folder)['data_samples']
    head = build(num_classes=10)
    x = (torch.randn(4, CHANNELS, 32, 32),)
    expected = head.loss(x, batch)
    crowd = batch[0].gt_instances[:1]
    batch[0].ignored_instances = crowd
    batch[0].gt_instances = batch[0].gt_instances[1:]
    found = head.loss(x, batch)
    # One object and the background of its box less; the sum is over the objects that are left.
    assert found['loss_heatmap'] > 0
    assert abs(found['loss_heatmap'] - expected['loss_heatmap']) > 1e-3
    weight = head.targets(
        [each.gt_instances for each in batch],
        (32, 32),
        (4.0, 4.0),
        [each.ignored_instances for each in batch],
    ).weight
    x1, y1, x2, y2 = crowd.bboxes[0].tolist()
    touched = (np.ceil(x2 / 4) - np.floor(x1 / 4)) * (np.ceil(y2 / 4) - np.floor(y1 / 4))
    assert (weight[1:] == 1).all()
    assert 0 <= touched - int((weight[0] == 0).sum()) <= len(batch[0].gt_instances)


def test_a_step_on_the_digits(folder):
    batch = digits_batch(folder)
    model = detector('mmloss_plugins.CenterNetHead', num_classes=10)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    history = []
    for _ in range(6):
        losses = model(**batch, mode='loss')
        total = sum(losses.values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        history.append(total.item())
    assert history[-1] < 0.7 * history[0]


# --- num_classes that does not match ----------------------------------------------------------


def runner(folder, work_dir, num_classes):
    model = detector('mmloss_plugins.CenterNetHead', num_classes=num_classes)
    return Runner(
        model=model,
        work_dir=str(work_dir),
        train_dataloader=dict(
            batch_size=2,
            num_workers=0,
            sampler=dict(type='InfiniteSampler', shuffle=True),
            collate_fn=dict(type='pseudo_collate'),
            dataset=dataset_config(folder),
        ),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=1, val_interval=10),
        optim_wrapper=dict(optimizer=dict(type='Adam', lr=1e-3)),
        custom_hooks=[dict(type='NumClassCheckHook')],
        default_hooks=dict(checkpoint=None, logger=None),
        default_scope='mmdet',
        experiment_name=f'classes_{num_classes}_{work_dir.name}',
        log_level='ERROR',
    )


@pytest.mark.parametrize('num_classes', [9, 11])
def test_num_classes_of_another_data_set_is_found_before_the_first_step(
    folder, tmp_path, num_classes
):
    run = runner(folder, tmp_path, num_classes)
    text = rf'`num_classes` \({num_classes}\) in CenterNetHead .* length of `classes` 10\)'
    with pytest.raises(AssertionError, match=text):
        run.train()
    assert run.iter == 0


def test_num_classes_of_the_data_set_passes(folder):
    dataset = SimpleNamespace(metainfo=dict(classes=tuple('0123456789')))
    run = SimpleNamespace(
        model=detector('mmloss_plugins.CenterNetHead', num_classes=10),
        train_dataloader=SimpleNamespace(dataset=dataset),
    )
    NumClassCheckHook().before_train_epoch(run)
    assert run.model.bbox_head.num_classes == 10


def test_a_label_beyond_num_classes_never_trains():
    head = build(num_classes=2)
    x = (torch.randn(2, CHANNELS, 16, 24),)
    batch = [sample(boxes, labels) for boxes, labels in zip(BOXES, LABELS)]
    with pytest.raises(ValueError, match=r'labels must be .*\[0, 2\).* got 2'):
        head.loss(x, batch)
    # Without the checks of values that only the tests switch on, PyTorch raises.
    with value_checks(False), pytest.raises(RuntimeError, match='out of bounds'):
        head.loss(x, batch)
