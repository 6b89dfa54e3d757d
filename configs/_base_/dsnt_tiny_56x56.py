"""DSNT on the 7x7 features of the tiny ResNet, generated figures, 2,500 steps."""

_base_ = ['./figures_56x56.py', './tiny_pose_2500.py']

codec = dict(type='mmloss_plugins.DSNTLabel', input_size=(56, 56))
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
    dict(type='GetBBoxCenterScale'),
    dict(type='RandomBBoxTransform', scale_factor=(0.8, 1.2), rotate_factor=40),
    dict(type='TopdownAffine', input_size=codec['input_size']),
    dict(type='GenerateTarget', encoder=codec),
    dict(type='PackPoseInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
