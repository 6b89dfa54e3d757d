# DSNT without regularisation, 56x56 cells.
_base_ = '../../_base_/dsnt_mpii_224x224.py'

model = dict(backbone=dict(dilated_stages=3))
