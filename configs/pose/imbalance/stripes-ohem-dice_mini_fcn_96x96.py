_base_ = '../../_base_/pixel_stripes_96x96.py'

# The weights of DB: 5 for the balanced cross-entropy, 1 for Dice.
model = dict(
    loss=dict(
        type='mmloss_plugins.MultiLoss',
        terms=dict(
            ohem=dict(type='mmloss_plugins.BalancedBCELoss', negative_ratio=3),
            dice=dict(type='mmloss_plugins.DiceLoss'),
        ),
        weights=dict(ohem=5.0),
    )
)
