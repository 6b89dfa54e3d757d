# FCOS with the improvements of its second version.
_base_ = [
    'mmdet::fcos/fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco.py',
    '../../_base_/fcos_coco.py',
]

model = dict(bbox_head=dict(loss_cls=dict(type='mmloss_plugins.SigmoidFocalLoss')))
