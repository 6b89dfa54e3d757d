# lambda = 100 in normalised units at 14 cells, 100 * (14 / 2)**-4 in px: the paper's number copied.
_base_ = './dsnt-reg-var_mini_tiny-res_figures-56x56-14.py'

var = dict(loss_weight=100.0, unit='normalized')
model = dict(head=dict(loss=dict(terms=dict(var=var))))
