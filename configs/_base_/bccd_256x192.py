"""BCCD, blood cells (205 pictures to train on, 87 to validate, 3 classes), at 256x192.

Lays the real pictures under a mini that was written for the generated digits:
``_base_ = ['./centernet_tiny_digits.py', './bccd_256x192.py']`` and the lines of
centernet_tiny_bccd.py, which take each part from here.
"""

# github.com/Shenggan/BCCD_Dataset in COCO's format; BCCD names its folder.
bccd_root = '{{$BCCD:data/bccd}}'
bccd_train_ann_file = 'annotations/instances_train.json'
bccd_val_ann_file = 'annotations/instances_val.json'
bccd_metainfo = dict(classes=('RBC', 'WBC', 'Platelets'))

# Cells lie in every direction.
bccd_moves = [
    dict(type='Resize', scale=(256, 192), keep_ratio=False),
    dict(
        type='RandomFlip',
        prob=[0.25, 0.25, 0.25],
        direction=['horizontal', 'vertical', 'diagonal'],
    ),
]
bccd_train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    *bccd_moves,
    dict(type='PackDetInputs'),
]
bccd_train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    # MMEngine's step-based loop sleeps two seconds whenever another sampler starts anew.
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='CocoDataset',
        data_root=bccd_root,
        metainfo=bccd_metainfo,
        ann_file=bccd_train_ann_file,
        data_prefix=dict(img='images/train/'),
        pipeline=bccd_train_pipeline,
    ),
)
bccd_val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CocoDataset',
        data_root=bccd_root,
        metainfo=bccd_metainfo,
        ann_file=bccd_val_ann_file,
        data_prefix=dict(img='images/val/'),
        test_mode=True,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=(256, 192), keep_ratio=False),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(
                type='PackDetInputs',
                meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
            ),
        ],
    ),
)
bccd_evaluator = dict(type='CocoMetric', ann_file=f'{bccd_root}/{bccd_val_ann_file}', metric='bbox')
bccd_hooks = [
    dict(
        type='mmloss_plugins.RequireDataHook',
        data_root=bccd_root,
        files=[bccd_train_ann_file, bccd_val_ann_file],
        next_step='Set the environment variable BCCD to the folder of the data set',
    ),
    dict(type='NumClassCheckHook'),
    dict(type='mmloss_plugins.LossDiagnosticsHook', interval=50),
]
