_base_ = '../../_base_/pixel_dots_178x133.py'

# Without gamma and alpha focal loss is binary cross-entropy.
model = dict(
    prior_prob=0.01,
    loss=dict(type='mmloss_plugins.SigmoidFocalLoss', alpha=None, gamma=0.0, mean_over='positives'),
)
