"""MMDetection's own CenterNet on the digits, as its configs build it: the baseline."""

_base_ = '../../_base_/centernet_tiny_digits.py'

model = dict(
    # MMDetection's CenterNet is this class, with a neck.
    type='SingleStageDetector',
    bbox_head=dict(
        _delete_=True,
        type='CenterNetHead',
        num_classes=10,
        in_channels=_base_.model.bbox_head.in_channels,
        feat_channels=_base_.model.bbox_head.feat_channels,
        loss_center_heatmap=dict(type='GaussianFocalLoss', loss_weight=1.0),
        loss_wh=dict(type='L1Loss', loss_weight=0.1),
        loss_offset=dict(type='L1Loss', loss_weight=1.0),
    ),
)
# Nothing is padded; MMDetection's head asks for the border that this transform leaves.
border = dict(
    type='RandomCenterCropPad',
    ratios=None,
    border=None,
    mean=[0, 0, 0],
    std=[1, 1, 1],
    to_rgb=False,
    test_mode=True,
    test_pad_mode=['size_divisor', 32],
)
loading = dict(type='LoadImageFromFile', to_float32=True)
packing = dict(
    type='PackDetInputs',
    meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'border'),
)
val_pipeline = _base_.val_dataloader.dataset.pipeline
val_pipeline = [loading, *val_pipeline[1:-1], border, packing]
val_dataloader = dict(dataset=dict(pipeline=val_pipeline))
test_dataloader = val_dataloader
