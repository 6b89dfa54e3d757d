_base_ = '../../_base_/reg_tiny_56x56.py'

# Coordinates are in [0, 1]: scale says that one unit is 56 pixels.
model = dict(
    head=dict(loss=dict(type='mmloss_plugins.MSELoss', scale=(56, 56), mean_over='samples'))
)
