"""The baseline of SimCC on the tiny ResNet: 16x16 heatmaps with MMPose's codec and loss."""

_base_ = './tiny_pose_2k.py'

codec = dict(type='MSRAHeatmap', input_size=(64, 64), heatmap_size=(16, 16), sigma=1)
model = dict(
    head=dict(
        type='HeatmapHead',
        in_channels=64,
        out_channels=17,
        deconv_out_channels=(32,),
        deconv_kernel_sizes=(4,),
        loss=dict(type='KeypointMSELoss', use_target_weight=True),
        decoder=codec,
    )
)
target_pipeline = [dict(type='GenerateTarget', encoder=codec), dict(type='PackPoseInputs')]
