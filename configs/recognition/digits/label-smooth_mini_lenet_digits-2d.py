_base_ = './softmax_mini_lenet_digits-2d.py'

model = dict(head=dict(loss=dict(type='mmloss_plugins.LabelSmoothLoss', smoothing=0.1)))
