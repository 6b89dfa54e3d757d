_base_ = '../../_base_/pixel_stripes_96x96.py'

model = dict(loss=dict(type='mmloss_plugins.BalancedBCELoss', negative_ratio=3))
