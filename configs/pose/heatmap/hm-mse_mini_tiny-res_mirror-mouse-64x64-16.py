_base_ = ['../../_base_/mirror_mouse_64x64.py', '../../_base_/tiny_pose_700_14x14.py']

# Labels at the true position and a decoder that finds it: MSRAHeatmap rounds both to whole cells.
codec = dict(
    type='UDPHeatmap', input_size=(64, 64), heatmap_size=(16, 16), sigma=0.5, blur_kernel_size=3
)
model = dict(
    head=dict(
        type='mmloss_plugins.HeatmapHead',
        in_channels=64,
        out_channels=17,
        deconv_out_channels=None,
        loss=dict(type='mmloss_plugins.HeatmapMSELoss', mean_over='valid'),
        decoder=codec,
    )
)
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='GetBBoxCenterScale', padding=1.0),
    dict(type='RandomBBoxTransform', scale_factor=(0.9, 1.1), rotate_factor=10),
    dict(type='TopdownAffine', input_size=(64, 64)),
    dict(type='GenerateTarget', encoder=codec),
    dict(type='PackPoseInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
