"""EmbeddingClassifier: losses, forms of data, MMDetection's ReID parts, export, resume."""

from __future__ import annotations

import io
import json
import re

import numpy as np
import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS as ROOT
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch import nn
from torch.testing import assert_close

from mmloss_plugins.compat import allow_mmengine_checkpoints
from mmloss_plugins.losses import CenterLoss
from mmloss_plugins.models import EmbeddingClassifier, EmbeddingDataPreprocessor

NECK = dict(type='mmloss_plugins.ArcFaceNeck', in_channels=6, out_channels=4, dropout=0.0)
HEAD = dict(type='mmloss_plugins.ArcFaceHead', in_channels=4, num_classes=5, scale=8.0)
CENTER = dict(type='mmloss_plugins.CenterLoss', num_classes=5, feat_dim=4, loss_weight=0.2)
LABELS = torch.tensor([0, 4, 2, 2])
RESNET = dict(
    type='mmdet.ResNet', depth=18, base_channels=4, stem_channels=4, num_stages=2,
    strides=(1, 2), dilations=(1, 1), out_indices=(0, 1), norm_eval=False,
)  # fmt: skip


def images(batch=4):
    return torch.randn(batch, 3, 12, 9, generator=torch.Generator().manual_seed(3))


def build(**options):
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.ReLU())
    return EmbeddingClassifier(**{'backbone': backbone, 'neck': NECK, 'head': HEAD, **options})


class TestLosses:
    def test_of_the_head_on_the_embedding(self):
        model = build()
        losses = model(images(), LABELS, mode='loss')
        embedding = model.neck(model.backbone(images()))
        assert list(losses) == ['loss_cls']
        assert_close(losses['loss_cls'], model.head.loss(embedding, LABELS)['loss_cls'])

    def test_auxiliary_ones_see_the_embedding_of_the_neck(self):
        model = build(aux_losses=dict(center=CENTER))
        nn.init.normal_(model.aux_losses['center'].centers)
        losses = model(images(), LABELS, mode='loss')
        embedding = model.extract_feat(images())
        own = model.aux_losses['center'].centers[LABELS]
        # 0.2 times the mean of half the squared distances.
        expected = 0.2 * ((embedding - own) ** 2).sum() / 2 / 4
        assert_close(losses['loss_center'], expected)
        assert embedding.norm(dim=1).std() > 0.1

    def test_a_step_moves_every_parameter_that_learns(self):
        model = build(aux_losses=dict(center=CENTER))
        before = {name: p.clone() for name, p in model.named_parameters() if p.requires_grad}
        wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
        log = model.train_step(dict(inputs=images(), data_samples=LABELS), wrapper)
        moved = {name for name, p in before.items() if not p.equal(model.get_parameter(name))}
        # No sample is of the classes 1 and 3.
        assert moved == set(before)
        assert model.aux_losses['center'].centers[[1, 3]].count_nonzero() == 0
        assert_close(log['loss'], log['loss_cls'] + log['loss_center'])

    def test_training_tells_the_classes_apart(self):
        model = build(head=dict(HEAD, margin=0.2), aux_losses=dict(center=CENTER))
        wrapper = OptimWrapper(torch.optim.Adam(model.parameters(), lr=0.05))
        batch = dict(inputs=images(), data_samples=LABELS)
        first, *_, last = (model.train_step(batch, wrapper)['loss_cls'].item() for _ in range(30))
        assert last < 0.2 * first
        model.train()
        assert model.head.predict(model.extract_feat(images())).argmax(1).tolist() == [0, 4, 2, 2]

    @pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
    def test_autocast(self, dtype):
        model = build(aux_losses=dict(center=CENTER))
        plain = model(images(), LABELS, mode='loss')
        with torch.autocast('cpu', dtype=dtype):
            half = model(images(), LABELS, mode='loss')
        for name, loss in plain.items():
            assert half[name].dtype == torch.float32
            assert_close(half[name], loss, rtol=0.05, atol=0.02)


