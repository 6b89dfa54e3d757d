_base_ = './fcos-focal_mini_tiny-r18_digits-128x128.py'

# Without gamma and alpha focal loss is binary cross-entropy.
model = dict(bbox_head=dict(loss_cls=dict(alpha=None, gamma=0.0)))
