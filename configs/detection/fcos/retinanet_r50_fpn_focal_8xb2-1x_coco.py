# MMDetection's RetinaNet with our loss by its type alone.
_base_ = [
    'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
    '../../_base_/fcos_coco.py',
]

model = dict(bbox_head=dict(loss_cls=dict(type='mmloss_plugins.SigmoidFocalLoss')))
