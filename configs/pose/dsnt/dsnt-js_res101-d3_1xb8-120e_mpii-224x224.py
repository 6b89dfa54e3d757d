# ResNet-101, 56x56 cells. Not in the authors' grid; the batch of 8 is ours.
_base_ = '../../_base_/dsnt_js_mpii_224x224.py'

model = dict(
    backbone=dict(
        depth=101,
        dilated_stages=3,
        init_cfg=dict(checkpoint='torchvision://resnet101'),
    ),
    head=dict(in_channels=2048),
)
train_dataloader = dict(batch_size=8)
auto_scale_lr = dict(base_batch_size=8)
