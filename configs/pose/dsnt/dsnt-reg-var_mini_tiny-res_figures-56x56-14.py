# lambda = 100 of the paper, in normalised units at 28 cells, is 100 * (28 / 2)**-4 = 0.0026 in px.
_base_ = '../../_base_/dsnt_tiny_56x56_14x14_500.py'

model = dict(
    head=dict(
        loss=dict(
            _delete_=True,
            type='mmloss_plugins.MultiLoss',
            terms=dict(
                coord=dict(type='mmloss_plugins.EuclideanLoss'),
                var=dict(
                    type='mmloss_plugins.HeatmapVarianceLoss', loss_weight=0.0026, sigma_px=1.0
                ),
            ),
        )
    )
)
