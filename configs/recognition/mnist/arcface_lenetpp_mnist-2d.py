_base_ = '../../_base_/mnist_2d.py'

# With s and m alone classes may fall together; around the origin, started on a circle and parted
# before the margin draws them together they do not.
model = dict(
    neck=dict(output_norm=True),
    head=dict(
        type='mmloss_plugins.ArcFaceHead',
        scale=32,
        margin=dict(type='linear', start=0.0, stop=0.5, begin=0, end=4000, by_epoch=False),
        weight_init='circle',
    ),
)
