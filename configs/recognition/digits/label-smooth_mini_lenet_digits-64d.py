_base_ = './softmax_mini_lenet_digits-64d.py'

model = dict(head=dict(loss=dict(type='mmloss_plugins.LabelSmoothLoss', smoothing=0.1)))
