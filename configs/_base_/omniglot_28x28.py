"""A small network on Omniglot at 28x28: 136 characters to train on, 106 others to search among.

Two alphabets of the second archive, Greek and Latin, are in the first one, too.
"""

_base_ = './mini_runtime.py'

default_scope = 'mmdet'
visualizer = dict(
    type='DetLocalVisualizer',
    _delete_=True,
    name='visualizer',
    vis_backends=[dict(type='LocalVisBackend')],
)

# github.com/brendenlake/omniglot, folder python; OMNIGLOT names the folder of the archives.
data_root = '{{$OMNIGLOT:data/omniglot}}'
train_archive = 'images_background_small1.zip'
val_archive = 'images_background_small2.zip'

model = dict(
    type='mmloss_plugins.EmbeddingClassifier',
    data_preprocessor=dict(type='mmloss_plugins.EmbeddingDataPreprocessor', mean=[0.0], std=[1.0]),
    backbone=dict(
        type='mmloss_plugins.LeNetPlusPlus', channels=(16, 32, 64), kernel_size=3, norm=True
    ),
    neck=dict(
        type='mmloss_plugins.ArcFaceNeck',
        in_channels=64,
        out_channels=64,
        feat_size=3,
        dropout=0.2,
    ),
    head=dict(in_channels=64, num_classes=136),
)
train_dataloader = dict(
    batch_size=64,
    num_workers=0,  # the images are in memory
    # MMEngine's step-based loop sleeps two seconds whenever another sampler starts anew.
    sampler=dict(type='InfiniteSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmloss_plugins.OmniglotImages',
        data_root=data_root,
        archive=train_archive,
        augment=dict(degrees=10, translate=(0.1, 0.1), scale=(0.8, 1.2), shear=10),
    ),
)
val_dataloader = dict(
    batch_size=106,
    num_workers=0,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmloss_plugins.OmniglotImages',
        data_root=data_root,
        archive=val_archive,
        leave_out=('Greek', 'Latin'),
    ),
)
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='mmloss_plugins.VerificationMetric', recall_at=(1, 5), far=(0.01,)),
    dict(type='ReIDMetrics', metric='mAP'),
]
test_evaluator = val_evaluator
train_cfg = dict(type='IterBasedTrainLoop', max_iters=600, val_interval=200)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=6e-3))
param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=False, T_max=600)]
custom_hooks = [
    dict(
        type='mmloss_plugins.RequireDataHook',
        data_root=data_root,
        files=[train_archive, val_archive],
        next_step='Set the environment variable OMNIGLOT to the folder of both archives',
    ),
    dict(type='mmloss_plugins.TrainClassesHook'),
    dict(type='mmloss_plugins.LossDiagnosticsHook', interval=50),
]
