_base_ = ['../../_base_/figures_64x64.py', '../../_base_/td-hm_tiny_64x64.py']

train_pipeline = [
    dict(type='LoadImage'),
    dict(type='GetBBoxCenterScale'),
    dict(type='RandomBBoxTransform', scale_factor=(0.8, 1.2), rotate_factor=40),
    dict(type='TopdownAffine', input_size=(64, 64)),
    *_base_.target_pipeline,
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
