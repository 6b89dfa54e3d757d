# Disks and offsets on the 14x14 features of the tiny ResNet; R is one cell, as at 7x7.
_base_ = ['../../_base_/figures_56x56.py', '../../_base_/tiny_pose_700_14x14.py']

codec = dict(
    type='mmloss_plugins.OffsetHeatmap', input_size=(56, 56), heatmap_size=(14, 14), radius_px=4.0
)
model = dict(
    head=dict(
        type='mmloss_plugins.OffsetHeatmapHead', in_channels=64, out_channels=17, decoder=codec
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
