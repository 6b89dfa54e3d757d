_base_ = './softmax_lenetpp_mnist-2d.py'

model = dict(head=dict(loss=dict(type='mmloss_plugins.LabelSmoothLoss', smoothing=0.1)))
