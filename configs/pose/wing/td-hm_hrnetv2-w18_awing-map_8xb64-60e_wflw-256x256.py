# MMPose's AdaptiveWing config with the paper's weight map, which its loss leaves out.
_base_ = 'mmpose::face_2d_keypoint/topdown_heatmap/wflw/td-hm_hrnetv2-w18_awing-8xb64-60e_wflw-256x256.py'  # noqa: E501

custom_imports = dict(
    imports=['mmloss_plugins', 'mmloss_plugins.compat'], allow_failed_imports=False
)

model = dict(head=dict(loss=dict(type='mmloss_plugins.AdaptiveWingLoss')))

custom_hooks = [
    dict(type='SyncBuffersHook'),
    dict(
        type='mmloss_plugins.RequireDataHook',
        data_root='data/wflw/',
        files=[
            'annotations/face_landmarks_wflw_train.json',
            'annotations/face_landmarks_wflw_test.json',
        ],
        next_step='Download WFLW and the annotation files that the MMPose docs name',
    ),
]
