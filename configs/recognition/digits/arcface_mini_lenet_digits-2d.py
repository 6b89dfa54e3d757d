_base_ = '../../_base_/digits_2d.py'

# BatchNorm centres the embedding, so that classes lie on all sides of the origin. Classes part
# before the margin draws them together.
model = dict(
    neck=dict(output_norm=True),
    head=dict(
        type='mmloss_plugins.ArcFaceHead',
        scale=32,
        margin=dict(type='linear', start=0.0, stop=0.5, begin=0, end=400, by_epoch=False),
    ),
)
