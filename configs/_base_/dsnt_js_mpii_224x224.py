"""DSNT with the Jensen-Shannon regulariser, lambda 1 and sigma 1 px of the map, on MPII."""

_base_ = './dsnt_mpii_224x224.py'

model = dict(
    head=dict(
        loss=dict(terms=dict(js=dict(type='mmloss_plugins.HeatmapJSLoss', sigma_px=1.0))),
    ),
)
