"""``python -m mmloss_plugins.visualization CONFIG CHECKPOINT --out DIR`` draws a run.

``python -m mmloss_plugins.visualization dsnt WORK_DIR ... --out FILE`` draws the heatmaps that runs
with a DSNT head have learned. The words ``detections``, ``centernet`` and ``extremenet`` draw
detectors, ``embeddings`` draws embeddings of two dimensions.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config, DictAction

from mmloss_plugins.visualization import detection, dsnt, embeddings
from mmloss_plugins.visualization._detection_run import DetectionRun, is_detector
from mmloss_plugins.visualization._figure import import_matplotlib
from mmloss_plugins.visualization._run import check_checkpoint, load_config, read_config
from mmloss_plugins.visualization.curves import draw_curves
from mmloss_plugins.visualization.pose import draw_predictions
from mmloss_plugins.visualization.simcc import draw_simcc, has_simcc_codec


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw what the command line asks for and return the exit status."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments[:1] == ['dsnt']:
        return dsnt.main(arguments[1:])
    if arguments[:1] == [embeddings.COMMAND]:
        return embeddings.main(arguments[1:])
    if arguments and arguments[0] in detection.COMMANDS:
        return detection.main(arguments)
    options = _parser().parse_args(arguments)
    try:
        config = read_config(options.config)
        if not is_detector(config):
            config = load_config(config)
        config.merge_from_dict(options.cfg_options)
        check_checkpoint(options.checkpoint)
        for path in draw(config, options):
            print(path)
    except (OSError, ImportError, ValueError, TypeError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def draw(config: Config, options: argparse.Namespace) -> list[Path]:
    """Write pictures of the model, and curves.png if there is a log.

    Of a pose model predictions.png, and simcc.png for a SimCC-like head; of a detector
    detections.png, and centernet.png or extremenet.png for a head with such heatmaps.

    Raises:
        FileNotFoundError: the data set is missing, or ``--work-dir`` holds no training log.
        ModuleNotFoundError: matplotlib, MMPose or MMDetection is not installed.
        ValueError: the config does not fit.
    """
    out = Path(options.out)
    run = config, options.checkpoint
    if is_detector(config):
        import_matplotlib()
        opened = DetectionRun(run, options.device)
        written = detection.draw_run(opened, out, options.num)
    else:
        written = [out / 'predictions.png']
        draw_predictions(*run, written[0], num=options.num, device=options.device)
        if has_simcc_codec(config):
            written.append(out / 'simcc.png')
            draw_simcc(*run, written[-1], device=options.device)
    work_dir = Path(options.work_dir or Path(options.checkpoint).parent)
    try:
        draw_curves(work_dir, out / 'curves.png')
        written.append(out / 'curves.png')
    except FileNotFoundError as error:
        if options.work_dir:
            raise
        print(f'No curves.png. {error}', file=sys.stderr)
    return written


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python -m mmloss_plugins.visualization',
        description='Draw predictions over labels, SimCC distributions, detections, heatmaps of '
        'CenterNet and ExtremeNet, and loss and metric curves',
        epilog='With the word dsnt in place of CONFIG: the heatmaps that DSNT heads have learned; '
        'with detections, centernet or extremenet: one picture of a detector, or several runs in '
        'one; with embeddings: the embeddings of two dimensions of runs, side by side; '
        'see python -m mmloss_plugins.visualization WORD --help',
    )
    parser.add_argument(
        'config', help='config of a top-down MMPose model or of an MMDetection model'
    )
    parser.add_argument('checkpoint', help='its checkpoint')
    parser.add_argument('--out', required=True, help='folder for the pictures')
    parser.add_argument(
        '--num', type=int, default=8, help='val images in predictions.png or detections.png'
    )
    parser.add_argument(
        '--work-dir', help="folder with the run's log; the checkpoint's folder if not given"
    )
    parser.add_argument('--device', default='cpu', help='where the model runs, cuda for example')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        default={},
        help='settings that replace those of the config, as key=value',
    )
    return parser


if __name__ == '__main__':
    sys.exit(main())
