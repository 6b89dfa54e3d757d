_base_ = './dsnt-reg-js_mini_tiny-res_figures-56x56-14.py'

model = dict(head=dict(loss=dict(terms=dict(js=dict(sigma_px=4.0)))))
