_base_ = '../../_base_/dsnt_tiny_mouse.py'

model = dict(
    head=dict(
        loss=dict(
            _delete_=True,
            type='mmloss_plugins.MultiLoss',
            terms=dict(
                coord=dict(type='mmloss_plugins.EuclideanLoss'),
                js=dict(type='mmloss_plugins.HeatmapJSLoss', sigma_px=1.0),
            ),
        )
    )
)
