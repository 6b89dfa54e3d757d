_base_ = ['../../_base_/mirror_mouse_64x64.py', '../../_base_/td-hm_tiny_64x64.py']

train_pipeline = [
    dict(type='LoadImage'),
    dict(type='GetBBoxCenterScale', padding=1.0),
    dict(type='RandomBBoxTransform', scale_factor=(0.9, 1.1), rotate_factor=10),
    dict(type='TopdownAffine', input_size=(64, 64)),
    *_base_.target_pipeline,
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
