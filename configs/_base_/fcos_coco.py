"""What the detectors on COCO with our focal loss add to MMDetection's configs."""

custom_imports = dict(
    imports=['mmloss_plugins', 'mmloss_plugins.compat'], allow_failed_imports=False
)
custom_hooks = [
    dict(
        type='mmloss_plugins.RequireDataHook',
        data_root='data/coco/',
        files=['annotations/instances_train2017.json', 'annotations/instances_val2017.json'],
        next_step='Download the pictures and annotations of COCO 2017',
    ),
    dict(type='NumClassCheckHook'),
    dict(type='mmloss_plugins.LossDiagnosticsHook', interval=50),
]
