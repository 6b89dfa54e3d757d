# No paper trains this row: CenterNet's loss on SimpleBaseline's Gaussians of sigma 2.
_base_ = './td-hm_res50_mse_8xb64-210e_coco-256x192.py'

loss = dict(_delete_=True, type='mmloss_plugins.GaussianFocalLoss')
model = dict(head=dict(activation='sigmoid', prior_prob=0.1, loss=loss))
