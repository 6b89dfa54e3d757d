"""Heads of the softmax family: forms of labels, predictions, no host."""

from __future__ import annotations

import doctest
import importlib
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.structures import BaseDataElement, LabelData
from torch.testing import assert_close

from mmloss_plugins.heads import ArcFaceHead, NormFaceHead
from tests.test_heads.softmax_cases import HEADS, LABELS, build, features, gradients, loss_of


class TestLabels:
    """Whatever a data set hands over is the same as a tensor of classes."""

    def samples(self):
        found = []
        for label in LABELS.tolist():
            sample = BaseDataElement()
            sample.gt_label = LabelData(label=torch.tensor([label]))
            found.append(sample)
        return found

    @pytest.mark.parametrize('form', ['samples', 'tensor samples', 'dict', 'ints', 'int32', 'pair'])
    def test_forms(self, form):
        head, x = build(ArcFaceHead), features()
        targets = {
            'samples': self.samples(),
            'tensor samples': [BaseDataElement(gt_label=label) for label in LABELS],
            'dict': dict(gt_label=LABELS),
            'ints': LABELS.tolist(),
            'int32': LABELS.int(),
            'pair': [
                BaseDataElement(gt_label=LabelData(label=LABELS[:2])),
                BaseDataElement(gt_label=LabelData(label=LABELS[2:])),
            ],
        }[form]
        assert_close(loss_of(head, x, targets), loss_of(head, x))
        assert_close(loss_of(head, (None, x), targets), loss_of(head, x))

    @pytest.mark.parametrize('head', HEADS)
    def test_ignored_ones_do_not_count_even_if_they_are_nan(self, head):
        head, x = build(head), features()
        broken = x.detach().clone()
        broken[2] = math.nan
        broken.requires_grad_()
        labels = torch.tensor([0, 3, -1, 3, 1])
        kept = torch.tensor([0, 1, 3, 4])
        assert_close(loss_of(head, broken, labels), loss_of(head, x[kept], LABELS[kept]))
        found, expected = gradients(head, broken, labels), gradients(head, x, labels)
        assert_close(found[0][2], torch.zeros(4))
        for ours, other in zip(found, expected):
            assert_close(ours, other)

    @pytest.mark.parametrize('head', HEADS)
    @pytest.mark.parametrize('labels', [torch.full((5,), -1), torch.zeros(0, dtype=torch.int64)])
    def test_nothing_to_learn_from(self, head, labels):
        head = build(head, accuracy=True)
        x = features().detach()[: len(labels)].requires_grad_()
        losses = head.loss(x, labels)
        assert (losses['loss_cls'].item(), losses['acc_cls'].item()) == (0, 0)
        for gradient in gradients(head, x, labels):
            assert gradient.count_nonzero() == 0


class TestPredictions:
    @pytest.mark.parametrize('head', HEADS)
    def test_samples_get_the_embedding(self, head):
        head, x = build(head), features()
        samples = TestLabels().samples()
        assert head.predict(x, samples) == samples
        found = torch.stack([sample.pred_feature for sample in samples])
        on_sphere = head.what in ('NormFaceHead', 'ArcFaceHead')
        assert_close(found, x / x.norm(dim=1, keepdim=True) if on_sphere else x)
        assert 'scores' not in samples[0]

    def test_scores_by_option(self):
        head, x = build(ArcFaceHead, with_scores=True), features()
        (*_, last) = head.predict(x, TestLabels().samples())
        assert_close(last.scores, head.predict(x)[-1])
        assert last.to_dict()['pred_label']['label'].tolist() == [int(head.predict(x)[-1].argmax())]

    def test_labels_become_dicts_of_the_same_form(self):
        head, x = build(NormFaceHead, with_scores=True), features()
        first, second, *_ = head.predict(x, LABELS)
        assert second['gt_label']['label'].tolist() == [3]
        assert_close(first['pred_feature'], head(x)[0])
        assert first['pred_label']['label'].tolist() == [int(first['scores'].argmax())]

    def test_samples_of_several_images(self):
        head, x = build(NormFaceHead), features()
        pair = BaseDataElement(gt_label=LabelData(label=LABELS[:2]))
        rest = BaseDataElement(gt_label=LabelData(label=LABELS[2:]))
        head.predict(x, [pair, rest])
        assert_close(rest.pred_feature, head(x)[2:])

    def test_another_number_of_samples(self):
        with pytest.raises(
            ValueError, match=r'data_samples must describe 5 images, got 4\. Give as'
        ):
            build(NormFaceHead).predict(features(), LABELS[:4])


EXAMPLES = [
    'heads.arcface',
    'heads.softmax',
    'losses.schedules',
    'metrics.class_accuracy',
    'metrics.verification',
    'models.embedding_classifier',
    'models.embedding_preprocessor',
    'necks.arcface',
]


@pytest.mark.parametrize('name', EXAMPLES)
def test_examples_of_recognition(name):
    results = doctest.testmod(importlib.import_module(f'mmloss_plugins.{name}'))
    assert results.attempted > 0
    assert results.failed == 0


def test_no_host_is_needed():
    script = (
        'import sys\n'
        'sys.modules.update(dict.fromkeys(("mmpose", "mmdet", "mmcv")))\n'
        'import torch\n'
        'from mmengine.registry import MODELS\n'
        'head = dict(type="mmloss_plugins.ArcFaceHead", in_channels=2, num_classes=3)\n'
        'neck = dict(type="mmloss_plugins.ArcFaceNeck", in_channels=3, out_channels=2)\n'
        'model = MODELS.build(dict(type="mmloss_plugins.EmbeddingClassifier", backbone=neck,\n'
        '                          head=head))\n'
        'loss = model(torch.rand(4, 3, 5, 6), torch.tensor([0, 1, 2, 0]), mode="loss")\n'
        'print(loss["loss_cls"].item() > 0)\n'
    )
    run = subprocess.run(
        [sys.executable, '-c', script],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split()[-1] == 'True'
