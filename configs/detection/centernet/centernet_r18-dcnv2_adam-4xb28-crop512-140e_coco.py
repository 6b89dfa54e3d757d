# ResNet-18 with deformable convolutions: 28.1 AP, 142 images/s, say the authors.
_base_ = '../../_base_/centernet_coco_512x512.py'
