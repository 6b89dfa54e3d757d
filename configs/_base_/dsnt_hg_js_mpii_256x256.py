"""DSNT with the Jensen-Shannon regulariser on stacked hourglasses, on MPII."""

_base_ = './dsnt_hg_mpii_256x256.py'

model = dict(
    head=dict(
        loss=dict(terms=dict(js=dict(type='mmloss_plugins.HeatmapJSLoss', sigma_px=1.0))),
    ),
)
