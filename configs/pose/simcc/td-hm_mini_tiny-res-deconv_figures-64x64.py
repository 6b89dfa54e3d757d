# A stronger baseline than the twin: one deconvolution more, 16x16 heatmaps.
_base_ = './td-hm_mini_tiny-res_figures-64x64.py'

codec = dict(type='MSRAHeatmap', input_size=(64, 64), heatmap_size=(16, 16), sigma=1)
model = dict(head=dict(deconv_out_channels=(32,), deconv_kernel_sizes=(4,), decoder=codec))
train_pipeline = _base_.train_pipeline
train_pipeline[-2]['encoder'] = codec
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
