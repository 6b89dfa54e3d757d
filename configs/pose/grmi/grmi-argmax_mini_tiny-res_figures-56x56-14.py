# The same network, decoded by the most probable cell and its offset.
_base_ = './grmi_mini_tiny-res_figures-56x56-14.py'

model = dict(head=dict(decoder=dict(decode_mode='argmax')))
