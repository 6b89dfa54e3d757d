"""Every Omniglot mini trains and validates; they differ in head and centre loss alone."""

from __future__ import annotations

import copy
import io
import json
import math
import os
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from PIL import Image

from benchmarks.claim_list import CLAIMS, ROOT
from tests.test_configs.detection_cases import differing

FOLDER = ROOT / 'configs' / 'recognition' / 'omniglot'
CONFIGS = {file.stem.split('_')[0]: file for file in sorted(FOLDER.glob('*.py'))}
ARCHIVES = {
    'images_background_small1.zip': ('Greek', 'Latin', 'Balinese'),
    'images_background_small2.zip': ('Greek', 'Latin', 'Sanskrit'),
}


def write_archive(path, alphabets):
    """Two characters of each alphabet, a cross and a bar; three noisy drawings of each."""
    random = np.random.default_rng(0)
    with zipfile.ZipFile(path, 'w') as archive:
        for alphabet in alphabets:
            for character in (1, 2):
                for number in (1, 2, 3):
                    paper = random.random((105, 105)) < 0.95
                    paper[40:60] = False
                    paper[:, 40:60] &= character == 2
                    buffer = io.BytesIO()
                    Image.fromarray(paper).save(buffer, 'PNG')
                    name = f'set/{alphabet}/character{character:02}/{number:04}.png'
                    archive.writestr(name, buffer.getvalue())


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Archives with the names of the real ones."""
    for name, alphabets in ARCHIVES.items():
        write_archive(tmp_path / name, alphabets)
    monkeypatch.setenv('OMNIGLOT', str(tmp_path))
    return tmp_path


def load(name):
    return Config.fromfile(CONFIGS[name])


@pytest.mark.parametrize('name', CONFIGS)
def test_trains_and_validates(name, small, tmp_path):
    config = load(name)
    config.merge_from_dict(
        {
            'work_dir': str(tmp_path / 'work'),
            # MMEngine keeps one visualizer per name, with the folder of the first run.
            'visualizer.name': str(tmp_path),
            'experiment_name': str(tmp_path).replace('/', '_'),
            'train_cfg.max_iters': 2,
            'train_cfg.val_interval': 2,
            'train_dataloader.batch_size': 6,
            'default_hooks.logger.interval': 1,
            'model.head.num_classes': 6,
        }
    )
    config.custom_hooks[-1].interval = 1
    for loss in config.model.get('aux_losses', {}).values():
        loss.num_classes = 6
    runner = Runner.from_cfg(config)
    runner.train()
    (file,) = (tmp_path / 'work').glob('*/vis_data/scalars.json')
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    terms = [key for key in rows[0] if key.startswith('loss_')]
    assert terms == ['loss_cls', *(['loss_center'] if 'center' in name else [])]
    assert rows[0]['loss'] == pytest.approx(sum(rows[0][term] for term in terms), rel=1e-3)
    assert math.isfinite(rows[1]['loss'])
    found = {key: rows[-1][key] for key in CLAIMS['omniglot'].metrics.values()}
    assert all(0 <= value <= 1 for value in found.values())
    # Six drawings of two characters: the five nearest others hold one of the own.
    assert len(runner.val_dataloader.dataset) == 6
    assert found['verification/recall@5'] == 1


@pytest.mark.parametrize('name', CONFIGS)
def test_minis_differ_in_what_the_claim_compares(name):
    paths = differing(load(name).to_dict(), load('softmax').to_dict())
    allowed = ('model.head.', 'model.aux_losses', 'model.neck.output_scale')
    assert [path for path in paths if not path.startswith(allowed)] == []
    assert load(name).model.head.num_classes == 136


def test_the_claim_shows_every_config():
    claim = CLAIMS['omniglot']
    assert {ROOT / file for file in claim.configs.values()} == set(CONFIGS.values())
    assert (claim.data, claim.generated, claim.seeds) == ('OMNIGLOT', None, 3)
    text = (ROOT / claim.readme).read_text()
    assert all(file.stem in text for file in CONFIGS.values())


def test_without_the_data_the_run_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv('OMNIGLOT', str(tmp_path))
    config = load('softmax')
    text = (
        f"RequireDataHook: data_root='{tmp_path}' must be a folder with "
        'images_background_small1.zip, images_background_small2.zip, got '
        f'{tmp_path} without images_background_small1.zip. Set the environment variable OMNIGLOT'
    )
    config.work_dir = str(tmp_path / 'work')
    with pytest.raises(FileNotFoundError, match=re.escape(text)):
        Runner.from_cfg(config)


def test_real_characters_that_are_searched_are_not_trained_on(monkeypatch):
    beside = Path(__file__).parents[3] / 'shared' / 'datasets' / 'omniglot_small'
    folder = Path(os.environ.get('OMNIGLOT', beside))
    if not folder.is_dir():
        pytest.skip(f'no Omniglot: {folder} is absent and OMNIGLOT is not set')
    monkeypatch.setenv('OMNIGLOT', str(folder))
    config = load('softmax')
    train, val = (
        DATASETS.build(copy.deepcopy(loader.dataset))
        for loader in (config.train_dataloader, config.val_dataloader)
    )
    assert (len(train), len(train.classes)) == (2720, config.model.head.num_classes)
    assert (len(val), len(val.classes)) == (2120, 106)
    assert not set(train.classes) & set(val.classes)
    assert train[0]['inputs'].shape == val[0]['inputs'].shape == (1, 28, 28)
    assert val.move is None
    # Moved, not thrown out of the picture.
    moved = sum(train[index]['inputs'].sum() for index in range(0, 2720, 40))
    still = train.images[::40].sum()
    assert moved != still
    assert moved.item() == pytest.approx(still.item(), rel=0.15)
