# Size of the target Gaussian: sigma 0.5 px of the map (1 in dsnt-js_res34-d2).
_base_ = '../../_base_/dsnt_js_mpii_224x224.py'

model = dict(head=dict(loss=dict(terms=dict(js=dict(sigma_px=0.5)))))
