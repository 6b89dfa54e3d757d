"""Aligned faces of 112x112 in a folder for each identity, by ArcFace's schedule.

What its authors' code says (github.com/deepinsight/insightface, recognition/arcface_torch,
ms1mv3_r50): 93,431 identities, 128 images on each of 8 GPUs, embeddings of 512, half precision, SGD
at 0.1 with momentum 0.9 and weight decay 5e-4, 20 epochs in which the rate falls with the square of
what is left, gradients of the backbone clipped at a norm of 5, no dropout, horizontal flips,
(x - 127.5) / 127.5 in RGB.

What differs:

- backbone: theirs is an improved ResNet of basic blocks with PReLU whose first convolution is 3x3
  at full size: maps of 56, 28, 14, 7 pixels, and 512 x 49 numbers into the embedding. Here it is
  MMDetection's ResNet of bottlenecks: three 3x3 convolutions and a maximum take 112 down to 28,
  the stages have 28, 28, 14, 7, and 2048 x 49 numbers enter the embedding;
- gradients of all parameters are clipped together, those of the class weights too;
- every GPU holds all class weights, theirs shards them.
"""

_base_ = 'mmdet::_base_/default_runtime.py'

custom_imports = dict(
    imports=['mmloss_plugins', 'mmloss_plugins.compat'], allow_failed_imports=False
)

num_identities = 93431
model = dict(
    type='mmloss_plugins.EmbeddingClassifier',
    data_preprocessor=dict(
        type='mmloss_plugins.EmbeddingDataPreprocessor',
        mean=[127.5, 127.5, 127.5],
        std=[127.5, 127.5, 127.5],
        bgr_to_rgb=True,
    ),
    backbone=dict(
        type='mmdet.ResNet',
        depth=50,
        deep_stem=True,
        strides=(1, 1, 2, 2),
        out_indices=(3,),
        norm_eval=False,
    ),
    neck=dict(
        type='mmloss_plugins.ArcFaceNeck',
        in_channels=2048,
        out_channels=512,
        feat_size=7,
        dropout=0,
    ),
    head=dict(in_channels=512, num_classes=num_identities),
)

# Set the environment variable FACES to the folder with train/IDENTITY/*.jpg and val/IDENTITY/*.jpg.
data_root = '{{$FACES:data/faces}}'
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(112, 112), keep_ratio=False),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackReIDInputs'),
]
val_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(112, 112), keep_ratio=False),
    dict(type='PackReIDInputs'),
]
train_dataloader = dict(
    batch_size=128,
    num_workers=8,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='mmloss_plugins.IdentityFolders',
        data_root=f'{data_root}/train',
        num_classes=num_identities,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=4,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    # Identities that are not trained.
    dataset=dict(
        type='mmloss_plugins.IdentityFolders',
        data_root=f'{data_root}/val',
        test_mode=True,
        pipeline=val_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='mmloss_plugins.VerificationMetric', far=(1e-3, 1e-4))
test_evaluator = val_evaluator

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=20, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='AmpOptimWrapper',
    loss_scale='dynamic',
    optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=5e-4),
    clip_grad=dict(max_norm=5),
)
param_scheduler = [
    dict(
        type='PolyLR',
        power=2,
        eta_min=0,
        begin=0,
        end=20,
        by_epoch=True,
        convert_to_iter_based=True,
    )
]
auto_scale_lr = dict(base_batch_size=1024)
default_hooks = dict(
    checkpoint=dict(interval=1, max_keep_ckpts=2, save_best='auto', rule='greater')
)
custom_hooks = [
    dict(type='mmloss_plugins.TrainClassesHook'),
    dict(type='mmloss_plugins.LossDiagnosticsHook', interval=50),
]
