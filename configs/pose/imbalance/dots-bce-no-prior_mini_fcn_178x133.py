_base_ = './dots-bce_mini_fcn_178x133.py'

model = dict(prior_prob=None)
