# 8 stacked hourglasses.
_base_ = '../../_base_/dsnt_hg_js_mpii_256x256.py'

model = dict(backbone=dict(num_stacks=8), head=dict(num_stages=8))
