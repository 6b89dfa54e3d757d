"""A light ExtremeNet, ours: network, rate and 140 epochs of CenterNet with a ResNet-18."""

_base_ = '../../_base_/extremenet_coco_511x511.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='ResNet',
        depth=18,
        norm_eval=False,
        norm_cfg=dict(type='BN'),
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet18'),
    ),
    neck=dict(
        _delete_=True,
        type='CTResNetNeck',
        in_channels=512,
        num_deconv_filters=(256, 128, 64),
        num_deconv_kernels=(4, 4, 4),
        use_dcn=True,
    ),
    bbox_head=dict(in_channels=64, feat_channels=64, num_stacks=1),
)
train_dataloader = dict(batch_size=28)
# 118,287 images in batches of 112.
train_cfg = dict(max_iters=147000, val_interval=10500)
optim_wrapper = dict(optimizer=dict(lr=5e-4))
param_scheduler = [
    dict(
        type='MultiStepLR',
        begin=0,
        end=147000,
        milestones=[94500, 126000],
        gamma=0.1,
        by_epoch=False,
    )
]
auto_scale_lr = dict(base_batch_size=112)
default_hooks = dict(checkpoint=dict(interval=10500))
load_from = None
