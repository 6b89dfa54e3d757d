_base_ = './softmax_lenetpp_mnist-2d.py'

# The centres move as the paper's equation 4 has it.
model = dict(
    aux_losses=dict(
        center=dict(
            type='mmloss_plugins.CenterLoss',
            num_classes=10,
            feat_dim=2,
            update='moving_average',
            rate=0.5,
            loss_weight=0.01,
        )
    )
)
