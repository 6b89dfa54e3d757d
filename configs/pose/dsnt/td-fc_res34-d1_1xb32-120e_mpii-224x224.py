# Fully connected baseline, 14x14 cells.
_base_ = '../../_base_/dsnt_fc_mpii_224x224.py'

model = dict(backbone=dict(dilated_stages=1), head=dict(heatmap_size=(14, 14)))
