_base_ = '../../_base_/omniglot_28x28.py'

model = dict(head=dict(type='mmloss_plugins.SoftmaxHead'))
