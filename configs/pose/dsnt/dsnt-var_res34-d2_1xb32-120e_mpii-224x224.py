# Variance; the lambda of 100 belongs to coordinates in (-1, 1), at 28 cells 2.6e-3 per px^4.
_base_ = '../../_base_/dsnt_mpii_224x224.py'

model = dict(
    head=dict(
        loss=dict(
            terms=dict(
                var=dict(
                    type='mmloss_plugins.HeatmapVarianceLoss',
                    sigma_px=1.0,
                    unit='normalized',
                    loss_weight=100.0,
                )
            )
        )
    )
)
