_base_ = './arcface_r50_8xb128-20e_ms1mv3-112x112.py'

model = dict(head=dict(margin=0.0, cosine_margin=0.35))
