"""LeNet++ with embeddings of two dimensions on MNIST, by the schedule of centre loss's authors.

What they say (Wen et al., ECCV 2016, table 1, and github.com/ydwen/caffe-face): three stages of two
5x5 convolutions with PReLU, 32, 64 and 128 channels, a fully connected layer of two numbers, a
classifier without bias; batches of 128, (x - 127.5) / 128, SGD at 0.01 with momentum 0.9 and weight
decay 5e-4, 0.8 of the rate after 5,000 and 8,000 of 10,000 iterations (and after the last one).
"""

_base_ = './mini_runtime.py'

default_scope = 'mmdet'
visualizer = dict(
    type='DetLocalVisualizer',
    _delete_=True,
    name='visualizer',
    vis_backends=[dict(type='LocalVisBackend')],
)

model = dict(
    type='mmloss_plugins.EmbeddingClassifier',
    data_preprocessor=dict(
        type='mmloss_plugins.EmbeddingDataPreprocessor', mean=[127.5], std=[128.0]
    ),
    backbone=dict(type='mmloss_plugins.LeNetPlusPlus'),
    neck=dict(
        type='mmloss_plugins.ArcFaceNeck',
        in_channels=128,
        out_channels=2,
        feat_size=3,
        dropout=0,
        input_norm=False,
        output_norm=False,
    ),
    head=dict(in_channels=2, num_classes=10, with_scores=True),
)

# Set the environment variable MNIST to the folder of the files.
data_root = '{{$MNIST:data/mnist}}'
train_dataloader = dict(
    batch_size=128,
    num_workers=0,  # the images are in memory
    # MMEngine's step-based loop sleeps two seconds whenever another sampler starts anew.
    sampler=dict(type='InfiniteSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='mmloss_plugins.MnistImages', root=data_root, split='train'),
)
val_dataloader = dict(
    batch_size=250,
    num_workers=0,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='mmloss_plugins.MnistImages', root=data_root, split='val'),
)
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='mmloss_plugins.ClassAccuracy'),
    dict(type='mmloss_plugins.EmbeddingSpread'),
]
test_evaluator = val_evaluator

train_cfg = dict(type='IterBasedTrainLoop', max_iters=10000, val_interval=1000)
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=5e-4)
)
param_scheduler = [
    dict(type='MultiStepLR', by_epoch=False, milestones=[5000, 8000], gamma=0.8, end=10000)
]
default_hooks = dict(checkpoint=dict(interval=1000))
custom_hooks = [
    dict(type='mmloss_plugins.TrainClassesHook'),
    dict(type='mmloss_plugins.LossDiagnosticsHook', interval=50),
]
