"""The generated digits (ten classes, boxes and masks) at 128x128."""

_base_ = './mini_runtime.py'

default_scope = 'mmdet'
visualizer = dict(
    type='DetLocalVisualizer',
    _delete_=True,
    name='visualizer',
    vis_backends=[dict(type='LocalVisBackend')],
)

# `python -m mmloss_plugins.datasets.digits FOLDER` writes the set; MMLOSS_DATA names its parent.
data_root = '{{$MMLOSS_DATA:data}}/digits'
train_ann_file = 'annotations/digits_train.json'
val_ann_file = 'annotations/digits_val.json'
metainfo = dict(classes=tuple('0123456789'))

# No flips: a mirrored 2 is no digit.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(
    batch_size=16,
    num_workers=1,
    persistent_workers=True,
    # MMEngine's step-based loop sleeps two seconds whenever another sampler starts anew.
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='CocoDataset',
        data_root=data_root,
        metainfo=metainfo,
        ann_file=train_ann_file,
        data_prefix=dict(img='images/train/'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=16,
    num_workers=1,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CocoDataset',
        data_root=data_root,
        metainfo=metainfo,
        ann_file=val_ann_file,
        data_prefix=dict(img='images/val/'),
        test_mode=True,
        pipeline=[
            dict(type='LoadImageFromFile'),
            # MMDetection's dense heads do not predict without the scale_factor that it sets.
            dict(type='Resize', scale=(128, 128), keep_ratio=True),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(
                type='PackDetInputs',
                meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
            ),
        ],
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='CocoMetric', ann_file=f'{data_root}/{val_ann_file}', metric='bbox')
test_evaluator = val_evaluator
custom_hooks = [
    dict(
        type='mmloss_plugins.RequireDataHook',
        data_root=data_root,
        files=[train_ann_file, val_ann_file],
        next_step=f'Write it with: python -m mmloss_plugins.datasets.digits {data_root}',
    ),
    dict(type='NumClassCheckHook'),
    dict(type='mmloss_plugins.LossDiagnosticsHook', interval=50),
]
