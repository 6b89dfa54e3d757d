# A softmax over 17 keypoints and background in each pixel, a quarter of which is a keypoint's:
# those within 1.2 cells.
_base_ = './hm-focal_mini_tiny-res_figures-56x56-14.py'

loss = dict(_delete_=True, type='mmloss_plugins.PixelSoftmaxCELoss', mean_over='valid')
model = dict(head=dict(activation='pixel_softmax', target_threshold=None, loss=loss))
