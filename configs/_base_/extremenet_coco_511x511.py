"""ExtremeNet with a stack of two hourglasses on COCO as its authors train it.

What their code says (github.com/xingyizhou/ExtremeNet): Hourglass-104, 511x511 pixels, maps of
128x128 cells, BGR with the mean and deviation of COCO, weights of CornerNet to start from, Adam at
2.5e-4 for 24 images, 250,000 steps with a tenth of the rate after 200,000; focal loss on five
heatmaps, smooth L1 on the offsets divided by the objects, averaged over the two stacks; tested at
the size of the picture and mirrored, which is their "single scale".

What differs, because MMDetection draws it otherwise or has no transform for it:

- crop: theirs is a square of 0.6 to 1.3 times 511 px around a point of the picture, so that it
  reaches over the border. MMDetection's counterpart (RandomCenterCropPad) refuses masks. Here the
  picture lies on a black canvas of 1 to 1.5 times its size, and the squares are cut out of that:
  on 640x480 pictures 81 % of a square are picture, as with theirs, but 88 % instead of 99 % of the
  smallest and 65 % instead of 60 % of the largest;
- extreme points are those of the part of the mask in the crop; theirs are those of the whole
  object, moved to the border where they lie beyond it;
- colour: as theirs, in steps of 0.1 and cut at 255; no PCA lighting (their deviation of 0.1);
- objects come from instances_train2017.json, whose extreme points are found while loading; theirs
  from a file made of it before, which holds the same;
- 3 images on each of 8 GPUs; theirs are 4 to 5 on 5 GPUs;
- the weights to start from are MMDetection's CornerNet, whose hourglass this is; from nothing it
  takes twice the steps, say the authors.
"""

_base_ = './centernet_coco_512x512.py'

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
    bbox_head=dict(
        type='mmloss_plugins.ExtremeNetHead',
        in_channels=256,
        feat_channels=256,
        num_stacks=2,
        loss=dict(
            type='mmloss_plugins.ExdetLoss',
            offset_loss=dict(
                type='mmloss_plugins.RegL1Loss', penalty='smooth_l1', mean_over='objects'
            ),
        ),
    ),
    test_cfg=dict(
        _delete_=True,
        topk=40,
        num_dets=1000,
        point_thr=0.1,
        center_thr=0.1,
        aggr_weight=0.1,
        nms=dict(type='soft_nms', iou_threshold=0.5, sigma=0.5, min_score=0.001, method='gaussian'),
        ghosts=dict(ratio=3.0),
        max_per_img=100,
        flip_test=True,
        size_divisor=128,
    ),
)

train_pipeline = [
    dict(type='LoadImageFromFile', to_float32=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Expand', mean=(0, 0, 0), to_rgb=False, ratio_range=(1, 1.5), prob=1.0),
    dict(
        type='RandomChoice',
        transforms=[
            [
                dict(type='RandomCrop', crop_size=(side, side), allow_negative_crop=True),
                dict(type='Pad', size=(side, side)),
            ]
            for side in (306, 357, 408, 459, 511, 562, 613, 664)
        ],
    ),
    dict(type='Resize', scale=(511, 511), keep_ratio=False),
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='RandomOrder',
        transforms=[
            dict(type='Brightness', min_mag=0.6, max_mag=1.4),
            dict(type='Contrast', min_mag=0.6, max_mag=1.4),
            dict(type='Color', min_mag=0.6, max_mag=1.4),
        ],
    ),
    # An object of which the crop leaves nothing has no extreme points.
    dict(type='FilterAnnotations', min_gt_bbox_wh=(1, 1), by_mask=True, keep_empty=False),
    dict(type='mmloss_plugins.AddExtremePoints'),
    dict(type='mmloss_plugins.PackExtremePoints'),
]
val_pipeline = [
    dict(type='LoadImageFromFile', to_float32=True),
    # Black up to the next size that is one below a multiple of 128.
    dict(
        type='RandomCenterCropPad',
        ratios=None,
        border=None,
        mean=[0, 0, 0],
        std=[1, 1, 1],
        to_rgb=False,
        test_mode=True,
        test_pad_mode=['logical_or', 127],
    ),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'border'),
    ),
]
train_dataloader = dict(
    batch_size=3,
    sampler=dict(_delete_=True, type='InfiniteSampler', shuffle=True),
    dataset=dict(pipeline=train_pipeline),
)
val_dataloader = dict(dataset=dict(pipeline=val_pipeline))
test_dataloader = val_dataloader

train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=250000, val_interval=25000)
optim_wrapper = dict(optimizer=dict(lr=2.5e-4))
param_scheduler = [
    dict(type='MultiStepLR', begin=0, end=250000, milestones=[200000], gamma=0.1, by_epoch=False)
]
auto_scale_lr = dict(base_batch_size=24)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=25000))
log_processor = dict(by_epoch=False)

# The heads of CornerNet fit nowhere and are left out with a warning.
load_from = (
    'https://download.openmmlab.com/mmdetection/v2.0/cornernet/'
    'cornernet_hourglass104_mstest_8x6_210e_coco/'
    'cornernet_hourglass104_mstest_8x6_210e_coco_20200825_150618-79b44c30.pth'
)
