# Strength of the regulariser: lambda 0.2 (1 in dsnt-js_res34-d2).
_base_ = '../../_base_/dsnt_js_mpii_224x224.py'

model = dict(head=dict(loss=dict(weights=dict(js=0.2))))
