"""The heatmaps that DSNT heads have learned, of several runs side by side, and their spread."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import DictAction

from mmloss_plugins.errors import message
from mmloss_plugins.visualization import _figure
from mmloss_plugins.visualization._dsnt_panels import LearnedMaps, Spread, draw_rows
from mmloss_plugins.visualization._run import WHAT, PoseRun, find_run, load_config
from mmloss_plugins.visualization.heatmap_panels import (
    Keypoints,
    choose_keypoints,
    heatmaps_of,
    make_panels,
    measure_in_px,
)

NUM_KEYPOINTS = 4


def draw_dsnt(
    work_dirs: Sequence[str | Path],
    out_file: str | Path,
    labels: Sequence[str] | None = None,
    keypoints: Keypoints | None = None,
    index: int | None = None,
    device: str = 'cpu',
    cfg_options: Mapping[str, Any] | None = None,
) -> list[LearnedMaps]:
    """Draw a row of heatmaps for each label, all of one val image, and measure every run.

    Each panel shows the cells of a keypoint's map over the network's input, with the mean, the
    ellipses of one and two standard deviations, and the label. Runs of one label, such as those
    with other seeds, share a row: the first one is drawn, the spread is that of all.

    Args:
        work_dirs: folders of runs with a config and a checkpoint, see :func:`open_run`.
        out_file: PNG to write.
        labels: one for each work folder; the names of the configs if not given.
        keypoints: names or indices of the columns; four evenly spaced ones if not given.
        index: of the val instance; the first one with the most labelled keypoints if not given.
        device: where the models run.
        cfg_options: settings that replace those of every config.

    Returns:
        All runs in order.

    Raises:
        FileNotFoundError: a work folder without a config or a checkpoint; no data set.
        ModuleNotFoundError: matplotlib or MMPose is not installed.
        ValueError: no run at all, labels of another number, an unknown keypoint or instance, a
            head without normalised heatmaps, or ``out_file`` is no PNG.
    """
    _figure.import_matplotlib()
    if not work_dirs or (labels is not None and len(labels) != len(work_dirs)):
        rule = 'be one for each of at least one work folder'
        got = f'{len(labels or ())} for {len(work_dirs)}'
        raise ValueError(message('draw_dsnt', 'labels', rule, got, 'Name as many, or none'))
    found = []
    for place, work_dir in enumerate(work_dirs):
        run = open_run(work_dir, device, cfg_options)
        label = labels[place] if labels else Path(run.config.filename).stem
        found.append(_learned(run, label, Path(work_dir).name, keypoints, index))
    with _figure.style():
        _figure.save(draw_rows(found), out_file)
    return found


def open_run(
    work_dir: str | Path, device: str = 'cpu', cfg_options: Mapping[str, Any] | None = None
) -> PoseRun:
    """Return the run of a work folder: its config and its last checkpoint.

    Raises:
        FileNotFoundError: there is no config, more than one, or no checkpoint.
        ValueError: not a top-down MMPose config, or a checkpoint of another model.
    """
    path, checkpoint = find_run(work_dir)
    config = load_config(path)
    config.merge_from_dict(dict(cfg_options or {}))
    return PoseRun(config, checkpoint, device)


def measure_spread(run: PoseRun) -> Spread:
    """Return how wide and how torn the maps of the labelled keypoints of the val set are.

    Raises:
        ValueError: the head gives no normalised heatmaps or those of other keypoints, or none is
            labelled.
    """
    spreads, peaks, size = [np.zeros(0)], [np.zeros(0)], (0, 0)
    for result, _ in predict_heatmaps(run, range(len(run.dataset))):
        heatmaps = heatmaps_of(result)
        visible = np.asarray(result.gt_instances.keypoints_visible[0]) > 0
        if visible.shape[:1] != heatmaps.shape[:1]:
            rule = f'predict the {len(visible)} keypoints of the val set'
            step = 'Name a val set of that many keypoints'
            raise ValueError(message(WHAT, 'the head', rule, len(heatmaps), step))
        if visible.any():
            labelled = visible[:, 0] if visible.ndim == 2 else visible
            heatmaps = heatmaps[torch.from_numpy(labelled)]
            size = tuple(heatmaps.shape[:0:-1])
            spreads.append(measure_in_px(heatmaps, size)[2])
            peaks.append(count_peaks(heatmaps).numpy())
    spread = np.concatenate(spreads)
    if spread.size == 0:
        rule = 'hold a labelled keypoint'
        step = 'Name another annotation file'
        raise ValueError(message(WHAT, 'val_dataloader.dataset', rule, 'none', step))
    return Spread(
        maps=spread.size,
        heatmap_size=size,
        spread_mean=float(spread.mean()),
        spread_median=float(np.median(spread)),
        peaks_mean=float(np.concatenate(peaks).mean()),
    )


def count_peaks(heatmaps: torch.Tensor) -> torch.Tensor:
    """Return how many cells of maps (K, h, w) reach their 8 neighbours and half of the peak."""
    largest = torch.nn.functional.max_pool2d(heatmaps[None], 3, stride=1, padding=1)[0]
    high = heatmaps > heatmaps.amax((1, 2), keepdim=True) / 2
    return ((heatmaps == largest) & high).sum((1, 2))


def predict_heatmaps(run: PoseRun, indices: Iterable[int]) -> Iterator[tuple[Any, torch.Tensor]]:
    """Yield each instance's ``PoseDataSample`` with ``pred_fields`` and input, no flip test."""
    run.model.test_cfg = dict(run.model.test_cfg, output_heatmaps=True, flip_test=False)
    for batch in run.batches(indices):
        yield from zip(run.model.test_step(batch), batch['inputs'])


