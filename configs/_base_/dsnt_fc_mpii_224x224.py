"""The paper's fully connected baseline on MPII: one linear layer from each map to (x, y)."""

_base_ = './dsnt_mpii_224x224.py'

model = dict(head=dict(type='mmloss_plugins.FCHeatmapHead', heatmap_size=(28, 28)))
