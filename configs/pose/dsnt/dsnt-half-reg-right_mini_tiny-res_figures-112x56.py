_base_ = './dsnt-half-reg-left_mini_tiny-res_figures-112x56.py'

val_dataloader = _base_.right_half
test_dataloader = val_dataloader
