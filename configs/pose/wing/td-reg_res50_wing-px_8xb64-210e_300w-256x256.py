# The WFLW config on 300W: 68 landmarks, the data set as in MMPose's heatmap config.
_base_ = './td-reg_res50_wing-px_8xb64-210e_wflw-256x256.py'

model = dict(head=dict(num_joints=68))

data_root = 'data/300w/'
train_ann_file = 'annotations/face_landmarks_300w_train.json'
val_ann_file = 'annotations/face_landmarks_300w_valid.json'
dataset = dict(type='Face300WDataset', data_root=data_root)
train_dataloader = dict(dataset=dict(ann_file=train_ann_file, **dataset))
val_dataloader = dict(dataset=dict(ann_file=val_ann_file, **dataset))
test_dataloader = val_dataloader

custom_hooks = [
    dict(type='SyncBuffersHook'),
    dict(
        type='mmloss_plugins.RequireDataHook',
        data_root=data_root,
        files=[train_ann_file, val_ann_file],
        next_step='Download 300W and the annotation files that the MMPose docs name',
    ),
    dict(type='mmloss_plugins.LossDiagnosticsHook', interval=50),
]
