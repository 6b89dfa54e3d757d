_base_ = '../../_base_/pixel_dots_178x133.py'

model = dict(
    prior_prob=0.01,
    loss=dict(type='mmloss_plugins.SigmoidFocalLoss', alpha=0.25, gamma=2.0, mean_over='positives'),
)