def _learned(
    run: PoseRun, label: str, name: str, keypoints: Keypoints | None, index: int | None
) -> LearnedMaps:
    if index is None:
        index = _most_labelled(run)
    if not 0 <= index < len(run.dataset):
        rule = f'be from 0 to {len(run.dataset) - 1}'
        step = 'Take an instance of the val set'
        raise ValueError(message('draw_dsnt', 'index', rule, index, step))
    ((result, image),) = predict_heatmaps(run, [index])
    names = run.meta['keypoint_id2name']
    chosen = choose_keypoints(keypoints or NUM_KEYPOINTS, len(heatmaps_of(result)), names)
    return LearnedMaps(
        label=label,
        work_dir=name,
        checkpoint=Path(run.checkpoint).name,
        seed=(run.config.get('randomness') or {}).get('seed'),
        panels=make_panels(result, image, chosen, names),
        spread=measure_spread(run),
    )


def _most_labelled(run: PoseRun) -> int:
    labelled = [
        np.count_nonzero(run.dataset.get_data_info(index)['keypoints_visible'])
        for index in range(len(run.dataset))
    ]
    return int(np.argmax(labelled))


def report(found: Sequence[LearnedMaps], command: str) -> dict[str, Any]:
    """Return what the runs have in figures, ready for a JSON file."""
    return dict(
        command=command,
        runs=[
            dict(
                run=run.label,
                work_dir=run.work_dir,
                checkpoint=run.checkpoint,
                seed=run.seed,
                **asdict(run.spread),
            )
            for run in found
        ],
    )


def main(arguments: Sequence[str]) -> int:
    """Draw what the command line asks for and return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        found = draw_dsnt(
            options.work_dirs,
            options.out,
            options.labels,
            [int(word) if word.isdigit() else word for word in options.keypoints or ()] or None,
            options.index,
            options.device,
            options.cfg_options,
        )
    except (OSError, ImportError, ValueError, TypeError) as error:
        print(error, file=sys.stderr)
        return 1
    figures = Path(options.out).with_suffix('.json')
    figures.write_text(json.dumps(report(found, _command(arguments)), indent=1) + '\n')
    print(options.out, figures, sep='\n')
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python -m mmloss_plugins.visualization dsnt',
        description='Draw the heatmaps that runs with a DSNT head have learned, side by side, and '
        'write their spread over the val set to a JSON file beside the picture',
    )
    parser.add_argument('work_dirs', nargs='+', help='work folders with a config and a checkpoint')
    parser.add_argument('--out', required=True, help='PNG to write; the JSON has its name')
    parser.add_argument(
        '--labels', nargs='+', help='of the rows; runs of one label share a row (default: config)'
    )
    parser.add_argument('--keypoints', nargs='+', help='names or indices of the columns')
    parser.add_argument('--index', type=int, help='of the val instance that is drawn')
    parser.add_argument('--device', default='cpu', help='where the models run, cuda for example')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        default={},
        help='settings that replace those of every config, as key=value',
    )
    return parser


def _command(arguments: Sequence[str]) -> str:
    """Return the command with names for paths: where the runs lay is nobody's business."""
    words = (Path(word).name if '=' not in word else word for word in arguments)
    return shlex.join(('python', '-m', 'mmloss_plugins.visualization', 'dsnt', *words))
