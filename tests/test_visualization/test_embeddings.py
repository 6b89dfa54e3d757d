"""Pictures of embeddings: what is read from a run, and what the command says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner, load_checkpoint
from torch.nn.functional import normalize

from mmloss_plugins.datasets import DigitImages
from mmloss_plugins.models import EmbeddingClassifier
from mmloss_plugins.visualization import draw_embeddings
from mmloss_plugins.visualization.__main__ import main
from mmloss_plugins.visualization._embedding_run import EmbeddingRun, collect
from tests.test_visualization.conftest import SIMCC, small
from tests.test_visualization.pictures import check_picture

DIGITS = SIMCC.parents[2] / 'recognition' / 'digits'
CENTER = DIGITS / 'center_mini_lenet_digits-2d.py'
ARCFACE = DIGITS / 'arcface_mini_lenet_digits-2d.py'


def train(path, work_dir):
    config = small(path, work_dir)
    config.train_cfg.update(max_iters=8, val_interval=8)
    config.default_hooks.checkpoint.interval = 8
    Runner.from_cfg(config).train()
    return work_dir


@pytest.fixture(scope='module')
def center(tmp_path_factory):
    return train(CENTER, tmp_path_factory.mktemp('embeddings') / 'center')


@pytest.fixture(scope='module')
def arcface(tmp_path_factory):
    return train(ARCFACE, tmp_path_factory.mktemp('embeddings') / 'arcface')


def logged(work_dir):
    (path,) = Path(work_dir).glob('*/vis_data/scalars.json')
    return json.loads(path.read_text().splitlines()[-1])


class TestRead:
    @pytest.mark.parametrize('name', ['center', 'arcface'])
    def test_measures_are_those_of_the_validation(self, request, name):
        work_dir = request.getfixturevalue(name)
        found, log = EmbeddingRun(work_dir).embed(), logged(work_dir)
        assert found.accuracy == pytest.approx(log['class/accuracy'], abs=1e-6)
        assert found.angle == pytest.approx(log['spread/angle'], rel=1e-6)
        assert found.distance == pytest.approx(log['spread/distance'], rel=1e-6)
        assert 0 < found.accuracy < 1
        assert found.on_circle == (name == 'arcface')

    def test_embeddings_are_those_that_are_trained(self, arcface):
        run = EmbeddingRun(arcface)
        found, data = run.embed(), DigitImages('val')
        with torch.no_grad():
            # The mean and the standard deviation of the preprocessor are 8.
            maps = run.model.backbone((data.images - 8) / 8)
            expected = run.model.neck(maps)
        np.testing.assert_allclose(found.features, expected, atol=1e-5)
        np.testing.assert_array_equal(found.labels, data.labels)
        assert found.classes == tuple('0123456789')
        # Not those of length 1 that the head hands over.
        assert np.linalg.norm(found.features, axis=1).std() > 0.1

    def test_centers_and_weights_are_those_of_the_checkpoint(self, center, arcface):
        weights = torch.load(center / 'iter_8.pth', weights_only=False)['state_dict']
        found = EmbeddingRun(center).embed()
        assert found.centers.shape == (10, 2)
        np.testing.assert_array_equal(found.centers, weights['aux_losses.center.centers'])
        np.testing.assert_array_equal(found.weights[:, 0], weights['head.weight'])
        assert np.abs(found.centers).max() > 0
        assert EmbeddingRun(arcface).embed().centers is None

    def test_all_training_images_in_their_order(self, center):
        """Though the loader of the config shuffles without an end."""
        found = EmbeddingRun(center, split='train').embed()
        np.testing.assert_array_equal(found.labels, DigitImages('train').labels)

    def test_ignored_images_do_not_count(self, arcface):
        model = EmbeddingRun(arcface).model
        images, labels = DigitImages('val').images[:6], torch.tensor([3, -1, 2, -1, 2, 9])
        batches = [
            dict(inputs=images[part], data_samples=labels[part])
            for part in (slice(0, 4), slice(4, 6))
        ]
        found = collect(model, batches)
        assert found.labels.tolist() == [3, 2, 2, 9]
        with torch.no_grad():
            kept = model.extract_feat((images[[0, 2, 4, 5]] - 8) / 8)
        np.testing.assert_allclose(found.features, kept, atol=1e-5)
        directions = normalize(kept) @ normalize(model.head.weight).T
        hits = (directions.argmax(1) == labels[[0, 2, 4, 5]]).float().mean()
        assert found.accuracy == pytest.approx(hits.item())

    @pytest.mark.parametrize(('labels', 'got'), [([3, 10], '10'), ([-2, 3], '-2')])
    def test_classes_without_weights_are_refused(self, arcface, labels, got):
        model = EmbeddingRun(arcface).model
        batch = dict(inputs=torch.zeros(2, 1, 8, 8), data_samples=torch.tensor(labels))
        text = f'the labels must be within the 10 classes of the head, got {got}. Draw'
        with pytest.raises(ValueError, match=text):
            collect(model, [batch])
        with pytest.raises(ValueError, match='must hold an image, got none'):
            collect(model, [])
        batch['data_samples'].fill_(-1)
        with pytest.raises(ValueError, match='must hold a labelled image, got none'):
            collect(model, [batch])

    def test_centers_on_other_embeddings_are_left_out(self):
        """Of a neck that gives a sequence the loss has the first, the head the last."""

        class Twice(torch.nn.Module):
            def forward(self, x):
                return x.flatten(1), -x.flatten(1)

        model = EmbeddingClassifier(
            backbone=torch.nn.Identity(),
            neck=Twice(),
            head=dict(type='mmloss_plugins.SoftmaxHead', in_channels=2, num_classes=2),
            aux_losses=dict(c=dict(type='mmloss_plugins.CenterLoss', num_classes=2, feat_dim=2)),
        ).eval()
        batch = dict(inputs=torch.ones(3, 2, 1, 1), data_samples=torch.tensor([0, 1, 1]))
        found = collect(model, [batch])
        assert found.centers is None
        np.testing.assert_array_equal(found.features, -np.ones((3, 2)))


class TestCommand:
    def test_writes_one_sheet(self, center, arcface, tmp_path, capsys):
        (config,) = arcface.glob('*.py')
        words = ['embeddings', center, config, arcface / 'iter_8.pth', center]
        words += ['--labels', 'Centre loss', 'ArcFace', 'x', '--out', tmp_path / 'deep' / 'e.png']
        assert main([str(word) for word in words]) == 0
        assert capsys.readouterr().out.split() == [str(tmp_path / 'deep' / 'e.png')]
        check_picture(tmp_path / 'deep' / 'e.png')

    def test_returns_what_is_drawn(self, center, arcface, tmp_path):
        found = draw_embeddings([center, arcface], tmp_path / 'e.png', split='train')
        assert [len(each.labels) for each in found] == [1347, 1347]
        assert [each.on_circle for each in found] == [False, True]

    @pytest.mark.parametrize(
        ('words', 'text'),
        [
            (['none'], "work_dir must hold one config, *.py, got 0 in 'none'."),
            (['{run}', 'none.py', 'x.pth'], "config must be a file, got 'none.py'."),
            (['{config}', 'x.pth'], "checkpoint must be a file, got 'x.pth'."),
            (['{config}'], 'must be followed by its checkpoint, got nothing.'),
            (['{run}', '--labels', 'a', 'b'], 'labels must be one for each of at least one run'),
            (['{run}', '--cfg-options', 'model.head.num_classes=9'], 'do not fit, such as head.'),
            (
                ['{run}', '--split', 'test', '--cfg-options', 'test_dataloader=None'],
                'must have the images to embed, got no test_dataloader. Take another split',
            ),
            (
                ['{run}', '--cfg-options', 'model.type=PoseDetector'],
                "must be that of an EmbeddingClassifier, got the model 'PoseDetector'.",
            ),
            (
                [
                    '{run}',
                    '--cfg-options',
                    'model.head.in_channels=3',
                    *['model.head.weight_init=xavier'],
                ],
                'embeddings must have 2 dimensions, got 3. Train with out_channels=2',
            ),
        ],
    )
    def test_says_what_is_wrong(self, center, tmp_path, capsys, words, text):
        (config,) = center.glob('*.py')
        words = [word.format(run=center, config=config) for word in words]
        assert main(['embeddings', *words, '--out', str(tmp_path / 'e.png')]) == 1
        assert text in capsys.readouterr().err
        assert not (tmp_path / 'e.png').exists()

    def test_a_run_of_another_model(self, tmp_path, capsys):
        Config.fromfile(SIMCC).dump(tmp_path / 'pose.py')
        (tmp_path / 'last_checkpoint').write_text('x.pth')
        (tmp_path / 'x.pth').touch()
        words = ['--cfg-options', f'val_dataloader.dataset.ann_file={tmp_path / "x.pth"}']
        assert main(['embeddings', str(tmp_path), *words, '--out', 'e.png']) == 1
        expected = "be that of an EmbeddingClassifier, got the model 'TopdownPoseEstimator'."
        assert expected in capsys.readouterr().err

    def test_a_folder_without_checkpoint(self, center, tmp_path, capsys):
        (config,) = center.glob('*.py')
        shutil.copy(config, tmp_path)
        assert main(['embeddings', str(tmp_path), '--out', 'e.png']) == 1
        assert 'work_dir must hold last_checkpoint' in capsys.readouterr().err

    def test_the_weights_are_loaded(self, center):
        run = EmbeddingRun(center)
        other = EmbeddingRun(center).model
        torch.nn.init.zeros_(other.head.weight)
        load_checkpoint(other, str(center / 'iter_8.pth'), logger='silent')
        for name, value in run.model.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name
        assert not run.model.training
