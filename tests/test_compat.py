"""MMEngine's own checkpoints load on torch >= 2.6, and nothing more than them."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from mmloss_plugins import compat


class GetAttribute:
    """Pickles to ``getattr(owner, name)``, as HistoryBuffer does with its statistics."""

    def __init__(self, owner, name):
        self.owner, self.name = owner, name

    def __reduce__(self):
        return getattr, (self.owner, self.name)


@pytest.fixture
def checkpoint(tmp_path):
    history = HistoryBuffer()
    for value, count in ((2.0, 1), (4.0, 3)):
        history.update(value, count)
    content = dict(
        history=history,
        arrays=[
            np.array([0, 1, 2]).astype(name) for name in ('float32', 'float64', 'int64', 'bool')
        ],
        scalar=np.float64(0.5),
        weights=torch.arange(3.0),
    )
    file = tmp_path / 'iter_1.pth'
    torch.save(content, file)
    return file


def test_log_history_survives(checkpoint):
    loaded = torch.load(checkpoint, weights_only=True)
    assert loaded['history'].mean() == 1.5  # (2 + 4) / (1 + 3)
    assert loaded['history'].statistics('max') == 4.0
    assert [array.tolist() for array in loaded['arrays']] == [
        [0.0, 1.0, 2.0],
        [0.0, 1.0, 2.0],
        [0, 1, 2],
        [False, True, True],
    ]
    assert loaded['scalar'] == 0.5


def test_without_compat_torch_refuses(checkpoint):
    code = f'import torch, mmengine.logging; torch.load({str(checkpoint)!r}, weights_only=True)'
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert result.returncode == 1
    assert 'Weights only load failed' in result.stderr


@pytest.mark.parametrize(
    ('owner', 'name'),
    [(HistoryBuffer, '__init__'), (HistoryBuffer, '__dict__'), (np.ndarray, 'tofile')],
)
def test_getattr_on_anything_else_is_refused(tmp_path, owner, name):
    file = tmp_path / 'crafted.pth'
    torch.save(GetAttribute(owner, name), file)
    with pytest.raises(ValueError, match='Do not load this file unless you trust'):
        torch.load(file, weights_only=True)


def test_other_code_is_refused(tmp_path):
    file = tmp_path / 'crafted.pth'
    torch.save(subprocess.Popen, file)
    with pytest.raises(pickle.UnpicklingError, match='Popen'):
        torch.load(file, weights_only=True)


def test_repeating_is_harmless(checkpoint):
    compat.allow_mmengine_checkpoints()
    compat.allow_mmengine_checkpoints()
    assert torch.load(checkpoint, weights_only=True)['scalar'] == 0.5
