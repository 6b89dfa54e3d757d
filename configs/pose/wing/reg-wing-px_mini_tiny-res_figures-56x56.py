_base_ = '../../_base_/reg_tiny_56x56.py'

# Coordinates are in [0, 1]: scale says that one unit is 56 pixels, so that errors reach omega.
model = dict(
    head=dict(loss=dict(type='mmloss_plugins.WingLoss', omega=10.0, epsilon=2.0, scale=(56, 56)))
)
