# No paper trains this row. A keypoint owns the pixels within 2.4 cells (a Gaussian of sigma 2 above
# 0.5), a tenth of the map all together; the background's weight makes up for it.
_base_ = './td-hm_res50_mse_8xb64-210e_coco-256x192.py'

loss = dict(
    _delete_=True, type='mmloss_plugins.PixelSoftmaxCELoss', class_weight=[1.0] * 17 + [0.1]
)
model = dict(head=dict(activation='pixel_softmax', loss=loss))
