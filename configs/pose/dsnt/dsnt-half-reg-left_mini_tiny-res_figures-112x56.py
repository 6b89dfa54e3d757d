_base_ = '../../_base_/dsnt_tiny_112x56_half.py'

codec = dict(type='RegressionLabel', input_size=(112, 56))
model = dict(
    head=dict(
        _delete_=True,
        type='RegressionHead',
        in_channels=64 * 14 * 7,
        num_joints=17,
        loss=dict(type='mmloss_plugins.L1Loss', scale=(112, 56), mean_over='samples'),
        decoder=codec,
        init_cfg=dict(type='Normal', layer='Linear', std=0.001, bias=0.5),
    )
)
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='GetBBoxCenterScale'),
    dict(type='RandomBBoxTransform', shift_prob=0.0, scale_prob=0.0, rotate_factor=40),
    dict(
        type='mmloss_plugins.PlaceBBox',
        input_size=(112, 56),
        x=(0.2, 0.3),
        y=(0.4, 0.6),
        size=(0.7, 0.9),
    ),
    dict(type='TopdownAffine', input_size=(112, 56)),
    dict(type='GenerateTarget', encoder=codec),
    dict(type='PackPoseInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
