"""Direct regression on the tiny ResNet: one linear layer from the 7x7 features to coordinates.

The features are flattened, not averaged: a mean over the map would not say where a limb is.
"""

_base_ = ['./figures_56x56.py', './tiny_pose_700.py']

codec = dict(type='RegressionLabel', input_size=(56, 56))
model = dict(
    head=dict(
        type='RegressionHead',
        in_channels=64 * 7 * 7,
        num_joints=17,
        decoder=codec,
        # Predictions begin in the middle of the picture.
        init_cfg=dict(type='Normal', layer='Linear', std=0.001, bias=0.5),
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
