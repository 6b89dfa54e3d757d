_base_ = './bnneck_r50_1xb64-120e_market1501-256x128.py'

# Theirs is 5e-4 times the mean squared distance, of which CenterLoss has half, and an SGD at 0.5
# moves the centres by the sum of the differences over 64: with four pictures of each identity,
# 5 / 64 of that sum over 1 + 4.
model = dict(
    aux_losses=dict(
        center=dict(
            type='mmloss_plugins.CenterLoss',
            num_classes={{_base_.num_identities}},
            feat_dim=2048,
            update='moving_average',
            rate=5 / 64,
            init_std=1.0,
            loss_weight=1e-3,
        )
    )
)
