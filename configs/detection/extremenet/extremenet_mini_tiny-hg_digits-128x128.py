"""ExtremeNet on the digits: extreme points from masks, one stack."""

_base_ = '../../_base_/centernet_tiny_digits.py'

model = dict(
    bbox_head=dict(type='mmloss_plugins.ExtremeNetHead'),
    test_cfg=dict(
        _delete_=True,
        topk=40,
        num_dets=1000,
        nms=dict(type='soft_nms', iou_threshold=0.5, method='gaussian'),
        max_per_img=100,
    ),
)
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
            *_base_.moves,
            dict(type='mmloss_plugins.AddExtremePoints'),
            dict(type='mmloss_plugins.PackExtremePoints'),
        ]
    )
)
