_base_ = './softmax_mini_lenet_digits-2d.py'

# Both dimensions of the embedding keep a standard deviation of 1, as with NormFace and ArcFace.
model = dict(neck=dict(output_norm=True))
