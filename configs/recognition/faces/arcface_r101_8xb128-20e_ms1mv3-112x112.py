_base_ = './arcface_r50_8xb128-20e_ms1mv3-112x112.py'

model = dict(backbone=dict(depth=101))
