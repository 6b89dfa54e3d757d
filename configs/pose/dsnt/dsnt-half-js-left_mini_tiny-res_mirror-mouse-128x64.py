# Mice in the left half of the crop, in training and validation.
_base_ = './dsnt-reg-js_mini_tiny-res_mirror-mouse-64x64.py'

codec = dict(type='mmloss_plugins.DSNTLabel', input_size=(128, 64))
model = dict(head=dict(decoder=codec))
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='GetBBoxCenterScale', padding=1.0),
    dict(type='RandomBBoxTransform', shift_prob=0.0, scale_prob=0.0, rotate_factor=10),
    dict(
        type='mmloss_plugins.PlaceBBox',
        input_size=(128, 64),
        x=(0.2, 0.3),
        y=(0.4, 0.6),
        size=(0.8, 1.0),
    ),
    dict(type='TopdownAffine', input_size=(128, 64)),
    dict(type='GenerateTarget', encoder=codec),
    dict(type='PackPoseInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_pipeline = [
    dict(type='LoadImage'),
    dict(type='GetBBoxCenterScale', padding=1.0),
    dict(type='mmloss_plugins.PlaceBBox', input_size=(128, 64), x=(0.25, 0.25), size=(0.9, 0.9)),
    dict(type='TopdownAffine', input_size=(128, 64)),
    dict(type='PackPoseInputs'),
]
val_dataloader = dict(dataset=dict(pipeline=val_pipeline))
test_dataloader = val_dataloader
right_half = dict(dataset=dict(pipeline=[*val_pipeline]))
right_half['dataset']['pipeline'][2] = dict(
    type='mmloss_plugins.PlaceBBox', input_size=(128, 64), x=(0.75, 0.75), size=(0.9, 0.9)
)
