_base_ = './fcos-focal_mini_tiny-r18_digits-128x128.py'

model = dict(bbox_head=dict(init_cfg=dict(override=dict(bias_prob=0.5))))
