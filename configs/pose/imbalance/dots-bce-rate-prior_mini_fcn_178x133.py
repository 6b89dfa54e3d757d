_base_ = './dots-bce_mini_fcn_178x133.py'

# The share of foreground among the pixels.
model = dict(prior_prob=4 / (178 * 133))
