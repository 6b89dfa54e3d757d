"""A network with embeddings of two dimensions on scikit-learn's 8x8 digits, 1,000 steps."""

_base_ = './mini_runtime.py'

default_scope = 'mmdet'
visualizer = dict(
    type='DetLocalVisualizer',
    _delete_=True,
    name='visualizer',
    vis_backends=[dict(type='LocalVisBackend')],
)

model = dict(
    type='mmloss_plugins.EmbeddingClassifier',
    data_preprocessor=dict(type='mmloss_plugins.EmbeddingDataPreprocessor', mean=[8.0], std=[8.0]),
    backbone=dict(type='mmloss_plugins.LeNetPlusPlus', channels=(32, 64), kernel_size=3, norm=True),
    # The embedding as the fully connected layer gives it, as papers draw it.
    neck=dict(
        type='mmloss_plugins.ArcFaceNeck',
        in_channels=64,
        out_channels=2,
        feat_size=2,
        dropout=0,
        input_norm=False,
        output_norm=False,
    ),
    head=dict(in_channels=2, num_classes=10, weight_init='circle', with_scores=True),
)
train_dataloader = dict(
    batch_size=64,
    num_workers=0,  # the images are in memory
    # MMEngine's step-based loop sleeps two seconds whenever another sampler starts anew.
    sampler=dict(type='InfiniteSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='mmloss_plugins.DigitImages', split='train'),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=0,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='mmloss_plugins.DigitImages', split='val'),
)
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='mmloss_plugins.ClassAccuracy'),
    dict(type='mmloss_plugins.EmbeddingSpread'),
    dict(type='mmloss_plugins.CalibrationError'),
]
test_evaluator = val_evaluator
train_cfg = dict(type='IterBasedTrainLoop', max_iters=1000, val_interval=100)
optim_wrapper = dict(
    type='OptimWrapper',
    # 135 images of each class: the more decay up to here, the better all losses validate.
    optimizer=dict(type='AdamW', lr=5e-3, weight_decay=1.0),
    # Class weights have to grow, or count by their direction; decay draws centres to the origin.
    paramwise_cfg=dict(custom_keys={'head': dict(decay_mult=0), 'aux_losses': dict(decay_mult=0)}),
)
param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=False, T_max=1000)]
custom_hooks = [
    dict(type='mmloss_plugins.TrainClassesHook'),
    dict(type='mmloss_plugins.LossDiagnosticsHook', interval=50),
]
