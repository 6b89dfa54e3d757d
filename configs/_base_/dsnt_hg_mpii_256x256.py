"""DSNT on stacked hourglasses, 256x256 pixels to 64x64 cells, on MPII; the sum over all stacks.

Set ``model.backbone.num_stacks`` and ``model.head.num_stages`` to the same number. Input as in the
authors' code: the mean of MPII subtracted, no division by its deviation. Batches of 6; the rest as
in the base of the ResNets.

The network is not theirs. They take the hourglass of github.com/bearpaw/pytorch-pose with one block
per stage: pre-activation bottlenecks, max pooling, and the score maps fed back into the next stack.
MMPose's is CornerNet's: BasicBlocks, strides in place of pooling, and the features fed back. Depth
(4 times half the side), width (256 channels) and number of blocks (1) are set to theirs; MMPose's
defaults of depth 5 and widths up to 512 are those of Hourglass-52.
"""

_base_ = './dsnt_mpii_224x224.py'

codec = dict(input_size=(256, 256))
full_codec = dict(type='mmloss_plugins.DSNTLabel', **codec)
model = dict(
    data_preprocessor=dict(mean=[112.312, 113.228, 110.333]),
    backbone=dict(
        _delete_=True,
        type='HourglassNet',
        downsample_times=4,
        num_stacks=1,
        stage_channels=(256, 256, 256, 256, 256),
        stage_blocks=(1, 1, 1, 1, 1),
    ),
    head=dict(in_channels=256, num_stages=1, final_layer=dict(bias=True), decoder=codec),
)

train_pipeline = _base_.train_pipeline
train_pipeline[4]['input_size'] = codec['input_size']
train_pipeline[-2] = dict(type='GenerateTarget', encoder=full_codec)
val_pipeline = _base_.val_pipeline
val_pipeline[-2]['input_size'] = codec['input_size']
train_dataloader = dict(batch_size=6, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=val_pipeline))
test_dataloader = val_dataloader
auto_scale_lr = dict(base_batch_size=6)
