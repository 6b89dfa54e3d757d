# A Gaussian of sigma 1 between four cells peaks at 0.78: with CenterNet's threshold of 1 no cell
# would be positive.
_base_ = './hm-focal_mini_tiny-res_figures-56x56-14.py'

loss = dict(_delete_=True, type='mmloss_plugins.GaussianFocalLoss', pos_threshold=0.75)
model = dict(head=dict(target_threshold=None, loss=loss))
