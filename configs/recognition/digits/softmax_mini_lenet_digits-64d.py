_base_ = './softmax_mini_lenet_digits-2d.py'

# Five images of each class and nothing that holds weights back: wrong and sure of it.
model = dict(neck=dict(out_channels=64), head=dict(in_channels=64, weight_init='xavier'))
train_dataloader = dict(batch_size=50, dataset=dict(per_class=5))
train_cfg = dict(max_iters=500, val_interval=50)
optim_wrapper = dict(optimizer=dict(weight_decay=0))
param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=False, T_max=500)]
