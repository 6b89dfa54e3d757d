# The sum of DBNet, 5 * balanced BCE + Dice, on disks of radius 1.2 cells.
_base_ = './hm-focal_mini_tiny-res_figures-56x56-14.py'

loss = dict(
    _delete_=True,
    type='mmloss_plugins.MultiLoss',
    terms=dict(
        balanced_bce=dict(type='mmloss_plugins.BalancedBCELoss'),
        dice=dict(type='mmloss_plugins.DiceLoss'),
    ),
    weights=dict(balanced_bce=5.0, dice=1.0),
)
model = dict(head=dict(loss=loss))
