"""mirror-mouse-example of lightning-pose (90 frames, 17 keypoints, two views) at 64x64.

The box of each sample is nearly the whole picture, so this is pose estimation without a detector.
"""

_base_ = './mini_runtime.py'

data_root = '{{$MIRROR_MOUSE:data/mirror_mouse}}'
train_ann_file = 'annotations/mouse_keypoints_train.json'
val_ann_file = 'annotations/mouse_keypoints_val.json'

keypoint_names = [
    *('paw1LH_top', 'paw2LF_top', 'paw3RF_top', 'paw4RH_top'),
    *('tailBase_top', 'tailMid_top', 'nose_top', 'obs_top'),
    *('paw1LH_bot', 'paw2LF_bot', 'paw3RF_bot', 'paw4RH_bot'),
    *('tailBase_bot', 'tailMid_bot', 'nose_bot', 'obsHigh_bot', 'obsLow_bot'),
]
links = [(0, 4), (3, 4), (1, 6), (2, 6), (4, 5), (4, 6)]
links += [(8, 12), (11, 12), (9, 14), (10, 14), (12, 13), (12, 14)]
metainfo = dict(
    dataset_name='mirror_mouse',
    paper_info=dict(
        author='Biderman, Dan and Whiteway, Matthew and Paninski, Liam and others',
        title='Lightning Pose',
        container='GitHub',
        year='2021',
        homepage='https://github.com/danbider/lightning-pose',
    ),
    keypoint_info={
        index: dict(
            name=name,
            id=index,
            color=[51, 153, 255] if name.endswith('top') else [255, 128, 0],
            type='',
            swap='',
        )
        for index, name in enumerate(keypoint_names)
    },
    skeleton_info={
        index: dict(
            link=(keypoint_names[start], keypoint_names[end]), id=index, color=[128, 200, 128]
        )
        for index, (start, end) in enumerate(links)
    },
    joint_weights=[1.0] * 17,
    sigmas=[0.05] * 17,
)

train_dataloader = dict(
    batch_size=16,
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
        metainfo=metainfo,
        pipeline=[],
    ),
)
val_dataloader = dict(
    batch_size=18,
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
        metainfo=metainfo,
        test_mode=True,
        pipeline=[
            dict(type='LoadImage'),
            dict(type='GetBBoxCenterScale', padding=1.0),
            dict(type='TopdownAffine', input_size=(64, 64)),
            dict(type='PackPoseInputs'),
        ],
    ),
)
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='PCKAccuracy', thr=0.05, norm_item='bbox', prefix='pck@.05'),
    dict(type='PCKAccuracy', thr=0.02, norm_item='bbox', prefix='pck@.02'),
]
test_evaluator = val_evaluator

custom_hooks = [
    dict(
        type='mmloss_plugins.RequireDataHook',
        data_root=data_root,
        files=[train_ann_file, val_ann_file],
        next_step='Set the environment variable MIRROR_MOUSE to the folder of the data set',
    ),
    dict(type='mmloss_plugins.LossDiagnosticsHook', interval=50),
]
