# MMDetection's config with our head: nothing else changes.
_base_ = 'mmdet::centernet/centernet_r18-dcnv2_8xb16-crop512-140e_coco.py'

custom_imports = dict(imports=['mmloss_plugins'], allow_failed_imports=False)
model = dict(
    bbox_head=dict(
        _delete_=True,
        type='mmloss_plugins.CenterNetHead',
        num_classes=80,
        in_channels=64,
        feat_channels=64,
    )
)
