"""The tiny ResNet at a short budget of 700 steps: 7x7 features of a 56x56 input."""

_base_ = './tiny_pose_2500.py'

train_cfg = dict(max_iters=700, val_interval=100)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=50, end=700, eta_min=1e-5),
]
