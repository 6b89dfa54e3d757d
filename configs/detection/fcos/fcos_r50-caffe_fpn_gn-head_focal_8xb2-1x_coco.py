# FCOS as first published. MMDetection's config has all of it but the threshold of the NMS.
_base_ = [
    'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
    '../../_base_/fcos_coco.py',
]

model = dict(
    bbox_head=dict(loss_cls=dict(type='mmloss_plugins.SigmoidFocalLoss')),
    test_cfg=dict(nms=dict(iou_threshold=0.6)),
)
