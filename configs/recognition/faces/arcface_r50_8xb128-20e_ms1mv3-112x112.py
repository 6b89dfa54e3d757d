_base_ = '../../_base_/faces_112x112.py'

model = dict(head=dict(type='mmloss_plugins.ArcFaceHead', scale=64, margin=0.5))
