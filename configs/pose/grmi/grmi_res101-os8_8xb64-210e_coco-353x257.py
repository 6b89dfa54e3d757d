# The setup of the paper as far as it is remembered, none of it verified against an implementation,
# for its authors released none: ResNet-101 at output stride 8, input 353x257, R = 25 px, logistic
# and Huber loss 4 : 1, SGD with momentum 0.9 at 5e-3 and Polyak averaging. The paper trains on
# batches of 24 for 800,000 steps (.649 AP on COCO test-dev); the length here is that of MMPose's
# schedule, and the paper's auxiliary loss at half depth is left out.
_base_ = './grmi_res50-os8_8xb64-210e_coco-256x192.py'

codec = dict(input_size=(257, 353), heatmap_size=(33, 45), radius_px=25.0)
full_codec = dict(type='mmloss_plugins.OffsetHeatmap', **codec)
model = dict(
    backbone=dict(
        depth=101, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet101')
    ),
    head=dict(decoder=codec),
)
train_pipeline = _base_.train_pipeline
train_pipeline[-3]['input_size'] = codec['input_size']
train_pipeline[-2] = dict(type='GenerateTarget', encoder=full_codec)
val_pipeline = _base_.val_pipeline
val_pipeline[-2]['input_size'] = codec['input_size']
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=val_pipeline))
test_dataloader = val_dataloader

optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='SGD', lr=5e-3, momentum=0.9),
)
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='EMAHook', ema_type='ExponentialMovingAverage', momentum=1e-4, priority=49),
]
