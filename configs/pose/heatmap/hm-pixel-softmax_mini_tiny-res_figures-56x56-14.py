# A softmax over 17 keypoints and background in each pixel; a quarter of the pixels is a keypoint's.
_base_ = './hm-mse_mini_tiny-res_figures-56x56-14.py'

loss = dict(_delete_=True, type='mmloss_plugins.PixelSoftmaxCELoss', mean_over='valid')
model = dict(head=dict(activation='pixel_softmax', loss=loss))
