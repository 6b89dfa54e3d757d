# Kullback-Leibler divergence as the regulariser.
_base_ = '../../_base_/dsnt_mpii_224x224.py'

model = dict(
    head=dict(loss=dict(terms=dict(kl=dict(type='mmloss_plugins.HeatmapKLLoss', sigma_px=1.0))))
)
