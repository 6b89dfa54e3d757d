_base_ = ['../../_base_/figures_56x56.py', '../../_base_/tiny_pose_700_14x14.py']

# Labels at the true position and a decoder that finds it: MSRAHeatmap rounds both to whole cells.
# With a sigma of 1 cell, 700 steps are too few for MSE as for soft labels of a softmax.
codec = dict(
    type='UDPHeatmap', input_size=(56, 56), heatmap_size=(14, 14), sigma=0.5, blur_kernel_size=3
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
    dict(type='GetBBoxCenterScale'),
    dict(type='RandomBBoxTransform', scale_factor=(0.8, 1.2), rotate_factor=40),
    dict(type='TopdownAffine', input_size=(56, 56)),
    dict(type='GenerateTarget', encoder=codec),
    dict(type='PackPoseInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
