"""DSNT on the 8x8 features of the tiny ResNet, real frames, 700 steps."""

_base_ = ['./mirror_mouse_64x64.py', './tiny_pose_700.py']

codec = dict(type='mmloss_plugins.DSNTLabel', input_size=(64, 64))
model = dict(
    head=dict(
        type='mmloss_plugins.DSNTHead',
        in_channels=64,
        out_channels=17,
        deconv_out_channels=None,
        final_layer=dict(kernel_size=1, bias=False),
        loss=dict(type='mmloss_plugins.EuclideanLoss'),
        decoder=codec,
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
