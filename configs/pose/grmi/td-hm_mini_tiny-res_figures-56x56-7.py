# The twin of G-RMI at 7x7: MMPose's Gaussian heatmaps, loss and quarter-cell shift.
_base_ = ['../../_base_/figures_56x56.py', '../../_base_/tiny_pose_700.py']

codec = dict(type='MSRAHeatmap', input_size=(56, 56), heatmap_size=(7, 7), sigma=1)
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
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='GetBBoxCenterScale'),
    dict(type='RandomBBoxTransform', scale_factor=(0.8, 1.2), rotate_factor=40),
    dict(type='TopdownAffine', input_size=codec['input_size']),
    dict(type='GenerateTarget', encoder=codec),
    dict(type='PackPoseInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
