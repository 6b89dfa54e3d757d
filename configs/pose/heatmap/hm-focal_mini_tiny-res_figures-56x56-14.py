# RetinaNet's focal loss on disks of radius 1.2 cells, over the number of positive cells.
_base_ = './hm-mse_mini_tiny-res_figures-56x56-14.py'

codec = dict(_base_.codec, sigma=1)
loss = dict(_delete_=True, type='mmloss_plugins.SigmoidFocalLoss', mean_over='positives')
model = dict(head=dict(activation='sigmoid', target_threshold=0.5, loss=loss, decoder=codec))
train_pipeline = _base_.train_pipeline
train_pipeline[-2]['encoder'] = codec
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
