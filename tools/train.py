"""Trains a config of either host; ``mim train mmloss_plugins CONFIG`` runs this file."""

from __future__ import annotations

import argparse

from _run import load_config, make_parser
from mmengine.runner import Runner


def parse_arguments() -> argparse.Namespace:
    parser = make_parser('Train a model')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='go on from the newest checkpoint of the work folder, or from the one named here',
    )
    parser.add_argument('--amp', action='store_true', help='train in mixed precision')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate to the batch size of this run',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    config = load_config(args)
    if args.resume:
        config.resume = True
        config.load_from = None if args.resume == 'auto' else args.resume
    if args.amp:
        config.optim_wrapper.type = 'AmpOptimWrapper'
        config.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.auto_scale_lr:
        config.auto_scale_lr.enable = True
    Runner.from_cfg(config).train()


if __name__ == '__main__':
    main()
