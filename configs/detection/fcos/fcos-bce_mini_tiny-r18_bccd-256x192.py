_base_ = './fcos-focal_mini_tiny-r18_bccd-256x192.py'

# Without gamma and alpha focal loss is binary cross-entropy.
model = dict(bbox_head=dict(loss_cls=dict(alpha=None, gamma=0.0)))
