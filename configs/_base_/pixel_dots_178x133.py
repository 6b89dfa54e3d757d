"""One 2x2 dot among twelve look-alikes on a map 178 wide and 133 high, 250 steps."""

_base_ = './pixel_runtime.py'

model = dict(depth=3)
train_dataloader = dict(
    batch_size=4, dataset=dict(type='mmloss_plugins.DotsDataset', split='train', num_images=256)
)
val_dataloader = dict(
    batch_size=4, dataset=dict(type='mmloss_plugins.DotsDataset', split='val', num_images=32)
)
test_dataloader = val_dataloader

train_cfg = dict(by_epoch=False, max_iters=250, val_interval=10)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=1e-3))
