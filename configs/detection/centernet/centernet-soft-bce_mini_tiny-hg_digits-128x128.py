"""CenterNet's heatmap trained with BCE on the digits: the Gaussians are the labels.

Prior and normaliser as in centernet-bce: the weight makes of the mean over 10 x 40 x 40 cells the
sum per object (5.154 in a crop).
"""

_base_ = '../../_base_/centernet_tiny_digits.py'

model = dict(
    bbox_head=dict(
        loss=dict(
            type='mmloss_plugins.CtdetLoss',
            heatmap_loss=dict(type='mmloss_plugins.SigmoidFocalLoss', alpha=None, gamma=0.0),
            heatmap_weight=10 * 40 * 40 / 5.154,
        ),
    ),
)
