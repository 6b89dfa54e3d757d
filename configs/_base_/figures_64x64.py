"""The generated figure set (17 COCO keypoints) at an input of 64x64."""

_base_ = './mini_runtime.py'

# `python -m mmloss_plugins.datasets.figures FOLDER` writes the set; MMLOSS_DATA names its parent.
data_root = '{{$MMLOSS_DATA:data}}/figures'
train_ann_file = 'annotations/figures_train.json'
val_ann_file = 'annotations/figures_val.json'
input_size = (64, 64)

train_dataloader = dict(
    batch_size=32,
    num_workers=1,
    persistent_workers=True,
    # MMEngine's step-based loop sleeps two seconds whenever another sampler starts anew.
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='CocoDataset',
        data_root=data_root,
        data_mode='topdown',
        ann_file=train_ann_file,
        data_prefix=dict(img='images/train/'),
        pipeline=[],
    ),
)
val_dataloader = dict(
    batch_size=50,
    num_workers=1,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    dataset=dict(
        type='CocoDataset',
        data_root=data_root,
        data_mode='topdown',
        ann_file=val_ann_file,
        data_prefix=dict(img='images/val/'),
        test_mode=True,
        pipeline=[
            dict(type='LoadImage'),
            dict(type='GetBBoxCenterScale'),
            dict(type='TopdownAffine', input_size=input_size),
            dict(type='PackPoseInputs'),
        ],
    ),
)
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='CocoMetric', ann_file=f'{data_root}/{val_ann_file}'),
    dict(type='PCKAccuracy', thr=0.05, norm_item='bbox', prefix='pck@.05'),
    dict(type='PCKAccuracy', thr=0.02, norm_item='bbox', prefix='pck@.02'),
]
test_evaluator = val_evaluator
custom_hooks = [
    dict(
        type='mmloss_plugins.RequireDataHook',
        data_root=data_root,
        files=[train_ann_file, val_ann_file],
        next_step=f'Write it with: python -m mmloss_plugins.datasets.figures {data_root}',
    ),
    dict(type='mmloss_plugins.LossDiagnosticsHook', interval=50),
]
