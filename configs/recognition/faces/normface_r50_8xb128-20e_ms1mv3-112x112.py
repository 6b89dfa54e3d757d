_base_ = '../../_base_/faces_112x112.py'

model = dict(head=dict(type='mmloss_plugins.NormFaceHead', scale=64))
