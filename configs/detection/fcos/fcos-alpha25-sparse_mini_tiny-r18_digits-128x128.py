_base_ = './fcos-alpha25_mini_tiny-r18_digits-128x128.py'

model = dict(bbox_head=dict(center_sample_radius=0.5))
