"""tools/train.py and tools/test.py, as mim starts them: from an unrelated folder."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

TOY = """
import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS


@MODELS.register_module()
class ToyModel(BaseModel):
    def __init__(self, start=2.0, **kwargs):
        super().__init__(**kwargs)
        self.scale = torch.nn.Parameter(torch.tensor(float(start)))

    def forward(self, x, mode='tensor'):
        if mode == 'loss':
            return dict(loss=(self.scale * x - x).square().mean())
        return list((self.scale * x).detach())


@DATASETS.register_module()
class ToyData(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return dict(x=torch.tensor(1.0 + index / 8))


@METRICS.register_module()
class ToyMetric(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results += [float(sample) for sample in data_samples]

    def compute_metrics(self, results):
        return dict(mean=sum(results) / len(results))
"""
CONFIG = """
default_scope = {scope!r}
custom_imports = dict(imports=['toy'], allow_failed_imports=False)
model = dict(type='mmengine.ToyModel')
train_dataloader = dict(
    batch_size=4, num_workers=0, collate_fn=dict(type='default_collate'),
    dataset=dict(type='mmengine.ToyData'),
    sampler=dict(type='mmengine.DefaultSampler', shuffle=False))
optim_wrapper = dict(type='mmengine.OptimWrapper',
                     optimizer=dict(type='mmengine.SGD', lr=0.1))
train_cfg = dict(by_epoch=True, max_epochs=1)
test_dataloader = train_dataloader
test_evaluator = dict(type='mmengine.ToyMetric')
test_cfg = dict()
default_hooks = dict(checkpoint=dict(type='mmengine.CheckpointHook', save_optimizer=False))
"""


@pytest.fixture
def place(tmp_path):
    (tmp_path / 'toy.py').write_text(TOY)
    (tmp_path / 'toy_config.py').write_text(CONFIG.format(scope='mmengine'))
    return tmp_path


def start(script, arguments, folder):
    return subprocess.run(
        [sys.executable, '-W', 'ignore', str(ROOT / 'tools' / script), *map(str, arguments)],
        cwd=folder,
        env={**os.environ, 'PYTHONPATH': str(folder)},
        capture_output=True,
        text=True,
    )


def test_train_then_test(place):
    out = place / 'predictions.pkl'
    options = ['--launcher', 'none', '--work-dir', 'runs/a', '--cfg-options', 'model.start=3.0']
    trained = start('train.py', ['toy_config.py', *options], place)
    assert trained.returncode == 0, trained.stderr
    assert re.search(r'Epoch\(train\).*\[1\]\[2/2\]', trained.stdout + trained.stderr)
    checkpoint = place / 'runs' / 'a' / 'epoch_1.pth'
    assert checkpoint.is_file()

    arguments = ['toy_config.py', checkpoint, '--work-dir', 'runs/b', '--out', out]
    tested = start('test.py', [*arguments, '--cfg-options', 'load_from=None'], place)
    assert tested.returncode == 0, tested.stderr
    assert 'mean: ' in tested.stdout + tested.stderr
    with out.open('rb') as file:
        predictions = pickle.load(file)
    assert len(predictions) == 8
    # Trained from scale 3 towards 1; the untrained 2.0 would predict twice the input.
    assert float(predictions[0]) < 3.0
    assert float(predictions[0]) != 2.0


def test_work_folder_defaults_to_the_name_of_the_config(place):
    result = start('train.py', ['toy_config.py'], place)
    assert result.returncode == 0, result.stderr
    assert (place / 'work_dirs' / 'toy_config' / 'epoch_1.pth').is_file()


def test_missing_host_is_named(place):
    config = place / 'other.py'
    config.write_text(CONFIG.format(scope='mmyolo'))
    result = start('train.py', [config], place)
    assert result.returncode != 0
    assert "default_scope must name an installed host, got 'mmyolo'" in result.stderr


@pytest.mark.parametrize('script', ['train.py', 'test.py'])
def test_help_names_what_mim_passes(script, tmp_path):
    result = start(script, ['-h'], tmp_path)
    assert result.returncode == 0
    for option in ('config', '--work-dir', '--launcher', '--cfg-options'):
        assert option in result.stdout
    assert ('--resume' in result.stdout) == (script == 'train.py')
    # mim passes --gpus to a script whose help names it.
    assert '--gpus' not in result.stdout
