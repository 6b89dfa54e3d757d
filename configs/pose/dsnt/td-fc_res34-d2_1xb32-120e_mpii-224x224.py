# Fully connected baseline, 28x28 cells.
_base_ = '../../_base_/dsnt_fc_mpii_224x224.py'
