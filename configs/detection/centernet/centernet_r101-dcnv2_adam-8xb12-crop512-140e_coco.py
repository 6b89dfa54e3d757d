# ResNet-101 with deformable convolutions, 96 images on 8 GPUs: 34.6 AP, say the authors.
_base_ = '../../_base_/centernet_coco_512x512.py'

model = dict(
    backbone=dict(
        depth=101,
        init_cfg=dict(checkpoint='torchvision://resnet101'),
    ),
    neck=dict(in_channels=2048),
)
train_dataloader = dict(batch_size=12)
optim_wrapper = dict(optimizer=dict(lr=3.75e-4))
auto_scale_lr = dict(base_batch_size=96)
