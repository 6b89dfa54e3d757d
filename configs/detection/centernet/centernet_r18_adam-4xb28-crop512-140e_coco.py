# ResNet-18 without deformable convolutions.
_base_ = '../../_base_/centernet_coco_512x512.py'

model = dict(neck=dict(use_dcn=False))
