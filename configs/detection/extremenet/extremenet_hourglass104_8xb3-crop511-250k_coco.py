# The paper: 40.3 AP on the validation set at one scale, say the authors.
_base_ = '../../_base_/extremenet_coco_511x511.py'
