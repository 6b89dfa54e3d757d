"""FCOS with a ResNet-18 of a quarter of the channels on 128x128; maps of stride 8, 16 and 32."""

_base_ = './digits_128x128.py'

model = dict(
    type='FCOS',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32,
    ),
    backbone=dict(
        type='ResNet',
        depth=18,
        base_channels=16,
        out_indices=(1, 2, 3),
        norm_eval=False,
        frozen_stages=-1,
        norm_cfg=dict(type='BN'),
    ),
    neck=dict(
        type='FPN',
        in_channels=[32, 64, 128],
        out_channels=64,
        num_outs=3,
        norm_cfg=dict(type='BN'),
    ),
    bbox_head=dict(
        type='FCOSHead',
        num_classes=10,
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        strides=[8, 16, 32],
        # Digits are 6 to 48 pixels wide and high.
        regress_ranges=((-1, 24), (24, 48), (48, 1e8)),
        norm_on_bbox=True,
        centerness_on_reg=True,
        center_sampling=True,
        center_sample_radius=1.5,
        norm_cfg=dict(type='GN', num_groups=8),
        loss_cls=dict(
            type='mmloss_plugins.SigmoidFocalLoss', use_sigmoid=True, alpha=0.25, gamma=2.0
        ),
        loss_bbox=dict(type='GIoULoss', loss_weight=1.0),
        loss_centerness=dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0),
        init_cfg=dict(
            type='Normal',
            layer='Conv2d',
            std=0.01,
            override=dict(type='Normal', name='conv_cls', std=0.01, bias_prob=0.01),
        ),
    ),
    test_cfg=dict(
        nms_pre=1000,
        min_bbox_size=0,
        score_thr=0.05,
        nms=dict(type='nms', iou_threshold=0.6),
        max_per_img=100,
    ),
)
train_cfg = dict(type='IterBasedTrainLoop', max_iters=1000, val_interval=250)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=2e-3))
param_scheduler = [
    dict(type='MultiStepLR', by_epoch=False, milestones=[800], gamma=0.1),
]
