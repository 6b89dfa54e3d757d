_base_ = '../../_base_/faces_112x112.py'

# The weight that the authors of centre loss took for faces.
model = dict(
    head=dict(type='mmloss_plugins.SoftmaxHead'),
    aux_losses=dict(
        center=dict(
            type='mmloss_plugins.CenterLoss',
            num_classes={{_base_.num_identities}},
            feat_dim=512,
            update='moving_average',
            rate=0.5,
            loss_weight=0.008,
        )
    ),
)
