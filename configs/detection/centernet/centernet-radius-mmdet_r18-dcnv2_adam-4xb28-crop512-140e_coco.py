# MMDetection's radius of the Gaussians: the corrected formula at an overlap of 0.3.
_base_ = '../../_base_/centernet_coco_512x512.py'

model = dict(bbox_head=dict(radius_impl='mmdet'))
