_base_ = './softmax_mini_lenet_digits-2d.py'

model = dict(
    aux_losses=dict(
        center=dict(type='mmloss_plugins.CenterLoss', num_classes=10, feat_dim=2, loss_weight=0.1)
    )
)
