"""Pictures of detectors: what is found in val images, of one run or several, and their heatmaps."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import DictAction

from mmloss_plugins.errors import message
from mmloss_plugins.visualization import _figure
from mmloss_plugins.visualization._detection_panels import KEYS, draw_sheet
from mmloss_plugins.visualization._detection_run import (
    SIDES,
    DetectionRun,
    Detections,
    PeakMaps,
    Run,
)
from mmloss_plugins.visualization._peak_panels import draw_centers, draw_groups
from mmloss_plugins.visualization._run import WHAT

SCORE_THR = 0.3
COMMANDS = ('detections', 'centernet', 'extremenet')
STEP = 'Draw it with the word detections (draw_detections), which draws any detector'


def draw_detections(
    runs: Run | Sequence[Run],
    out_file: str | Path,
    labels: Sequence[str] | None = None,
    num: int | None = None,
    indices: Sequence[int] | None = None,
    score_thr: float = SCORE_THR,
    device: str = 'cpu',
    cfg_options: Mapping[str, Any] | None = None,
) -> list[list[Detections]]:
    """Draw what detectors find in images of the val set, over the labelled objects.

    A detection is right if it overlaps a labelled object of its class with an IoU of at least
    0.5; each object counts once. Several runs are drawn in rows below each other, on the same
    images.

    Args:
        runs: a work folder with a config and its last checkpoint, a pair (config, checkpoint), or
            an open :class:`DetectionRun`, of any MMDetection model that finds boxes; or a list of
            these.
        out_file: PNG to write.
        labels: names of the runs; those of the configs if not given.
        num: images to show, evenly spaced over the val images with objects; 8 if not given, 4 of
            several runs.
        indices: of the val images to show, in place of ``num``.
        score_thr: detections with lower scores are left out, in [0, 1).
        device: where the models run.
        cfg_options: settings that replace those of every config.

    Returns:
        What is drawn: for each run its images, in order.

    Raises:
        FileNotFoundError: a config, a checkpoint or the data set is missing.
        ModuleNotFoundError: matplotlib or MMDetection is not installed.
        ValueError: not a config of MMDetection, a checkpoint of another model, val sets that
            differ, no such image, labels of another number, or ``out_file`` is no PNG.
    """
    _figure.import_matplotlib()
    runs = list(runs) if isinstance(runs, list) else [runs]
    if not runs or (labels is not None and len(labels) != len(runs)):
        rule = f'be one for each of the {len(runs)} runs' if runs else 'belong to a run'
        got = len(labels or ())
        raise ValueError(message('draw_detections', 'labels', rule, got, 'Name as many, or none'))
    opened = [_open(run, score_thr, device, cfg_options) for run in runs]
    num = (4 if len(runs) > 1 else 8) if num is None else num
    chosen = opened[0].spread(num) if indices is None else opened[0].check_indices(indices)
    for run in opened[1:]:
        check_same_images(opened[0], run, chosen)
    rows = [[run.predict(index, score_thr) for index in chosen] for run in opened]
    headline = _headline(opened, chosen, score_thr, spaced=indices is None)
    names = list(labels or (run.name for run in opened))
    with _figure.style():
        _figure.save(draw_sheet(names, rows, opened[0].classes, headline), out_file, KEYS)
    return rows


def draw_centernet(
    run: Run,
    out_file: str | Path,
    num: int = 4,
    indices: Sequence[int] | None = None,
    score_thr: float = SCORE_THR,
    device: str = 'cpu',
    cfg_options: Mapping[str, Any] | None = None,
) -> list[tuple[Detections, PeakMaps]]:
    """Draw the heatmap of centres of val images, the largest of all classes, and the detections.

    The head is ours or MMDetection's ``CenterNetHead``; of :class:`ExtremeNetHead` the centre
    maps are drawn. For the arguments and errors see :func:`draw_detections`.

    Returns:
        What is drawn, in order.

    Raises:
        ValueError: also if the head has no heatmap of centres.
    """
    _figure.import_matplotlib()
    opened = _open(run, score_thr, device, cfg_options)
    chosen = opened.spread(num) if indices is None else opened.check_indices(indices)
    maps = [_maps(opened, index, ('center',)) for index in chosen]
    samples = [opened.predict(index, score_thr) for index in chosen]
    headline = _headline([opened], chosen, score_thr, spaced=indices is None)
    with _figure.style():
        _figure.save(draw_centers(samples, maps, opened.classes, headline), out_file, KEYS)
    return list(zip(samples, maps))


def draw_extremenet(
    run: Run,
    out_file: str | Path,
    index: int | None = None,
    score_thr: float = SCORE_THR,
    device: str = 'cpu',
    cfg_options: Mapping[str, Any] | None = None,
) -> tuple[Detections, PeakMaps]:
    """Draw the five heatmaps of ExtremeNet for one val image, and the points grouped.

    The maps of top, left, bottom and right points and of centres are the largest of all classes;
    the signs on them are the points of the detections. The last panel has the detections: box,
    extreme points, centre, and the octagon that the points span.

    Args:
        run: see :func:`draw_detections`.
        out_file: PNG to write.
        index: of the val image; the first with a typical (median) number of objects if not given.
        score_thr: detections with lower scores are left out, in [0, 1).
        device: where the model runs.
        cfg_options: settings that replace those of the config.

    Returns:
        What is drawn.

    Raises:
        ValueError: as :func:`draw_detections`, and if the head has no extreme points.
    """
    _figure.import_matplotlib()
    opened = _open(run, score_thr, device, cfg_options)
    chosen = opened.typical() if index is None else opened.check_indices([index])[0]
    maps = _maps(opened, chosen, (*SIDES, 'center'))
    sample = opened.predict(chosen, score_thr)
    headline = f'{opened.title}: val image {chosen}, scores > {score_thr:g}'
    with _figure.style():
        _figure.save(draw_groups(sample, maps, opened.classes, headline), out_file, KEYS)
    return sample, maps


def draw_run(run: DetectionRun, out: Path, num: int) -> list[Path]:
    """Write detections.png, and centernet.png or extremenet.png if the head has such maps."""
    written = [out / 'detections.png']
    draw_detections(run, written[0], num=num)
    found = run.peak_maps(0)
    if found is None:
        return written
    if len(found.maps) > 1:
        written.append(out / 'extremenet.png')
        draw_extremenet(run, written[-1])
    else:
        written.append(out / 'centernet.png')
        draw_centernet(run, written[-1])
    return written


def check_same_images(first: DetectionRun, other: DetectionRun, indices: Sequence[int]) -> None:
    """Refuse a run whose val set is another one.

    Raises:
        ValueError: other images or classes.
    """
    what = f'the val set of {other.name}'
    step = 'Draw them apart, or set val_dataloader.dataset with --cfg-options'
    if first.classes != other.classes:
        rule = f'have the classes of {first.name}, {", ".join(first.classes[:5])}'
        got = ', '.join(other.classes[:5])
        raise ValueError(
            message('draw_detections', f'the val set of {other.name}', rule, got, step)
        )
    for index in indices:
        names = [run.image_name(index) for run in (first, other)]
        if names[0] != names[1]:
            rule = f'have the images of {first.name}, {names[0]!r} at {index}'
            raise ValueError(message('draw_detections', what, rule, repr(names[1]), step))


def _open(
    run: Run, score_thr: float, device: str, cfg_options: Mapping[str, Any] | None
) -> DetectionRun:
    if not 0 <= score_thr < 1:
        step = 'Take 0.3, or less for a short training'
        raise ValueError(message('draw_detections', 'score_thr', 'be in [0, 1)', score_thr, step))
    return run if isinstance(run, DetectionRun) else DetectionRun(run, device, cfg_options)


def _maps(run: DetectionRun, index: int, names: Sequence[str]) -> PeakMaps:
    found = run.peak_maps(index)
    if found is not None and found.maps.keys() >= set(names):
        return found
    head = type(getattr(run.model, 'bbox_head', run.model)).__name__
    rule = 'have a heatmap of centres' if len(names) == 1 else f'have heatmaps {", ".join(names)}'
    what = 'draw_centernet' if len(names) == 1 else 'draw_extremenet'
    raise ValueError(message(what, 'the head', rule, head, STEP))


def _headline(
    runs: Sequence[DetectionRun], chosen: Sequence[int], score_thr: float, spaced: bool
) -> str:
    choice = f'{len(chosen)} of {len(runs[0].dataset)} val images'
    choice += ', evenly spaced' if spaced else f' ({", ".join(map(str, chosen))})'
    text = f'{choice}; scores > {score_thr:g}'
    return f'{runs[0].title}: {text}' if len(runs) == 1 else text


def parse_runs(words: Sequence[str]) -> list[Run]:
    """Return the runs of a command line: work folders, and configs each with its checkpoint.

    Raises:
        ValueError: a config without a checkpoint behind it.
    """
    runs: list[Run] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.endswith('.py'):
            runs.append(word)
            continue
        if not rest:
            step = 'Write CONFIG CHECKPOINT, or name the work folder alone'
            raise ValueError(
                message('visualization', word, 'be followed by its checkpoint', 'nothing', step)
            )
        runs.append((word, rest.pop(0)))
    return runs


def main(arguments: Sequence[str]) -> int:
    """Draw what the command line asks for and return the exit status."""
    command = arguments[0]
    options = _parser(command).parse_args(arguments[1:])
    given = vars(options)
    words, out_file = given.pop('runs'), given.pop('out')
    try:
        runs = parse_runs(words)
        if command == 'detections':
            draw_detections(runs, out_file, **given)
        elif len(runs) > 1:
            step = 'Draw each run into a file of its own'
            raise ValueError(message(WHAT, 'runs', 'be one', len(runs), step))
        elif command == 'centernet':
            draw_centernet(runs[0], out_file, **given)
        else:
            draw_extremenet(runs[0], out_file, **given)
    except (OSError, ImportError, ValueError, TypeError) as error:
        print(error, file=sys.stderr)
        return 1
    print(out_file)
    return 0


def _parser(command: str) -> argparse.ArgumentParser:
    descriptions = dict(
        detections='Draw what detectors find in images of the val set, over the labelled objects',
        centernet='Draw heatmaps of centres and the detections that they give',
        extremenet='Draw the five heatmaps of ExtremeNet for an image, and the points grouped',
    )
    parser = argparse.ArgumentParser(
        prog=f'python -m mmloss_plugins.visualization {command}',
        description=descriptions[command],
    )
    several = '; several are drawn below each other' if command == 'detections' else ''
    parser.add_argument(
        'runs',
        nargs='+',
        metavar='RUN',
        help=f'a work folder with a config and a checkpoint, or CONFIG CHECKPOINT{several}',
    )
    parser.add_argument('--out', required=True, help='PNG to write')
    if command == 'detections':
        parser.add_argument('--labels', nargs='+', help='names of the runs (default: configs)')
    if command == 'extremenet':
        parser.add_argument('--index', type=int, help='of the val image (default: a typical one)')
    else:
        number = 4 if command == 'centernet' else None
        parser.add_argument('--num', type=int, default=number, help='images, evenly spaced')
        parser.add_argument('--indices', type=int, nargs='+', help='of the val images')
    parser.add_argument(
        '--score-thr', type=float, default=SCORE_THR, help='leaves out lower scores (default: 0.3)'
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
