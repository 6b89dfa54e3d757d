# Heatmap baseline, 28x28 cells.
_base_ = '../../_base_/dsnt_hm_mpii_224x224.py'

codec = dict(type='MSRAHeatmap', input_size=(224, 224), heatmap_size=(28, 28), sigma=1)
model = dict(backbone=dict(dilated_stages=2), head=dict(decoder=codec))
train_pipeline = _base_.train_pipeline
train_pipeline[-2] = dict(type='GenerateTarget', encoder=codec)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
