"""CenterNet's heatmap trained with MSE on the digits: linear output, as the authors' --mse_loss.

Squared errors without a sigmoid do not saturate, which makes this the stronger form of MSE. The
output starts at 0 (a prior of 0.5 is a bias of 0), the best constant but for the few peaks. The
weight makes of the mean over 10 x 40 x 40 cells the sum per object (5.154 in a crop), the
normaliser of the focal loss.
"""

_base_ = '../../_base_/centernet_tiny_digits.py'

model = dict(
    bbox_head=dict(
        prior_prob=0.5,
        loss=dict(
            type='mmloss_plugins.CtdetLoss',
            heatmap_loss=dict(type='mmloss_plugins.HeatmapMSELoss', scale='mmpose'),
            heatmap_weight=10 * 40 * 40 / 5.154,
        ),
    ),
)
