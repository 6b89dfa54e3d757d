"""The tiny ResNet without the stride of its second stage: 14x14 features of a 56x56 input."""

_base_ = './tiny_pose_700.py'

model = dict(backbone=dict(strides=(1, 1, 1), dilations=(1, 2, 2)))
