_base_ = '../../_base_/reg_tiny_56x56.py'

# The trap: omega and epsilon are meant in pixels, but coordinates in [0, 1] are taken for pixels.
model = dict(head=dict(loss=dict(type='mmloss_plugins.WingLoss', omega=10.0, epsilon=2.0, scale=1)))
