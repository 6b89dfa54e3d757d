# Tested on five scales, each mirrored as well, joined by soft-NMS: 33.2 AP, say the authors.
_base_ = '../../_base_/centernet_coco_512x512.py'

nms = dict(type='soft_nms', iou_threshold=0.5, sigma=0.5, min_score=0.001, method='gaussian')
model = dict(test_cfg=dict(flip_test=True, scales=(0.5, 0.75, 1.0, 1.25, 1.5), nms=nms))
