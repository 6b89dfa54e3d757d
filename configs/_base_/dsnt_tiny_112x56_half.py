"""DSNT on 14x7 features of crops twice as wide as high; figures stand in the left half.

500 steps. Validation shows them where they were trained; a twin of each config in the right half.
"""

_base_ = ['./figures_56x56.py', './tiny_pose_2500.py']

input_size = (112, 56)
codec = dict(type='mmloss_plugins.DSNTLabel', input_size=input_size)
model = dict(
    head=dict(
        type='mmloss_plugins.DSNTHead',
        in_channels=64,
        out_channels=17,
        deconv_out_channels=None,
        final_layer=dict(kernel_size=1, bias=False),
        loss=dict(
            type='mmloss_plugins.MultiLoss',
            terms=dict(
                coord=dict(type='mmloss_plugins.EuclideanLoss'),
                js=dict(type='mmloss_plugins.HeatmapJSLoss', sigma_px=1.0),
            ),
        ),
        decoder=codec,
    )
)
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='GetBBoxCenterScale'),
    dict(type='RandomBBoxTransform', shift_prob=0.0, scale_prob=0.0, rotate_factor=40),
    dict(
        type='mmloss_plugins.PlaceBBox',
        input_size=input_size,
        x=(0.2, 0.3),
        y=(0.4, 0.6),
        size=(0.7, 0.9),
    ),
    dict(type='TopdownAffine', input_size=input_size),
    dict(type='GenerateTarget', encoder=codec),
    dict(type='PackPoseInputs'),
]
val_pipeline = [
    dict(type='LoadImage'),
    dict(type='GetBBoxCenterScale'),
    dict(type='mmloss_plugins.PlaceBBox', input_size=input_size, x=(0.25, 0.25), size=(0.8, 0.8)),
    dict(type='TopdownAffine', input_size=input_size),
    dict(type='PackPoseInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=val_pipeline))
test_dataloader = val_dataloader
right_half = dict(dataset=dict(pipeline=[*val_pipeline]))
right_half['dataset']['pipeline'][2] = dict(
    type='mmloss_plugins.PlaceBBox', input_size=input_size, x=(0.75, 0.75), size=(0.8, 0.8)
)

train_cfg = dict(max_iters=500, val_interval=100)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=50, end=500, eta_min=1e-5),
]
