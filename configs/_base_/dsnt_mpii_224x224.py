"""DSNT without regularisation on MPII as its authors train it: ResNet-34, two stages dilated.

What their code says (github.com/anibali/dsnt-pose2d): 224x224 pixels in [0, 1] without mean and
standard deviation, ImageNet weights, one 1x1 convolution without bias on the last feature, RMSprop
at 2.5e-4 with PyTorch's defaults, 120 epochs, a tenth of the rate after 60 and after 90, batches of
32 on one GPU.

What differs, because MMPose draws it otherwise or leaves it to the head:

- scale: theirs is 2^z, z normal with 0.25, cut at +-0.5; MMPose draws from a normal distribution
  that is cut at one deviation, here over the same range of 0.71 to 1.41;
- rotation, in 2 of 5 pictures: theirs has a deviation of 30 degrees, cut at 60, MMPose's of 32;
- colour: theirs multiplies each channel by a number in [0.6, 1.4]; the nearest transform of MMPose
  without a further package shifts hue, saturation and value. The brightness varies as much, the
  tint far less;
- crops are sampled from the picture itself, not from a 384 pixel copy of the person;
- the last convolution starts at MMPose's deviation of 0.001, not at PyTorch's uniform default;
- the flip test averages coordinates; theirs averages maps before they are normalised.
"""

_base_ = 'mmpose::_base_/default_runtime.py'

custom_imports = dict(
    imports=['mmloss_plugins', 'mmloss_plugins.compat'], allow_failed_imports=False
)

codec = dict(type='mmloss_plugins.DSNTLabel', input_size=(224, 224))

model = dict(
    type='TopdownPoseEstimator',
    data_preprocessor=dict(
        type='PoseDataPreprocessor', mean=[0, 0, 0], std=[255, 255, 255], bgr_to_rgb=True
    ),
    backbone=dict(
        type='mmloss_plugins.DilatedResNet',
        depth=34,
        dilated_stages=2,
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet34'),
    ),
    head=dict(
        type='mmloss_plugins.DSNTHead',
        in_channels=512,
        out_channels=16,
        deconv_out_channels=None,
        final_layer=dict(kernel_size=1, bias=False),
        loss=dict(
            type='mmloss_plugins.MultiLoss',
            terms=dict(coord=dict(type='mmloss_plugins.EuclideanLoss')),
        ),
        decoder=codec,
    ),
    test_cfg=dict(flip_test=True),
)

train_pipeline = [
    dict(type='LoadImage'),
    dict(type='GetBBoxCenterScale'),
    dict(type='RandomFlip', direction='horizontal'),
    dict(
        type='RandomBBoxTransform',
        shift_prob=0,
        scale_factor=(0.71, 1.41),
        rotate_factor=60,
        rotate_prob=0.4,
    ),
    dict(type='TopdownAffine', input_size=codec['input_size']),
    dict(type='YOLOXHSVRandomAug', hue_delta=10, saturation_delta=50, value_delta=50),
    dict(type='GenerateTarget', encoder=codec),
    dict(type='PackPoseInputs'),
]
val_pipeline = [
    dict(type='LoadImage'),
    dict(type='GetBBoxCenterScale'),
    dict(type='TopdownAffine', input_size=codec['input_size']),
    dict(type='PackPoseInputs'),
]

data_root = 'data/mpii/'
dataset = dict(
    type='MpiiDataset',
    data_root=data_root,
    data_mode='topdown',
    data_prefix=dict(img='images/'),
)
train_dataloader = dict(
    batch_size=32,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(ann_file='annotations/mpii_train.json', pipeline=train_pipeline, **dataset),
)
val_dataloader = dict(
    batch_size=32,
    num_workers=4,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    dataset=dict(
        ann_file='annotations/mpii_val.json',
        headbox_file=f'{data_root}annotations/mpii_gt_val.mat',
        test_mode=True,
        pipeline=val_pipeline,
        **dataset,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='MpiiPCKAccuracy')
test_evaluator = val_evaluator

train_cfg = dict(max_epochs=120, val_interval=10)
optim_wrapper = dict(optimizer=dict(type='RMSprop', lr=2.5e-4))
param_scheduler = [
    dict(type='MultiStepLR', begin=0, end=120, milestones=[60, 90], gamma=0.1, by_epoch=True)
]
auto_scale_lr = dict(base_batch_size=32)
default_hooks = dict(checkpoint=dict(save_best='PCK', rule='greater'))

custom_hooks = [
    dict(type='SyncBuffersHook'),
    dict(
        type='mmloss_plugins.RequireDataHook',
        data_root=data_root,
        files=[
            'annotations/mpii_train.json',
            'annotations/mpii_val.json',
            'annotations/mpii_gt_val.mat',
        ],
        next_step='Download MPII and the annotation files that the MMPose docs name',
    ),
]
