_base_ = './hm-mse_mini_tiny-res_figures-56x56-14.py'

loss = dict(_delete_=True, type='mmloss_plugins.SpatialSoftmaxCELoss', mean_over='valid')
model = dict(head=dict(activation='spatial_softmax', loss=loss))
