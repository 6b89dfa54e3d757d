_base_ = '../../_base_/dsnt_tiny_56x56.py'

model = dict(head=dict(type='mmloss_plugins.FCHeatmapHead', heatmap_size=(7, 7)))
