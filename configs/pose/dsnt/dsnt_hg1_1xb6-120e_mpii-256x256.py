# 1 stacked hourglass.
_base_ = '../../_base_/dsnt_hg_mpii_256x256.py'
