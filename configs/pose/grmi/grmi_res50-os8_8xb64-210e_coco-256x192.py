# G-RMI in MMPose's setup for ResNet-50 (Adam, 210 epochs, its boxes and augmentation), with the
# dilated backbone and the disks of the paper. R is the paper's share of the input height, 25/353.
_base_ = 'mmpose::body_2d_keypoint/topdown_heatmap/coco/td-hm_res50_8xb64-210e_coco-256x192.py'

custom_imports = dict(
    imports=['mmloss_plugins', 'mmloss_plugins.compat'], allow_failed_imports=False
)

codec = dict(
    type='mmloss_plugins.OffsetHeatmap',
    input_size=(192, 256),
    heatmap_size=(24, 32),
    radius_px=18.0,
)

# Output stride 8: no stride in the last two stages, dilation in its place; no deconvolution.
model = dict(
    backbone=dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)),
    head=dict(
        _delete_=True,
        type='mmloss_plugins.OffsetHeatmapHead',
        in_channels=2048,
        out_channels=17,
        decoder=codec,
    ),
    test_cfg=dict(flip_test=True, shift_heatmap=False),
)
train_pipeline = _base_.train_pipeline
train_pipeline[-3]['input_size'] = codec['input_size']
train_pipeline[-2] = dict(type='GenerateTarget', encoder=codec)
val_pipeline = _base_.val_pipeline
val_pipeline[-2]['input_size'] = codec['input_size']
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=val_pipeline))
test_dataloader = val_dataloader

custom_hooks = [
    dict(type='SyncBuffersHook'),
    dict(
        type='mmloss_plugins.RequireDataHook',
        data_root='data/coco/',
        files=[
            'annotations/person_keypoints_train2017.json',
            'annotations/person_keypoints_val2017.json',
            'person_detection_results/COCO_val2017_detections_AP_H_56_person.json',
        ],
        next_step='Download COCO 2017 and the person detections that the MMPose docs name',
    ),
]
