# MMPose's ipr_res50_dsnt config (67.4 AP, its own number) with its DSNT repaired: labels to a
# fraction of a pixel in place of Gaussians at the rounded cell, coordinates that reach the last
# cell, the paper's Euclidean distance in place of SmoothL1, JS per keypoint, and no NaN where a
# keypoint is invisible. Network, weights to start from, data, schedule and sigma are MMPose's.
_base_ = (
    'mmpose::body_2d_keypoint/integral_regression/coco/ipr_res50_dsnt-8xb64-210e_coco-256x256.py'
)

custom_imports = dict(
    imports=['mmloss_plugins', 'mmloss_plugins.compat'], allow_failed_imports=False
)

codec = dict(_delete_=True, type='mmloss_plugins.DSNTLabel', input_size=(256, 256))
model = dict(
    head=dict(
        _delete_=True,
        type='mmloss_plugins.DSNTHead',
        in_channels=2048,
        out_channels=17,
        loss=dict(
            type='mmloss_plugins.MultiLoss',
            terms=dict(
                coord=dict(type='mmloss_plugins.EuclideanLoss'),
                js=dict(type='mmloss_plugins.HeatmapJSLoss', sigma_px=2.0),
            ),
        ),
        decoder=dict(type='mmloss_plugins.DSNTLabel', input_size=(256, 256)),
    ),
)
train_pipeline = _base_.train_pipeline
train_pipeline[-2] = dict(
    type='GenerateTarget', encoder=dict(type='mmloss_plugins.DSNTLabel', input_size=(256, 256))
)
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
]
