_base_ = './dsnt-reg-js_mini_tiny-res_mirror-mouse-64x64.py'

model = dict(head=dict(normalization='relu'))
