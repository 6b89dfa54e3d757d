_base_ = '../../_base_/reg_tiny_56x56.py'

# Coordinates are in [0, 1]: scale says that one unit is 56 pixels, so that beta is one pixel.
model = dict(
    head=dict(
        loss=dict(type='mmloss_plugins.SmoothL1Loss', beta=1.0, scale=(56, 56), mean_over='samples')
    )
)
