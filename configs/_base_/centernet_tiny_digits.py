"""CenterNet with one small hourglass on the digits, enlarged to 192x192, of which 160x160 are cut.

Maps of 40x40 cells in training and 48x48 in validation. With a ResNet-18 and deconvolutions in its
place places are found as well, but digits are confused.
"""

_base_ = './digits_128x128.py'

# Before the boxes are packed; masks are moved with them.
moves = [
    dict(type='RandomResize', scale=(192, 192), ratio_range=(0.8, 1.2), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(160, 160)),
]
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    *moves,
    dict(type='PackDetInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=(192, 192), keep_ratio=True),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(
                type='PackDetInputs',
                meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
            ),
        ]
    )
)
test_dataloader = val_dataloader

model = dict(
    type='mmloss_plugins.HeatmapDetector',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32,
    ),
    backbone=dict(
        type='HourglassNet',
        downsample_times=3,
        num_stacks=1,
        stage_channels=(32, 48, 64, 96),
        stage_blocks=(1, 1, 1, 2),
        feat_channel=48,
        norm_cfg=dict(type='BN'),
    ),
    bbox_head=dict(
        type='mmloss_plugins.CenterNetHead', num_classes=10, in_channels=48, feat_channels=32
    ),
    test_cfg=dict(topk=100, local_maximum_kernel=3, max_per_img=100),
)
# MMDetection's hourglass of one stack has a layer between stacks that nothing reads.
find_unused_parameters = True
train_cfg = dict(type='IterBasedTrainLoop', max_iters=1000, val_interval=250)
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='Adam', lr=4e-3), clip_grad=dict(max_norm=35)
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=100, end=1000, T_max=900),
]
