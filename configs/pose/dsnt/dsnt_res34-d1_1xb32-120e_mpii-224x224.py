# DSNT without regularisation, 14x14 cells.
_base_ = '../../_base_/dsnt_mpii_224x224.py'

model = dict(backbone=dict(dilated_stages=1))
