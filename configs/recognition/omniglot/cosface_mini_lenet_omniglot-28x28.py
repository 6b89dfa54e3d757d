_base_ = '../../_base_/omniglot_28x28.py'

model = dict(head=dict(type='mmloss_plugins.ArcFaceHead', scale=16, margin=0.0, cosine_margin=0.25))
