# Disks of R = one cell and offsets on 8x8 features, on real frames.
_base_ = ['../../_base_/mirror_mouse_64x64.py', '../../_base_/tiny_pose_700.py']

codec = dict(
    type='mmloss_plugins.OffsetHeatmap', input_size=(64, 64), heatmap_size=(8, 8), radius_px=8.0
)
model = dict(
    head=dict(
        type='mmloss_plugins.OffsetHeatmapHead', in_channels=64, out_channels=17, decoder=codec
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
