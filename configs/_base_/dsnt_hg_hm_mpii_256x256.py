"""The heatmap baseline on stacked hourglasses, on MPII: MMPose's head of several stages.

The loss is the sum over stacks of the MSE over all pixels, as in the authors' code. Where MMPose's
cells lie is said in the base of the ResNet baseline; at 64x64 it makes no difference.
"""

_base_ = './dsnt_hg_mpii_256x256.py'

codec = dict(type='MSRAHeatmap', input_size=(256, 256), heatmap_size=(64, 64), sigma=1)
model = dict(
    head=dict(
        _delete_=True,
        type='CPMHead',
        in_channels=256,
        out_channels=16,
        num_stages=1,
        deconv_out_channels=None,
        loss=dict(type='mmloss_plugins.HeatmapMSELoss', scale='mmpose', use_target_weight=False),
        decoder=codec,
    ),
    test_cfg=dict(flip_mode='heatmap', shift_heatmap=True),
)
train_pipeline = _base_.train_pipeline
train_pipeline[-2] = dict(type='GenerateTarget', encoder=codec)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