class TestPredictions:
    def test_tensors(self):
        model = build().eval()
        found = model.val_step(dict(inputs=images(), data_samples=LABELS))
        assert [each['gt_label']['label'].tolist() for each in found] == [[0], [4], [2], [2]]
        features = torch.stack([each['pred_feature'] for each in found])
        assert_close(features, model(images()))
        assert_close(features.norm(dim=1), torch.ones(4))

    def test_no_labels(self):
        model = build().eval()
        found = model(images(), mode='predict')
        assert [list(each) for each in found] == [['pred_feature']] * 4
        assert_close(found[2]['pred_feature'], model(images())[2])

    def test_features_of_several_stages_and_no_neck(self):
        class Stages(nn.Module):
            def forward(self, x):
                return x, x.mean((2, 3))

        head = dict(type='mmloss_plugins.SoftmaxHead', in_channels=3, num_classes=5)
        model = build(backbone=Stages(), neck=None, head=head)
        assert_close(model(images()), images().mean((2, 3)))


class TestPreprocessor:
    def test_sets_of_images_become_one_batch(self):
        preprocessor = EmbeddingDataPreprocessor(
            mean=[1.0, 2.0, 3.0], std=[2.0, 2.0, 2.0], bgr_to_rgb=True
        )
        sets = [torch.zeros(1, 3, 4, 6), torch.ones(2, 3, 4, 6), torch.full((3, 4, 6), 2.0)]
        sets[1][1, 0] = 9
        batch = preprocessor(dict(inputs=sets, data_samples=LABELS))
        assert batch['inputs'].shape == (4, 3, 4, 6)
        # Channel 0 is the last: (1 - 1) / 2, (1 - 2) / 2, (9 - 3) / 2.
        assert batch['inputs'][2, :, 0, 0].tolist() == [0, -0.5, 3]
        assert batch['data_samples'] is LABELS

    @pytest.mark.parametrize('shape', [(4, 3, 5, 6), (2, 2, 3, 5, 6)])
    def test_one_tensor(self, shape):
        x = torch.arange(360, dtype=torch.int32).reshape(shape)
        found = EmbeddingDataPreprocessor(mean=[1.0], std=[2.0])(dict(inputs=x))['inputs']
        assert_close(found, (x.reshape(4, 3, 5, 6).float() - 1) / 2)

    def test_sets_are_flattened_by_the_model_too(self):
        model = build()
        sets = images().reshape(2, 2, 3, 12, 9)
        assert_close(model(sets, LABELS, mode='loss'), model(images(), LABELS, mode='loss'))


# --- MMDetection's ReID parts -------------------------------------------------------------------


@pytest.fixture
def people(tmp_path):
    """Two pictures of each of four identities, in the form of ``ReIDDataset``."""
    mmcv = pytest.importorskip('mmcv')
    pytest.importorskip('mmdet')
    generator = np.random.default_rng(0)
    lines = []
    for label in range(4):
        look = generator.integers(0, 255, (20, 10, 3))
        for view in range(2):
            noisy = look + generator.integers(-9, 9, look.shape)
            name = f'{label}_{view}.png'
            mmcv.imwrite(noisy.clip(0, 255).astype(np.uint8), str(tmp_path / name))
            lines.append(f'{name} {label}')
    (tmp_path / 'ids.txt').write_text('\n'.join(lines))
    return tmp_path


def reid_config(people, work_dir, epochs, margin=0.3, preprocessor=None, **options):
    dataset = dict(
        type='mmdet.ReIDDataset',
        data_root=str(people),
        ann_file='ids.txt',
        data_prefix=dict(img_path=''),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='mmdet.Resize', scale=(10, 20), keep_ratio=False),
            dict(type='mmdet.PackReIDInputs'),
        ],
    )
    train, val = (
        dict(
            batch_size=4,
            num_workers=0,
            dataset=dataset,
            sampler=dict(type='DefaultSampler', shuffle=shuffle),
        )
        for shuffle in (True, False)
    )
    preprocessor = preprocessor or dict(type='mmloss_plugins.EmbeddingDataPreprocessor')
    model = dict(
        type='mmloss_plugins.EmbeddingClassifier',
        data_preprocessor=dict(preprocessor, mean=[127.5] * 3, std=[127.5] * 3),
        backbone=RESNET,
        neck=dict(NECK, in_channels=8, feat_size=(3, 2)),
        head=dict(HEAD, num_classes=4, margin=margin, with_scores=True),
        aux_losses=dict(
            center=dict(CENTER, num_classes=4, loss_weight=0.01, update='moving_average')
        ),
    )
    return dict(
        model={**model, **options},
        work_dir=str(work_dir),
        train_dataloader=train,
        train_cfg=dict(by_epoch=True, max_epochs=epochs, val_interval=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.05, momentum=0.9)),
        val_dataloader=val,
        val_cfg=dict(),
        val_evaluator=[
            dict(type='mmdet.ReIDMetrics', metric=['mAP', 'CMC'],
                 metric_options=dict(rank_list=[1], max_rank=3)),
            dict(type='mmloss_plugins.VerificationMetric', far=(0.1,)),
            dict(type='mmloss_plugins.ClassAccuracy'),
        ],
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1)),
        default_scope='mmdet',
        randomness=dict(seed=0),
        experiment_name=f'embedding{epochs}{work_dir.name}',
    )  # fmt: skip


