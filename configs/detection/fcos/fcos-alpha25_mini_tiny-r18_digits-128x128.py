_base_ = './fcos-focal_mini_tiny-r18_digits-128x128.py'

model = dict(bbox_head=dict(loss_cls=dict(gamma=0.0)))
