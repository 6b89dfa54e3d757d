# ResNet-18, 56x56 cells.
_base_ = '../../_base_/dsnt_js_mpii_224x224.py'

model = dict(
    backbone=dict(
        depth=18,
        dilated_stages=3,
        init_cfg=dict(checkpoint='torchvision://resnet18'),
    ),
)
