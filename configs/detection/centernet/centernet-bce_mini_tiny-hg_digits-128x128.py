"""CenterNet's heatmap trained with BCE on the digits: one-hot, only the cell of a centre is 1.

Both exponents of the focal loss are 0, which leaves log p there and log(1 - p) in all other cells,
however near; prior and normaliser (the objects) are those of the focal loss.
"""

_base_ = '../../_base_/centernet_tiny_digits.py'

model = dict(
    bbox_head=dict(
        loss=dict(
            type='mmloss_plugins.CtdetLoss',
            heatmap_loss=dict(type='mmloss_plugins.GaussianFocalLoss', alpha=0.0, beta=0.0),
        ),
    ),
)