def triplets(dataset):
    *transforms, pack = dataset['pipeline']
    each = dict(type='TransformBroadcaster', share_random_params=False, transforms=transforms)
    sampler = dict(num_ids=3, ins_per_id=2)
    return dict(dataset, pipeline=[each, pack], triplet_sampler=sampler)


def logged(work_dir):
    (scalars,) = work_dir.glob('*/vis_data/scalars.json')
    return [json.loads(line) for line in scalars.read_text().splitlines()]


class TestMMDet:
    def test_trained_validated_and_resumed(self, people, tmp_path):
        pytest.importorskip('sklearn')
        margin = dict(type='linear', start=0.0, stop=0.3, end=3)
        first, second = tmp_path / 'first', tmp_path / 'second'
        allow_mmengine_checkpoints()
        with DefaultScope.overwrite_default_scope('mmdet'):
            model = Runner(**reid_config(people, first, 2, margin)).train()
            config = reid_config(people, second, 6, margin)
            checkpoint = str(first / 'epoch_2.pth')
            Runner(**config, load_from=checkpoint, resume=True).train()
        centers = torch.load(checkpoint, weights_only=False)['state_dict']
        assert_close(centers['aux_losses.center.centers'], model.aux_losses['center'].centers)
        assert centers['aux_losses.center.centers'].abs().sum() > 0
        margins = [round(line['margin'], 4) for line in logged(second) if 'margin' in line]
        # Two iterations in each of the epochs 2 to 5, the first epoch being 0.
        assert margins == [0.2, 0.2, *[0.3] * 6]
        last = logged(second)[-1]
        # The two views of an identity are far more alike than any other pair.
        assert last['reid-metric/R1'] == last['verification/recall@1'] == 1
        assert last['reid-metric/mAP'] == 1
        # Chance is 0.25.
        assert last['class/accuracy'] >= 0.5
        assert last['verification/accuracy'] == 1

    def test_samples_of_the_triplet_sampler(self, people):
        from mmdet.registry import DATASETS

        config = reid_config(people, people, 1)['train_dataloader']['dataset']
        with DefaultScope.overwrite_default_scope('mmdet'):
            data = DATASETS.build(triplets(config))
            pairs = [data[0], data[5]]
            model = ROOT.build(reid_config(people, people, 1)['model'])
        batch = model.data_preprocessor(
            dict(inputs=[each['inputs'] for each in pairs],
                 data_samples=[each['data_samples'] for each in pairs])
        )  # fmt: skip
        labels = torch.cat([sample.gt_label.label for sample in batch['data_samples']])
        assert batch['inputs'].shape == (12, 3, 20, 10)
        losses = model(**batch, mode='loss')
        plain = model(batch['inputs'], labels, mode='loss')
        assert_close(losses['loss_cls'], plain['loss_cls'])
        found = model(**batch, mode='predict')
        assert [tuple(sample.pred_feature.shape) for sample in found] == [(6, 4), (6, 4)]


