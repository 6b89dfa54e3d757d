_base_ = '../../_base_/omniglot_28x28.py'

# Without a bias and with weights of length 1, the length of the embedding is all that can grow.
model = dict(
    neck=dict(output_scale=True),
    head=dict(type='mmloss_plugins.ModifiedSoftmaxHead'),
)
