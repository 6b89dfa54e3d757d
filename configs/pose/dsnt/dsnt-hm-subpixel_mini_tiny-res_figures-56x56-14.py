# The heatmaps of ../heatmap (true position, sub-pixel decoder) at the budget of DSNT.
_base_ = '../heatmap/hm-mse_mini_tiny-res_figures-56x56-14.py'

train_cfg = dict(max_iters=2500, val_interval=500)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=50, end=2500, eta_min=1e-5),
]