class TestMmpretrain:
    """What needs it: ``BaseReID`` and ``ReIDDataPreprocessor``."""

    def test_arcface_head_in_base_reid(self, people):
        pytest.importorskip('mmpretrain')
        from mmdet.structures import ReIDDataSample

        config = reid_config(people, people, 3)
        options = {name: config['model'][name] for name in ('backbone', 'neck', 'head')}
        preprocessor = dict(type='mmdet.ReIDDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3)
        config['model'] = dict(options, type='mmdet.BaseReID', data_preprocessor=preprocessor)
        # It takes one set of images at a time.
        train, val = config['train_dataloader'], config['val_dataloader']
        config['train_dataloader'] = dict(train, batch_size=1, dataset=triplets(train['dataset']))
        config['val_dataloader'] = dict(val, batch_size=1)
        with DefaultScope.overwrite_default_scope('mmdet'):
            runner = Runner(**config)
            model = runner.train()
            values = runner.val_loop.run()
        assert values['verification/recall@1'] == values['reid-metric/R1'] == 1
        image = torch.rand(1, 3, 20, 10)
        (sample,) = model(image, [ReIDDataSample()], mode='predict')
        assert_close(sample.pred_feature, model(image)[0])

    def test_its_preprocessor(self, people):
        pytest.importorskip('mmpretrain')
        config = reid_config(
            people, people, 1, preprocessor=dict(type='mmdet.ReIDDataPreprocessor')
        )
        with DefaultScope.overwrite_default_scope('mmdet'):
            runner = Runner(**config)
            model = runner.build_model(config['model']).eval()
            ours = runner.build_model(reid_config(people, people, 1)['model']).eval()
        ours.load_state_dict(model.state_dict())
        (batch, *_) = runner.val_dataloader
        found, expected = model.val_step(batch), ours.val_step(batch)
        for one, other in zip(found, expected):
            assert_close(one.pred_feature, other.pred_feature)


# --- export and errors --------------------------------------------------------------------------


@pytest.mark.parametrize('kind', ['ArcFaceHead', 'SoftmaxHead'])
@pytest.mark.parametrize('feat_size', [None, (5, 4)])
def test_onnxruntime_gives_the_same_embedding(kind, feat_size):
    runtime = pytest.importorskip('onnxruntime')
    head = dict(type=f'mmloss_plugins.{kind}', in_channels=4, num_classes=5)
    model = build(head=head, neck=dict(NECK, feat_size=feat_size))
    model(images(), LABELS, mode='loss')
    model.eval()
    buffer = io.BytesIO()
    torch.onnx.export(
        model,
        (images(2),),
        buffer,
        input_names=['images'],
        opset_version=17,
        dynamic_axes={'images': {0: 'batch'}},
        dynamo=False,
    )
    session = runtime.InferenceSession(buffer.getvalue())
    (found,) = session.run(None, {'images': images(5).numpy()})
    expected = model(images(5))
    assert expected.std() > 0.1
    assert_close(torch.from_numpy(found), expected.detach(), rtol=0, atol=1e-4)


class TestErrors:
    @pytest.mark.parametrize(
        ('options', 'error', 'text'),
        [
            (dict(backbone=None), TypeError, 'backbone must be a config with a type, got None'),
            (dict(head=dict(num_classes=2)), TypeError, 'head must be a config with a type, got {'),
            (dict(aux_losses=[CENTER]), TypeError, 'aux_losses must be a dict of losses by name'),
            (
                dict(aux_losses=dict(cls=CENTER)),
                ValueError,
                'names of aux_losses must be words',
            ),
            (dict(aux_losses={'a.b': CENTER}), ValueError, "got 'a.b'. Call it 'center'"),
            (dict(aux_losses=dict(pop=CENTER)), ValueError, "got 'pop'. Call it 'center'"),
            (dict(aux_losses=dict(a=0.1)), TypeError, 'aux_losses.a must be a config with a type'),
        ],
    )
    def test_mistakes_die_in_the_constructor(self, options, error, text):
        with pytest.raises(error, match=re.escape(text)):
            build(**options)

    def test_an_unknown_mode_and_no_labels(self):
        with pytest.raises(ValueError, match=r"mode must be one of 'tensor', 'loss', 'predict'"):
            build()(images(), mode='test')
        with pytest.raises(ValueError, match='data_samples must be the labels of the batch, got N'):
            build()(images(), mode='loss')

    def test_maps_without_a_neck(self):
        with pytest.raises(ValueError, match=r'features must have the shape \(B, D\), got \(4, 6'):
            build(neck=None)(images(), LABELS, mode='loss')


def test_built_by_a_config_of_any_host():
    config = dict(type='mmloss_plugins.EmbeddingClassifier', backbone=NECK, head=HEAD)
    model = ROOT.build(dict(config, aux_losses=dict(center=CENTER)))
    assert type(model.aux_losses['center']) is CenterLoss
