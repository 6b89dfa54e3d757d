_base_ = '../../_base_/dsnt_tiny_56x56_14x14_500.py'

model = dict(
    head=dict(
        loss=dict(
            _delete_=True,
            type='mmloss_plugins.MultiLoss',
            terms=dict(
                coord=dict(type='mmloss_plugins.EuclideanLoss'),
                kl=dict(type='mmloss_plugins.HeatmapKLLoss', sigma_px=1.0),
            ),
        )
    )
)
