"""The twin of SimCC on the tiny ResNet: 8x8 heatmaps from 8x8 features, MMPose's codec and loss."""

_base_ = './tiny_pose_2500.py'

codec = dict(type='MSRAHeatmap', input_size=(64, 64), heatmap_size=(8, 8), sigma=1)
model = dict(
    head=dict(
        type='HeatmapHead',
        in_channels=64,
        out_channels=17,
        deconv_out_channels=None,
        loss=dict(type='KeypointMSELoss', use_target_weight=True),
        decoder=codec,
    )
)
target_pipeline = [dict(type='GenerateTarget', encoder=codec), dict(type='PackPoseInputs')]
