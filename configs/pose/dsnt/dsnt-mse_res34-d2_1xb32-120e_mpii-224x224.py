# Squared difference as the regulariser.
_base_ = '../../_base_/dsnt_mpii_224x224.py'

model = dict(
    head=dict(
        loss=dict(terms=dict(mse=dict(type='mmloss_plugins.HeatmapMSERegLoss', sigma_px=1.0)))
    )
)
