# ResNet-18, 14x14 cells.
_base_ = '../../_base_/dsnt_js_mpii_224x224.py'

model = dict(
    backbone=dict(
        depth=18,
        dilated_stages=1,
        init_cfg=dict(checkpoint='torchvision://resnet18'),
    ),
)
