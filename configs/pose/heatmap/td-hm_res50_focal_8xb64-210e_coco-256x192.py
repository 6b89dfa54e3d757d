# No paper trains this row. Alpha, gamma, prior and normaliser of RetinaNet on hard labels: disks of
# radius 2.4 cells, where the Gaussian of sigma 2 is above 0.5.
_base_ = './td-hm_res50_mse_8xb64-210e_coco-256x192.py'

loss = dict(_delete_=True, type='mmloss_plugins.SigmoidFocalLoss', mean_over='positives')
model = dict(head=dict(activation='sigmoid', prior_prob=0.01, target_threshold=0.5, loss=loss))
