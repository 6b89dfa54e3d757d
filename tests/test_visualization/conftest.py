"""One real run for all tests: the SimCC mini for 20 iterations, killed once and resumed."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmloss_plugins.datasets.figures import generate_figures

CONFIGS = Path(__file__).resolve().parents[2] / 'configs' / 'pose' / 'simcc'
SIMCC = CONFIGS / 'simcc_mini_tiny-res_figures-64x64.py'
HEATMAP = CONFIGS / 'td-hm_mini_tiny-res_figures-64x64.py'
KILLED_AT, RESUMED_FROM, LAST = 15, 12, 20


class Kill(Hook):
    """Stops a run without a farewell."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 == KILLED_AT:
            raise KeyboardInterrupt


def small(config: Path, work_dir: Path) -> Config:
    """Return ``config`` with 20 iterations, which log every second one, in this process."""
    config = Config.fromfile(config)
    config.work_dir = str(work_dir)
    # A name that is taken would hand this run the log files of the other one.
    config.visualizer.name = f'visualizer_{time.time_ns()}'
    config.merge_from_dict(
        {
            'train_cfg.max_iters': LAST,
            'train_cfg.val_interval': 4,
            'default_hooks.checkpoint.interval': 6,
            'default_hooks.logger.interval': 1,
            'train_dataloader.batch_size': 8,
            'log_level': 'ERROR',
            'randomness.seed': 3,
        }
    )
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        config[loader].update(num_workers=0, persistent_workers=False)
    for hook in config.custom_hooks:
        if 'interval' in hook:
            hook.interval = 1
    return config


@pytest.fixture(scope='session')
def data(tmp_path_factory):
    """MMLOSS_DATA with 32 training and 16 val images of the figure set."""
    folder = tmp_path_factory.mktemp('data')
    generate_figures(folder / 'figures', 32, 16, progress=False)
    before = os.environ.get('MMLOSS_DATA')
    os.environ['MMLOSS_DATA'] = str(folder)
    yield folder
    if before is None:
        del os.environ['MMLOSS_DATA']
    else:
        os.environ['MMLOSS_DATA'] = before


@pytest.fixture(scope='session')
def trained(data, tmp_path_factory):
    """``config``, ``checkpoint`` and ``work_dir`` of the run."""
    work_dir = tmp_path_factory.mktemp('run')
    killed = Runner.from_cfg(small(SIMCC, work_dir))
    killed.register_hook(Kill())
    with pytest.raises(KeyboardInterrupt):
        killed.train()
    config = small(SIMCC, work_dir)
    config.resume = True
    resumed = Runner.from_cfg(config)
    # MMEngine names log folders by the second: the two must not share one.
    assert resumed.timestamp != killed.timestamp
    resumed.train()
    return SimpleNamespace(
        config=small(SIMCC, work_dir), checkpoint=work_dir / f'iter_{LAST}.pth', work_dir=work_dir
    )
