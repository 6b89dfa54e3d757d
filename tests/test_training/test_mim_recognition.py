"""``mim train mmdet`` and ``mim test mmdet`` of a recognition mini, from an unrelated folder."""

from __future__ import annotations

import pytest

from tests.mim import Mim

ARCFACE = 'recognition/digits/arcface_mini_lenet_digits-2d.py'


@pytest.fixture
def mim(tmp_path, installed_wheel):
    # The digits come with scikit-learn: any folder will do.
    return Mim(tmp_path, installed_wheel, tmp_path / 'none', 'mmdet', ARCFACE)


def test_mini_trains_and_its_checkpoint_gives_the_same_metrics(mim):
    code, output = mim.run(*mim.train(4))
    assert code == 0, output
    rows = mim.scalars()
    assert [row['iter'] for row in rows if 'loss' in row] == [1, 2, 3, 4]
    # 0.5 over 400 iterations.
    margins = [row['margin'] for row in rows if 'margin' in row]
    assert margins == pytest.approx([0.0, 0.00125, 0.0025, 0.00375], abs=1e-3)
    values = next(row for row in rows if 'class/accuracy' in row)
    checkpoint = mim.folder / 'run' / 'iter_4.pth'
    code, output = mim.run(
        'test', 'mmdet', mim.config, '--checkpoint', checkpoint, '--work-dir', mim.folder / 'test'
    )
    assert code == 0, output
    for name in ('class/accuracy', 'spread/angle', 'spread/distance', 'calibration/nll'):
        assert f'{name}: {values[name]:.4f}' in output


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        ('model.head.scal=16', "Did you mean 'scale'?"),
        ('train_dataloader.dataset.split=test', "split must be one of 'train', 'val', got 'test'"),
    ],
    ids=['head', 'data'],
)
def test_mistake_in_the_config_is_named_before_training(mim, option, message):
    code, output = mim.run(*mim.train(2, option))
    assert code != 0
    assert message in output
    assert mim.scalars() == []
