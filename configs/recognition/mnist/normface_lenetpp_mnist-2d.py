_base_ = '../../_base_/mnist_2d.py'

model = dict(head=dict(type='mmloss_plugins.NormFaceHead', scale=16))
