"""The picture of two-dimensional embeddings: a panel for each run, side by side."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import DictAction

from mmloss_plugins.errors import check_choice, message
from mmloss_plugins.visualization import _figure
from mmloss_plugins.visualization._detection_run import Run
from mmloss_plugins.visualization._embedding_panels import Embeddings, class_colours, draw_sheet
from mmloss_plugins.visualization.detection import parse_runs

COMMAND = 'embeddings'
SPLITS = ('val', 'train', 'test')


def draw_embeddings(
    runs: Sequence[Run],
    out_file: str | Path,
    labels: Sequence[str] | None = None,
    split: str = 'val',
    device: str = 'cpu',
    cfg_options: Mapping[str, Any] | None = None,
) -> list[Embeddings]:
    """Draw the embeddings of two dimensions that runs of ``EmbeddingClassifier`` have learned.

    A panel for each run, in one colour per class: the embeddings as they are trained, before a
    head divides them by their length; the mean of each class; a ray to where its weights point;
    the centres of a ``CenterLoss`` on them. A tick for each embedding on a circle around all shows
    its direction, which is all that ``NormFaceHead`` and ``ArcFaceHead`` compare; there the circle
    is dark. Below are accuracy and the two values of :class:`mmloss_plugins.EmbeddingSpread`, the
    same as a validation logs.

    Args:
        runs: work folders with a config and its last checkpoint, or pairs of the two.
        out_file: PNG to write.
        labels: one for each run; the names of the configs if not given.
        split: 'val', 'train' or 'test', whose images are drawn; with the pipeline of the config.
        device: where the models run.
        cfg_options: settings that replace those of every config.

    Returns:
        What is drawn of each run.

    Raises:
        FileNotFoundError: a run without a config or a checkpoint; no data set.
        ModuleNotFoundError: matplotlib is not installed.
        ValueError: no run at all, labels of another number, another model, embeddings of other
            than two dimensions, images of classes that the head does not have, or ``out_file`` is
            no PNG.

    Reference:
        Wen et al., A Discriminative Feature Learning Approach for Deep Face Recognition, ECCV
        2016, figures 2 and 3; Deng et al., ArcFace, https://arxiv.org/abs/1801.07698, figure 3.
    """
    _figure.import_matplotlib()
    if not runs or (labels is not None and len(labels) != len(runs)):
        rule = 'be one for each of at least one run'
        got = f'{len(labels or ())} for {len(runs)}'
        raise ValueError(message('draw_embeddings', 'labels', rule, got, 'Name as many, or none'))
    check_choice('draw_embeddings', 'split', split, SPLITS)
    # Brings in every head and with them the hosts, which other pictures can do without.
    from mmloss_plugins.visualization._embedding_run import EmbeddingRun

    opened = [EmbeddingRun(run, split, device, cfg_options) for run in runs]
    found = [run.embed() for run in opened]
    with _figure.style():
        figure = draw_sheet(found, labels or [run.name for run in opened])
        keep = class_colours(max(len(embeddings.classes) for embeddings in found))
        # A palette of 256 has no room for a thousand classes.
        _figure.save(figure, out_file, keep[:20])
    return found


def main(arguments: Sequence[str]) -> int:
    """Draw what the command line asks for and return the exit status."""
    given = vars(_parser().parse_args(arguments))
    words, out_file = given.pop('runs'), given.pop('out')
    try:
        draw_embeddings(parse_runs(words), out_file, **given)
    except (OSError, ImportError, ValueError, TypeError) as error:
        print(error, file=sys.stderr)
        return 1
    print(out_file)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f'python -m mmloss_plugins.visualization {COMMAND}',
        description='Draw the embeddings of two dimensions that runs of EmbeddingClassifier have '
        'learned, side by side, with class means, class weights, accuracy and spread',
    )
    parser.add_argument(
        'runs',
        nargs='+',
        metavar='RUN',
        help='a work folder with a config and a checkpoint, or CONFIG CHECKPOINT',
    )
    parser.add_argument('--out', required=True, help='PNG to write')
    parser.add_argument('--labels', nargs='+', help='names of the runs (default: configs)')
    parser.add_argument(
        '--split', choices=SPLITS, default='val', help='whose images are drawn (default: val)'
    )
    parser.add_argument('--device', default='cpu', help='where the models run, cuda for example')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        default={},
        help='settings that replace those of every config, as key=value',
    )
    return parser
