# Tested on the image and the mirrored one, maps averaged: 30.0 AP, say the authors.
_base_ = '../../_base_/centernet_coco_512x512.py'

model = dict(test_cfg=dict(flip_test=True))
