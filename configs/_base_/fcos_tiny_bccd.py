"""The network and schedule of fcos_tiny_digits on blood cells; maps of 32x24, 16x12 and 8x6."""

_base_ = ['./fcos_tiny_digits.py', './bccd_256x192.py']

data_root = _base_.bccd_root
train_ann_file = _base_.bccd_train_ann_file
val_ann_file = _base_.bccd_val_ann_file
metainfo = _base_.bccd_metainfo
train_pipeline = _base_.bccd_train_pipeline
train_dataloader = dict(_delete_=True, **_base_.bccd_train_dataloader)
val_dataloader = dict(_delete_=True, **_base_.bccd_val_dataloader)
test_dataloader = val_dataloader
val_evaluator = dict(_delete_=True, **_base_.bccd_evaluator)
test_evaluator = val_evaluator
custom_hooks = _base_.bccd_hooks

model = dict(bbox_head=dict(num_classes=3))
