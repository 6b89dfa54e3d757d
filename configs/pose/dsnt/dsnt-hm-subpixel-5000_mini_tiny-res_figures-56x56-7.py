_base_ = './dsnt-hm-subpixel_mini_tiny-res_figures-56x56-7.py'

train_cfg = dict(max_iters=5000, val_interval=1000)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=50, end=5000, eta_min=1e-5),
]
