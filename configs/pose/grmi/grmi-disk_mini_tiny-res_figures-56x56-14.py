# The same network without its offsets: the centre of the most probable cell.
_base_ = './grmi_mini_tiny-res_figures-56x56-14.py'

model = dict(head=dict(decoder=dict(decode_mode='disk')))
