# MSE on the heatmap, the authors' --mse_loss: linear output, mean over all cells. Ours: the output
# starts at 0 (their bias stays -2.19), and the Gaussians follow the size of the object.
_base_ = '../../_base_/centernet_coco_512x512.py'

heatmap_loss = dict(type='mmloss_plugins.HeatmapMSELoss', scale='mmpose')
loss = dict(type='mmloss_plugins.CtdetLoss', heatmap_loss=heatmap_loss)
model = dict(bbox_head=dict(prior_prob=0.5, loss=loss))
