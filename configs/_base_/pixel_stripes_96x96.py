"""Lines of text among solid bars, 1.7 % foreground, 200 steps."""

_base_ = './pixel_runtime.py'

model = dict(depth=4)
train_dataloader = dict(
    batch_size=8, dataset=dict(type='mmloss_plugins.StripesDataset', split='train', num_images=256)
)
val_dataloader = dict(
    batch_size=8, dataset=dict(type='mmloss_plugins.StripesDataset', split='val', num_images=64)
)
test_dataloader = val_dataloader

train_cfg = dict(by_epoch=False, max_iters=200, val_interval=10)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=3e-3))
