# 2 stacked hourglasses.
_base_ = '../../_base_/dsnt_hg_hm_mpii_256x256.py'

model = dict(backbone=dict(num_stacks=2), head=dict(num_stages=2))
