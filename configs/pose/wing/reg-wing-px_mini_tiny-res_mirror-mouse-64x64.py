_base_ = './reg-l1_mini_tiny-res_mirror-mouse-64x64.py'

loss = dict(type='mmloss_plugins.WingLoss', omega=10.0, epsilon=2.0, scale=(64, 64))
model = dict(head=dict(loss=dict(_delete_=True, **loss)))
