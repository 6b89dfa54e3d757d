_base_ = '../../_base_/digits_2d.py'

# BatchNorm centres the embedding, so that classes lie on all sides of the origin.
model = dict(
    neck=dict(output_norm=True),
    head=dict(type='mmloss_plugins.NormFaceHead', scale=16),
)
