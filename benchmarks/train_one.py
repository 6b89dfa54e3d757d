"""One run of a claim: train a config with a seed through MMEngine's runner, write one JSON.

Run by ``benchmarks.claims`` in a process of its own; an interrupted run resumes from its last
checkpoint in the same work directory.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

from benchmarks.environment import describe_environment
from mmloss_plugins.visualization.curves import Scalars, read_scalars


def fingerprint(config: str) -> str:
    """Return a hash of the resolved config: a result of another config must not be reused."""
    from mmengine.config import Config

    resolved = Config.fromfile(config).to_dict()
    for name in ('default_hooks', 'custom_hooks'):
        resolved.pop(name, None)  # what is logged does not change a result
    text = json.dumps(_without_paths(resolved), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _without_paths(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _without_paths(item)
            for key, item in value.items()
            if key != 'ann_file' and not str(key).endswith('_root')
        }
    if isinstance(value, (list, tuple)):
        return [_without_paths(item) for item in value]
    return value


def train(config: str, seed: int, work_dir: Path) -> None:
    """Train ``config`` with ``seed`` in ``work_dir``, from its last checkpoint if there is one."""
    from mmengine.config import Config
    from mmengine.runner import Runner

    cfg = Config.fromfile(config)
    cfg.work_dir = str(work_dir)
    cfg.randomness = dict(seed=seed)
    cfg.resume = (work_dir / 'last_checkpoint').is_file()
    Runner.from_cfg(cfg).train()


def metric_names(scalars: Scalars) -> list[str]:
    """Return the names of all validation metrics, which have a prefix where times have none."""
    return list(dict.fromkeys(name for row in scalars.val for name in row if '/' in name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config')
    parser.add_argument('--seed', type=int, required=True)
    parser.add_argument('--work-dir', type=Path, required=True)
    parser.add_argument('--out', type=Path, required=True)
    args = parser.parse_args()

    begin = time.time()
    train(args.config, args.seed, args.work_dir)
    scalars = read_scalars(args.work_dir)
    result = dict(
        config=Path(args.config).name,
        fingerprint=fingerprint(args.config),
        seed=args.seed,
        seconds=round(time.time() - begin, 1),
        threads=os.environ.get('OMP_NUM_THREADS'),
        curves={key: list(zip(*scalars.series(key))) for key in metric_names(scalars)},
        environment=describe_environment(),
    )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    partial = args.out.with_suffix('.tmp')
    partial.write_text(json.dumps(result, indent=1) + '\n')
    partial.replace(args.out)


if __name__ == '__main__':
    main()
