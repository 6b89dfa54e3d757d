_base_ = '../../_base_/pixel_stripes_96x96.py'

# Without gamma and alpha focal loss is binary cross-entropy.
model = dict(loss=dict(type='mmloss_plugins.SigmoidFocalLoss', alpha=None, gamma=0.0))
