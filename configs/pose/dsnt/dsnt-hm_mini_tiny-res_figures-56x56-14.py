_base_ = './dsnt-hm_mini_tiny-res_figures-56x56-7.py'

codec = dict(type='MSRAHeatmap', input_size=(56, 56), heatmap_size=(14, 14), sigma=1)
model = dict(backbone=dict(strides=(1, 1, 1), dilations=(1, 2, 2)), head=dict(decoder=codec))
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='GetBBoxCenterScale'),
    dict(type='RandomBBoxTransform', scale_factor=(0.8, 1.2), rotate_factor=40),
    dict(type='TopdownAffine', input_size=(56, 56)),
    dict(type='GenerateTarget', encoder=codec),
    dict(type='PackPoseInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
