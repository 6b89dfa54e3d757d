# No paper trains this row; the setup is SimpleBaseline's, the label its Gaussian of sigma 2.
_base_ = './td-hm_res50_mse_8xb64-210e_coco-256x192.py'

loss = dict(_delete_=True, type='mmloss_plugins.SpatialSoftmaxCELoss')
model = dict(head=dict(activation='spatial_softmax', loss=loss))
