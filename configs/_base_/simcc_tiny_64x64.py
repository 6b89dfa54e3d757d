"""SimCC on the tiny ResNet: 128 bins per axis with our codec and loss."""

_base_ = './tiny_pose_2k.py'

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
        deconv_out_channels=(32,),
        deconv_kernel_sizes=(4,),
        deconv_num_groups=(1,),
        loss=dict(type='mmloss_plugins.KLDiscretLoss', bin_reduction='sum', mean_over='valid'),
        decoder=codec,
    )
)
target_pipeline = [dict(type='GenerateTarget', encoder=codec), dict(type='PackPoseInputs')]
