"""Market-1501 at 256x128 with a ResNet-50 and BNNeck, by the schedule of the strong baseline.

What its authors' code says (github.com/michuanhaohao/reid-strong-baseline,
configs/softmax_triplet_with_center.yml): ImageNet weights, last stride 1, 16 identities with 4
pictures each, label smoothing 0.1 over all classes, triplet loss with a margin of 0.3, Adam at
3.5e-4 with weight decay 5e-4, of which a hundredth rises to the whole in 10 of 120 epochs, a tenth
after 40 and 70; flips, a border of 10 black pixels and a crop, random erasing; tested on the
feature behind the BatchNorm, by cosine.

What differs:

- an epoch is 200 batches, of 64 pictures each, which are 12,800 of 12,936. The sampler draws an
  identity by one of its pictures and 15 others at random, theirs all identities in turn;
- the rate rises with each batch, theirs with each epoch;
- erasing: MMDetection's draws height and width apart, each 0.14 to 0.63 of the picture's, which
  are 2 to 40 % of its area; theirs draws area and aspect ratio. Both in every second picture.
  Filled with ImageNet's mean colour; theirs with that number, between 0 and 1, behind the
  normalisation, which is nearly half a deviation above it;
- the weights of the classifier start as Xavier has it, theirs with a deviation of 0.001.
"""

_base_ = 'mmdet::_base_/default_runtime.py'

custom_imports = dict(
    imports=['mmloss_plugins', 'mmloss_plugins.compat'], allow_failed_imports=False
)

num_identities = 751
model = dict(
    type='mmloss_plugins.EmbeddingClassifier',
    data_preprocessor=dict(
        type='mmloss_plugins.EmbeddingDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
    ),
    backbone=dict(
        type='mmdet.ResNet',
        depth=50,
        strides=(1, 2, 2, 1),
        out_indices=(3,),
        norm_eval=False,
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50'),
    ),
    neck=dict(type='mmloss_plugins.BNNeck', in_channels=2048),
    head=dict(
        type='mmloss_plugins.SoftmaxHead',
        in_channels=2048,
        num_classes=num_identities,
        bias=False,
        loss=dict(type='mmloss_plugins.LabelSmoothLoss', smoothing=0.1, spread='all'),
    ),
    aux_losses=dict(triplet=dict(type='mmdet.TripletLoss', margin=0.3)),
)

# Set the environment variable MARKET1501 to the folder with bounding_box_train and the others.
data_root = '{{$MARKET1501:data/market1501}}'
train_pipeline = [
    dict(
        type='TransformBroadcaster',
        share_random_params=False,
        transforms=[
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=(128, 256), keep_ratio=False),
            dict(type='RandomFlip', prob=0.5),
            dict(type='mmloss_plugins.PadBorder', width=10),
            dict(type='RandomCrop', crop_size=(128, 256)),
            dict(
                type='RandomErasing',
                n_patches=(0, 1),
                ratio=(0.14, 0.63),
                squared=False,
                img_border_value=(104, 116, 124),
            ),
        ],
    ),
    dict(type='PackReIDInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(128, 256), keep_ratio=False),
    dict(type='PackReIDInputs', meta_keys=('camera_id', 'is_query')),
]
train_dataloader = dict(
    # Of sets of 64 pictures.
    batch_size=1,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='mmloss_plugins.Market1501',
        data_root=data_root,
        split='train',
        num_classes=num_identities,
        triplet_sampler=dict(num_ids=16, ins_per_id=4),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=4,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='mmloss_plugins.Market1501',
        data_root=data_root,
        split='test',
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='mmloss_plugins.SearchMetric')
test_evaluator = val_evaluator

train_cfg = dict(type='IterBasedTrainLoop', max_iters=24000, val_interval=8000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=3.5e-4, weight_decay=5e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=2000),
    dict(type='MultiStepLR', by_epoch=False, milestones=[8000, 14000], gamma=0.1),
]
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=2000, max_keep_ckpts=2))
log_processor = dict(by_epoch=False)
custom_hooks = [dict(type='mmloss_plugins.LossDiagnosticsHook', interval=50)]
