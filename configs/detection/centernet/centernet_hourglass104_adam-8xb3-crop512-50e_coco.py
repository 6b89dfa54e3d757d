# Two hourglasses, both supervised, 24 images, 50 epochs: 40.3 AP, say the authors, who start from
# ExtremeNet's weights; no such are public for MMDetection's hourglass, so it is CornerNet's.
_base_ = '../../_base_/centernet_coco_512x512.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='HourglassNet',
        downsample_times=5,
        num_stacks=2,
        stage_channels=(256, 256, 384, 384, 384, 512),
        stage_blocks=(2, 2, 2, 2, 2, 4),
        norm_cfg=dict(type='BN', requires_grad=True),
    ),
    neck=None,
    bbox_head=dict(in_channels=256, feat_channels=256, num_stacks=2),
    test_cfg=dict(size_divisor=128),
)
val_pipeline = [
    dict(type='LoadImageFromFile', to_float32=True),
    # Black up to the next multiple of 128 above the size of the picture.
    dict(
        type='RandomCenterCropPad',
        ratios=None,
        border=None,
        mean=[0, 0, 0],
        std=[1, 1, 1],
        to_rgb=False,
        test_mode=True,
        test_pad_mode=['logical_or', 127],
        test_pad_add_pix=1,
    ),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'border'),
    ),
]
train_dataloader = dict(batch_size=3)
val_dataloader = dict(dataset=dict(pipeline=val_pipeline))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=50)
optim_wrapper = dict(optimizer=dict(lr=2.5e-4))
param_scheduler = [
    dict(type='MultiStepLR', begin=0, end=50, milestones=[40], gamma=0.1, by_epoch=True)
]
auto_scale_lr = dict(base_batch_size=24)

# The heads of CornerNet fit nowhere and are left out with a warning.
load_from = (
    'https://download.openmmlab.com/mmdetection/v2.0/cornernet/'
    'cornernet_hourglass104_mstest_8x6_210e_coco/'
    'cornernet_hourglass104_mstest_8x6_210e_coco_20200825_150618-79b44c30.pth'
)
