# Fully connected baseline, 7x7 cells.
_base_ = '../../_base_/dsnt_fc_mpii_224x224.py'

model = dict(backbone=dict(dilated_stages=0), head=dict(heatmap_size=(7, 7)))
