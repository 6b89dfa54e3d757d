_base_ = '../../_base_/dsnt_tiny_mouse.py'

model = dict(head=dict(type='mmloss_plugins.FCHeatmapHead', heatmap_size=(8, 8)))
