# MMPose's config of the same name with our loss and codec.
_base_ = 'mmpose::body_2d_keypoint/simcc/coco/simcc_res50_8xb64-210e_coco-256x192.py'

custom_imports = dict(
    imports=['mmloss_plugins', 'mmloss_plugins.compat'], allow_failed_imports=False
)

codec = dict(
    type='mmloss_plugins.SimCCLabel', input_size=(192, 256), sigma=6.0, simcc_split_ratio=2.0
)

# The author's scale: 1/64 of MMPose's value here, at any batch size.
model = dict(head=dict(loss=dict(type='mmloss_plugins.KLDiscretLoss'), decoder=codec))

train_pipeline = _base_.train_pipeline
train_pipeline[-2] = dict(type='GenerateTarget', encoder=codec)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

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
    dict(type='mmloss_plugins.LossDiagnosticsHook', interval=50),
]
