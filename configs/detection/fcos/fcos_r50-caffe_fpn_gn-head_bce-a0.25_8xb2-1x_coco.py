_base_ = './fcos_r50-caffe_fpn_gn-head_focal_8xb2-1x_coco.py'

model = dict(bbox_head=dict(loss_cls=dict(alpha=0.25, gamma=0.0)))
