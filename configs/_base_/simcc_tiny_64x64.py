"""SimCC on the tiny ResNet: 128 bins per axis from 8x8 features, our codec and loss."""

_base_ = './tiny_pose_2500.py'

codec = dict(
    type='mmloss_plugins.SimCCLabel', input_size=(64, 64), sigma=2.0, simcc_split_ratio=2.0
)
model = dict(
    head=dict(
        type='SimCCHead',
        in_channels=64,
        out_channels=17,
        input_size=codec['input_size'],
        in_featuremap_size=(8, 8),
        simcc_split_ratio=codec['simcc_split_ratio'],
        deconv_out_channels=None,
        loss=dict(type='mmloss_plugins.KLDiscretLoss', bin_reduction='sum', mean_over='valid'),
        decoder=codec,
        init_cfg=[
            dict(type='Kaiming', layer='Conv2d'),
            dict(type='Normal', layer='Linear', std=0.02),
        ],
    )
)
target_pipeline = [dict(type='GenerateTarget', encoder=codec), dict(type='PackPoseInputs')]
