_base_ = './dsnt-half-fc-left_mini_tiny-res_mirror-mouse-128x64.py'

val_dataloader = _base_.right_half
test_dataloader = val_dataloader
