_base_ = './hm-mse_mini_tiny-res_mirror-mouse-64x64-16.py'

loss = dict(_delete_=True, type='mmloss_plugins.SpatialSoftmaxCELoss', mean_over='valid')
model = dict(head=dict(activation='spatial_softmax', loss=loss))
