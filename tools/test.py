"""Tests a checkpoint of either host; ``mim test mmloss_plugins CONFIG --checkpoint FILE``."""

from __future__ import annotations

import argparse

from _run import load_config, make_parser
from mmengine.config import Config
from mmengine.runner import Runner


def parse_arguments() -> argparse.Namespace:
    parser = make_parser('Test a model')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--out', help='pickle file for the predictions')
    return parser.parse_args()


def add_dump(config: Config, path: str) -> None:
    evaluators = config.test_evaluator
    evaluators = list(evaluators) if isinstance(evaluators, (list, tuple)) else [evaluators]
    config.test_evaluator = [*evaluators, dict(type='DumpResults', out_file_path=path)]


def main() -> None:
    args = parse_arguments()
    config = load_config(args)
    config.load_from = args.checkpoint
    if args.out:
        add_dump(config, args.out)
    Runner.from_cfg(config).test()


if __name__ == '__main__':
    main()
