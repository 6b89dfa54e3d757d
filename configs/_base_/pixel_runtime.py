"""What the pixel minis share: a small network of ours, batches by the run's seed, pixel AP."""

_base_ = './mini_runtime.py'

model = dict(type='mmloss_plugins.PixelClassifier', channels=16)
train_dataloader = dict(
    num_workers=0,  # samples stay in memory: a worker would draw them again
    # MMEngine's step-based loop sleeps two seconds whenever another sampler starts anew.
    sampler=dict(type='InfiniteSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
)
val_dataloader = dict(
    num_workers=0,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    collate_fn=dict(type='default_collate'),
)
val_evaluator = dict(type='mmloss_plugins.PixelAveragePrecision')
test_evaluator = val_evaluator
custom_hooks = [dict(type='mmloss_plugins.LossDiagnosticsHook', interval=10)]
# Each validation falls on a logged step, which gives it its place on the curves.
default_hooks = dict(logger=dict(interval=10))
log_processor = dict(window_size=10)
