# ResNet-50, 56x56 cells.
_base_ = '../../_base_/dsnt_js_mpii_224x224.py'

model = dict(
    backbone=dict(
        depth=50,
        dilated_stages=3,
        init_cfg=dict(checkpoint='torchvision://resnet50'),
    ),
    head=dict(in_channels=2048),
)
train_dataloader = dict(batch_size=12)
auto_scale_lr = dict(base_batch_size=12)
