"""The same on 14x14 features at a budget of 500 steps."""

_base_ = './dsnt_tiny_56x56_14x14.py'

train_cfg = dict(max_iters=500, val_interval=100)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=50, end=500, eta_min=1e-5),
]
