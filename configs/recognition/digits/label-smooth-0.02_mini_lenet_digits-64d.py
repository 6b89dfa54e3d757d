_base_ = './label-smooth_mini_lenet_digits-64d.py'

model = dict(head=dict(loss=dict(smoothing=0.02)))
