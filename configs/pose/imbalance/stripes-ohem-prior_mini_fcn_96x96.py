_base_ = './stripes-ohem_mini_fcn_96x96.py'

model = dict(prior_prob=0.01)
