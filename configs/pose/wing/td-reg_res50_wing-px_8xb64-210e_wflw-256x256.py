# MMPose's td-reg_res50_wingloss config with Wing in pixels, as in the paper: there omega = 10 and
# epsilon = 2 meet coordinates in [0, 1], so that the linear branch is never reached.
_base_ = 'mmpose::face_2d_keypoint/topdown_regression/wflw/td-reg_res50_wingloss_8xb64-210e_wflw-256x256.py'  # noqa: E501

custom_imports = dict(
    imports=['mmloss_plugins', 'mmloss_plugins.compat'], allow_failed_imports=False
)

# The learning rate is Adam's, which a constant factor on the loss does not change.
loss = dict(type='mmloss_plugins.WingLoss', omega=10.0, epsilon=2.0, scale=(256, 256))
model = dict(head=dict(loss=dict(_delete_=True, **loss)))

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
    dict(type='mmloss_plugins.LossDiagnosticsHook', interval=50),
]
