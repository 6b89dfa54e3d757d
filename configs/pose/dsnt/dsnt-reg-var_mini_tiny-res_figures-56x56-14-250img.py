_base_ = './dsnt-reg-var_mini_tiny-res_figures-56x56-14.py'

train_dataloader = dict(dataset=dict(indices=250))
