# No paper trains this row: the sum of DBNet, 5 * balanced BCE + Dice, on disks of radius 2.4 cells.
_base_ = './td-hm_res50_mse_8xb64-210e_coco-256x192.py'

loss = dict(
    _delete_=True,
    type='mmloss_plugins.MultiLoss',
    terms=dict(
        balanced_bce=dict(type='mmloss_plugins.BalancedBCELoss'),
        dice=dict(type='mmloss_plugins.DiceLoss'),
    ),
    weights=dict(balanced_bce=5.0, dice=1.0),
)
model = dict(head=dict(activation='sigmoid', target_threshold=0.5, loss=loss))
