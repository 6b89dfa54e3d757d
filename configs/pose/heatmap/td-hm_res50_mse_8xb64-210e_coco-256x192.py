# MMPose's config of the same name (71.8 AP, its own number) with our head and loss, at its scale.
_base_ = 'mmpose::body_2d_keypoint/topdown_heatmap/coco/td-hm_res50_8xb64-210e_coco-256x192.py'

custom_imports = dict(
    imports=['mmloss_plugins', 'mmloss_plugins.compat'], allow_failed_imports=False
)

loss = dict(_delete_=True, type='mmloss_plugins.HeatmapMSELoss', scale='mmpose')
model = dict(head=dict(type='mmloss_plugins.HeatmapHead', loss=loss))

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
