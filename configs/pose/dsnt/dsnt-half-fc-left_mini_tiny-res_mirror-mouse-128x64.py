_base_ = './dsnt-half-js-left_mini_tiny-res_mirror-mouse-128x64.py'

model = dict(
    head=dict(
        type='mmloss_plugins.FCHeatmapHead',
        heatmap_size=(16, 8),
        loss=dict(_delete_=True, type='mmloss_plugins.EuclideanLoss'),
    )
)
