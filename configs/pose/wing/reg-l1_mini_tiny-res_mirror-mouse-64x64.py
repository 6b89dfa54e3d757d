# Direct regression from 8x8 features on real frames.
_base_ = ['../../_base_/mirror_mouse_64x64.py', '../../_base_/tiny_pose_700.py']

codec = dict(type='RegressionLabel', input_size=(64, 64))
model = dict(
    head=dict(
        type='RegressionHead',
        in_channels=64 * 8 * 8,
        num_joints=17,
        loss=dict(type='mmloss_plugins.L1Loss', scale=(64, 64), mean_over='samples'),
        decoder=codec,
        init_cfg=dict(type='Normal', layer='Linear', std=0.001, bias=0.5),
    )
)
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='GetBBoxCenterScale', padding=1.0),
    dict(type='RandomBBoxTransform', scale_factor=(0.9, 1.1), rotate_factor=10),
    dict(type='TopdownAffine', input_size=codec['input_size']),
    dict(type='GenerateTarget', encoder=codec),
    dict(type='PackPoseInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
