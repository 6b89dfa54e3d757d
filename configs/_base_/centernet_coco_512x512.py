"""CenterNet with a ResNet-18 and deformable convolutions on COCO as its authors train it.

What their code says (github.com/xingyizhou/CenterNet): 512x512 pixels, maps of stride 4, ImageNet
weights, BGR with the mean and deviation of COCO, Adam at 5e-4 for 114 images on 4 GPUs, no warm-up,
no clipping, 140 epochs with a tenth of the rate after 90 and 120, at most 128 objects; tested at
the size of the picture, without NMS.

What differs, because MMDetection draws it otherwise or has no transform for it:

- crop: theirs is a square of 0.6 to 1.3 times the longer side of the picture; MMDetection's is one
  of 0.6 to 1.3 times a number of pixels, here the 640 that the longer side of nearly every picture
  of COCO has. Where no object is in the crop it draws another one;
- colour: brightness, contrast and saturation by a factor of 0.6 to 1.4 in random order, as theirs,
  but in steps of 0.1 and cut at 255; no PCA lighting (their deviation of 0.1);
- an object that the crop cuts stays if its centre is in the crop; theirs stays if any of it is;
- 28 images on each of 4 GPUs, which are 112; theirs are 114, fewer on the first GPU.
"""

_base_ = 'mmdet::_base_/default_runtime.py'

custom_imports = dict(imports=['mmloss_plugins'], allow_failed_imports=False)

model = dict(
    type='mmloss_plugins.HeatmapDetector',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[104.0136, 114.0342, 119.9166],
        std=[73.6028, 69.8908, 70.9151],
        bgr_to_rgb=False,
    ),
    backbone=dict(
        type='ResNet',
        depth=18,
        norm_eval=False,
        norm_cfg=dict(type='BN'),
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet18'),
    ),
    neck=dict(
        type='CTResNetNeck',
        in_channels=512,
        num_deconv_filters=(256, 128, 64),
        num_deconv_kernels=(4, 4, 4),
        use_dcn=True,
    ),
    bbox_head=dict(
        type='mmloss_plugins.CenterNetHead',
        num_classes=80,
        in_channels=64,
        feat_channels=64,
        max_objects=128,
    ),
    test_cfg=dict(topk=100, local_maximum_kernel=3, max_per_img=100),
)

train_pipeline = [
    dict(type='LoadImageFromFile', to_float32=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='RandomCenterCropPad',
        crop_size=(640, 640),
        ratios=(0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3),
        mean=[0, 0, 0],
        std=[1, 1, 1],
        to_rgb=False,
        test_pad_mode=None,
    ),
    dict(type='Resize', scale=(512, 512), keep_ratio=False),
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='RandomOrder',
        transforms=[
            dict(type='Brightness', min_mag=0.6, max_mag=1.4),
            dict(type='Contrast', min_mag=0.6, max_mag=1.4),
            dict(type='Color', min_mag=0.6, max_mag=1.4),
        ],
    ),
    dict(type='PackDetInputs'),
]
val_pipeline = [
    dict(type='LoadImageFromFile', to_float32=True),
    # Black up to the next multiple of 32 above the size of the picture.
    dict(
        type='RandomCenterCropPad',
        ratios=None,
        border=None,
        mean=[0, 0, 0],
        std=[1, 1, 1],
        to_rgb=False,
        test_mode=True,
        test_pad_mode=['logical_or', 31],
        test_pad_add_pix=1,
    ),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'border'),
    ),
]

data_root = 'data/coco/'
train_ann_file = 'annotations/instances_train2017.json'
val_ann_file = 'annotations/instances_val2017.json'
train_dataloader = dict(
    batch_size=28,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='CocoDataset',
        data_root=data_root,
        ann_file=train_ann_file,
        data_prefix=dict(img='train2017/'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    # Pictures of different sizes.
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CocoDataset',
        data_root=data_root,
        ann_file=val_ann_file,
        data_prefix=dict(img='val2017/'),
        test_mode=True,
        pipeline=val_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='CocoMetric', ann_file=f'{data_root}{val_ann_file}', metric='bbox')
test_evaluator = val_evaluator

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=140, val_interval=5)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=5e-4))
param_scheduler = [
    dict(type='MultiStepLR', begin=0, end=140, milestones=[90, 120], gamma=0.1, by_epoch=True)
]
auto_scale_lr = dict(base_batch_size=112)
default_hooks = dict(checkpoint=dict(interval=5, max_keep_ckpts=2, save_best='auto'))

custom_hooks = [
    dict(
        type='mmloss_plugins.RequireDataHook',
        data_root=data_root,
        files=[train_ann_file, val_ann_file],
        next_step='Download the pictures and annotations of COCO 2017',
    ),
    dict(type='NumClassCheckHook'),
]
