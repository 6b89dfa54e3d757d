"""EmbeddingPictureHook: what it draws and when, and that training does not notice."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from mmengine.registry import HOOKS
from PIL import Image

from mmloss_plugins.hooks import EmbeddingPictureHook
from mmloss_plugins.models import EmbeddingClassifier
from mmloss_plugins.visualization._embedding_panels import render
from mmloss_plugins.visualization._embedding_run import collect
from tests.test_hooks.toys import ToyModel, toy_runner

CLASSES = 3


class Patches(list):
    """Images of 2x2 px, each brighter in the channel of its class."""

    metainfo = dict(classes=('left', 'up', 'right'))

    def __init__(self):
        generator = torch.Generator().manual_seed(4)
        for label in [0, 2, 1, 1, 2, 0, 2]:
            image = torch.rand(CLASSES, 2, 2, generator=generator)
            image[label] += 1
            self.append(dict(inputs=image, data_samples=dict(gt_label=torch.tensor(label))))


def model_of(dims=2):
    torch.manual_seed(1)
    neck = dict(in_channels=CLASSES, out_channels=dims, dropout=0.5)
    head = dict(in_channels=dims, num_classes=CLASSES, scale=4.0, margin=0.1)
    return EmbeddingClassifier(
        backbone=torch.nn.Identity(),
        neck=dict(type='mmloss_plugins.ArcFaceNeck', **neck),
        head=dict(type='mmloss_plugins.ArcFaceHead', **head),
    )


def runner_of(model, work_dir, hook):
    loader = dict(
        dataset=Patches(),
        sampler=dict(type='DefaultSampler', shuffle=False),
        batch_size=4,
        collate_fn=dict(type='default_collate'),
    )
    return toy_runner(
        model,
        work_dir,
        None,
        train_dataloader=loader,
        val_dataloader=loader,
        train_cfg=dict(by_epoch=False, max_iters=4, val_interval=1),
        val_cfg=dict(),
        val_evaluator=dict(type='mmloss_plugins.EmbeddingSpread'),
        custom_hooks=[] if hook is None else [hook],
        randomness=dict(seed=0),
        visualizer=dict(
            type='Visualizer', name=work_dir.name, vis_backends=[dict(type='LocalVisBackend')]
        ),
    )


def pictures(work_dir):
    return sorted(path.name for path in work_dir.glob('*/vis_data/vis_image/*'))


def read(work_dir, name):
    (path,) = work_dir.glob(f'*/vis_data/vis_image/{name}')
    return np.asarray(Image.open(path).convert('RGB'))


@pytest.mark.parametrize(
    ('interval', 'expected'), [(1, [1, 2, 3, 4]), (2, [1, 3]), (3, [1, 4]), (9, [1])]
)
def test_every_nth_validation_is_drawn(tmp_path, interval, expected):
    hook = dict(type='mmloss_plugins.EmbeddingPictureHook', interval=interval, name='plane')
    runner_of(model_of(), tmp_path, hook).train()
    assert pictures(tmp_path) == [f'plane_{step}.png' for step in expected]


def test_the_picture_is_that_of_the_validated_model(tmp_path):
    runner = runner_of(model_of(), tmp_path, dict(type='mmloss_plugins.EmbeddingPictureHook'))
    runner.train()
    found = collect(runner.model.eval(), runner.val_dataloader)
    assert found.classes == ('left', 'up', 'right')
    assert len(found.labels) == 7
    np.testing.assert_array_equal(read(tmp_path, 'embeddings_4.png'), render(found, 'iteration 4'))
    assert (read(tmp_path, 'embeddings_1.png') != read(tmp_path, 'embeddings_4.png')).any()


def test_training_does_not_notice(tmp_path):
    """Neither weights nor running means nor the random numbers of the dropout."""
    weights = []
    for place, hook in enumerate((None, dict(type='mmloss_plugins.EmbeddingPictureHook'))):
        runner = runner_of(model_of(), tmp_path / str(place), hook)
        runner.train()
        weights.append(runner.model.state_dict())
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name


@pytest.mark.parametrize(
    ('model', 'text'),
    [
        (ToyModel(), 'the model must be an EmbeddingClassifier, got ToyModel.'),
        (model_of(dims=3), 'embeddings must have 2 dimensions, got 3.'),
    ],
)
def test_other_models_are_refused_before_training(tmp_path, model, text):
    runner = runner_of(model, tmp_path, dict(type='mmloss_plugins.EmbeddingPictureHook'))
    with pytest.raises(ValueError, match=f'EmbeddingPictureHook: {re.escape(text)}'):
        runner.train()
    assert runner.iter == 0


@pytest.mark.parametrize('interval', [0, -1, 1.5, True, '2'])
def test_intervals_that_are_none(interval):
    with pytest.raises(ValueError, match='interval must be a positive integer'):
        EmbeddingPictureHook(interval)


@pytest.mark.parametrize('name', ['', 'a/b', 'a\\b'])
def test_names_that_are_no_file(name):
    with pytest.raises(ValueError, match='name must be part of a file name'):
        EmbeddingPictureHook(name=name)


def test_is_found_by_its_name():
    hook = HOOKS.build(dict(type='mmloss_plugins.EmbeddingPictureHook', interval=3))
    assert isinstance(hook, EmbeddingPictureHook)
    assert hook.interval == 3
