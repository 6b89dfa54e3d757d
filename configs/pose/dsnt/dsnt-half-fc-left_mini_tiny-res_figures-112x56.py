_base_ = '../../_base_/dsnt_tiny_112x56_half.py'

model = dict(
    head=dict(
        type='mmloss_plugins.FCHeatmapHead',
        heatmap_size=(14, 7),
        loss=dict(_delete_=True, type='mmloss_plugins.EuclideanLoss'),
    )
)
