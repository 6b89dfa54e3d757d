# ResNet-101, 28x28 cells.
_base_ = '../../_base_/dsnt_js_mpii_224x224.py'

model = dict(
    backbone=dict(
        depth=101,
        init_cfg=dict(checkpoint='torchvision://resnet101'),
    ),
    head=dict(in_channels=2048),
)
train_dataloader = dict(batch_size=24)
auto_scale_lr = dict(base_batch_size=24)
