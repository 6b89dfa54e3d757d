_base_ = '../../_base_/digits_2d.py'

model = dict(head=dict(type='mmloss_plugins.SoftmaxHead', bias=False))
# Its weights, of length 1 at first, have to grow until it can be sure; centres follow the classes.
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys={'head': dict(lr_mult=10), 'aux_losses': dict(lr_mult=10)})
)
