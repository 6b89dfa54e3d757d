"""TrainClassesHook in MMEngine's runner, on the digits with embeddings of two dimensions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.runner import Runner

pytest.importorskip('sklearn')
pytest.importorskip('mmdet')
ROOT = Path(__file__).resolve().parents[2]
CENTER = ROOT / 'configs' / 'recognition' / 'digits' / 'center_mini_lenet_digits-2d.py'


def train(tmp_path, **changes):
    cfg = Config.fromfile(CENTER)
    cfg.merge_from_dict(
        {
            'work_dir': str(tmp_path),
            'experiment_name': tmp_path.name,
            'train_cfg.max_iters': 1,
            'train_cfg.val_interval': 10,
            'custom_hooks': [dict(type='mmloss_plugins.TrainClassesHook')],
            **changes,
        }
    )
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


def test_ten_classes_pass(tmp_path):
    assert train(tmp_path).iter == 1


@pytest.mark.parametrize(
    ('key', 'name'),
    [
        ('model.head.num_classes', 'SoftmaxHead (head)'),
        ('model.aux_losses.center.num_classes', 'CenterLoss (aux_losses.center)'),
    ],
)
@pytest.mark.parametrize('number', [9, 11])
def test_other_numbers_are_refused_by_name(tmp_path, key, name, number):
    rule = f'num_classes must be the 10 classes of DigitImages, got {number}'
    text = f'{name}: {rule}. Set num_classes=10 there.'
    with pytest.raises(ValueError, match=re.escape(text)):
        train(tmp_path, **{key: number})


def test_sets_that_name_no_classes_pass(tmp_path, monkeypatch):
    from mmloss_plugins.datasets.labelled_images import LabelledImages

    monkeypatch.setattr(LabelledImages, 'metainfo', {})
    changes = {'model.head.num_classes': 12, 'model.aux_losses.center.num_classes': 12}
    assert train(tmp_path, **changes).iter == 1
