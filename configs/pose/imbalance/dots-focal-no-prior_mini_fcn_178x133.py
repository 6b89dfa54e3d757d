_base_ = './dots-focal_mini_fcn_178x133.py'

model = dict(prior_prob=None)
