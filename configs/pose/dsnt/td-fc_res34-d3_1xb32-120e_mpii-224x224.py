# Fully connected baseline, 56x56 cells.
_base_ = '../../_base_/dsnt_fc_mpii_224x224.py'

model = dict(backbone=dict(dilated_stages=3), head=dict(heatmap_size=(56, 56)))
