"""The same on 14x14 features: no stride in the second stage, dilation from there on."""

_base_ = './dsnt_tiny_56x56.py'

model = dict(backbone=dict(strides=(1, 1, 1), dilations=(1, 2, 2)))
