_base_ = './hm-spatial-softmax_mini_tiny-res_figures-56x56-14.py'

model = dict(head=dict(loss=dict(label='one_hot')))
