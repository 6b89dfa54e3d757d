# DSNT without regularisation, 28x28 cells.
_base_ = '../../_base_/dsnt_mpii_224x224.py'
