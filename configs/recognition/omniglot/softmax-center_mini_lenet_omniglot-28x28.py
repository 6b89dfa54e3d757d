_base_ = './softmax_mini_lenet_omniglot-28x28.py'

model = dict(
    aux_losses=dict(
        center=dict(
            type='mmloss_plugins.CenterLoss', num_classes=136, feat_dim=64, loss_weight=0.03
        )
    )
)
