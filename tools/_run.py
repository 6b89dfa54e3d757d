"""What train.py and test.py share: arguments, overrides, and the host of the config."""

from __future__ import annotations

import argparse
import importlib
import os
from pathlib import Path

from mmengine.config import Config, DictAction

# Without it MMEngine 0.10.7 on torch 2.6 and later refuses the checkpoints it wrote itself.
import mmloss_plugins.compat  # noqa: F401


def make_parser(description: str) -> argparse.ArgumentParser:
    """Return a parser with the arguments of every OpenMMLab script."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='folder for logs and checkpoints')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        default={},
        help='settings that replace those of the config, as key=value',
    )
    parser.add_argument(
        '--launcher', choices=('none', 'pytorch', 'slurm', 'mpi'), default='none', help='launcher'
    )
    # torch.distributed.launch passes it, and mmengine reads it from the environment.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    return parser


def load_config(args: argparse.Namespace) -> Config:
    """Return the config with the overrides of the command line, its host registered."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    config = Config.fromfile(args.config)
    config.launcher = args.launcher
    config.merge_from_dict(args.cfg_options)
    default = config.get('work_dir') or str(Path('work_dirs', Path(args.config).stem))
    config.work_dir = args.work_dir or default
    if 'preprocess_cfg' in config:
        # MMPose's base files keep these settings outside of the model.
        config.model.setdefault('data_preprocessor', config.preprocess_cfg)
    register_host(config.get('default_scope'))
    return config


def register_host(scope: str | None) -> None:
    """Register the modules of the host that ``scope`` names, mmpose or mmdet for example.

    Raises:
        ModuleNotFoundError: the host is not installed.
    """
    if scope in (None, 'mmengine'):
        return
    try:
        utils = importlib.import_module(f'{scope}.utils')
    except ModuleNotFoundError as error:
        if error.name != scope:
            raise
        raise ModuleNotFoundError(
            f'config: default_scope must name an installed host, got {scope!r}. '
            f'Install it, or see `python -m mmloss_plugins doctor`.',
            name=scope,
        ) from error
    register = getattr(utils, 'register_all_modules', None)
    if register is not None:
        register(init_default_scope=False)
