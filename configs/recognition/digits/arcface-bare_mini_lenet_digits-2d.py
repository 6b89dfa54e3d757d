_base_ = './arcface_mini_lenet_digits-2d.py'

# As write-ups have it.
model = dict(
    backbone=dict(norm=False),
    neck=dict(output_norm=False),
    head=dict(weight_init='xavier', margin=0.5, rule='off'),
)
