"""A sheet of val images with the predictions drawn over the labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmloss_plugins.visualization import _figure
from mmloss_plugins.visualization._run import PoseRun, Sample

COLUMNS, TILE = 4, 2.1
WIDE = 120
LABEL, ERROR = 'white', '#ff1f5a'


def draw_predictions(
    config: Any, checkpoint: str | Path, out_file: str | Path, num: int = 8, device: str = 'cpu'
) -> list[Sample]:
    """Draw predictions over labels for ``num`` instances, evenly spaced over the val set.

    Labels are white, predictions have the colours of the data set's skeleton, and a red line goes
    from each label to its prediction. Keypoints without a label are left out. Each title gives the
    PCK@.05 of its instance: the share of labelled keypoints that are nearer than 0.05 of the longer
    side of the box.

    Args:
        config: file name or loaded config of any top-down MMPose model.
        checkpoint: file name or URL of its weights.
        out_file: PNG to write.
        num: instances to show.
        device: where the model runs.

    Returns:
        What is drawn, in order.

    Raises:
        FileNotFoundError: the config, the checkpoint or the data set is missing.
        ModuleNotFoundError: matplotlib or MMPose is not installed.
        ValueError: not a top-down MMPose config, ``num`` < 1, or ``out_file`` is no PNG.
    """
    _figure.import_matplotlib()
    run = PoseRun(config, checkpoint, device)
    samples = run.predict(run.spread(num))
    with _figure.style():
        columns = min(COLUMNS, len(samples))
        rows = math.ceil(len(samples) / columns)
        figure = _figure.new_figure(TILE * COLUMNS, (TILE + 0.16) * rows + 0.5)
        axes = figure.subplots(rows, columns, squeeze=False)
        for ax in axes.flat:
            ax.set_axis_off()
        for ax, sample in zip(axes.flat, samples):
            _draw_sample(ax, sample, run.meta)
        figure.suptitle(_headline(run, samples), x=0.01, ha='left', fontsize=8.5)
        figure.legend(handles=_legend(run.meta), loc='outside lower left', ncols=5)
        _figure.save(figure, out_file)
    return samples


def title(sample: Sample) -> str:
    """Return the line above one instance: its PCK@.05 and the count behind it."""
    near, labelled = (sample.errors() < 0.05).sum(), sample.labelled.sum()
    return f'PCK@.05 {100 * sample.pck(0.05):.0f} %  ({near} of {labelled})'


def view(sample: Sample, margin: float = 0.1) -> tuple[float, float, float, float]:
    """Return left, right, top, bottom of a square around the box, in px.

    It stays inside the image if it fits, and is no larger than the image if the box allows it.
    """
    box = (sample.bbox[2:] - sample.bbox[:2]).max()
    size = np.array(sample.image.shape[1::-1], dtype=np.float64)
    side = max(min((1 + 2 * margin) * box, size.min()), box)
    first = (sample.bbox[2:] + sample.bbox[:2] - side) / 2
    first = np.where(side <= size, np.clip(first, 0, size - side), (size - side) / 2) - 0.5
    return first[0], first[0] + side, first[1], first[1] + side


def _draw_sample(ax: Any, sample: Sample, meta: dict) -> None:
    left, right, top, bottom = view(sample)
    ax.imshow(sample.image, interpolation='bicubic')
    ax.set(xlim=(left, right), ylim=(bottom, top))
    ax.set_title(title(sample), fontsize=8.5, pad=3)
    links = meta['skeleton_links']
    shown = sample.labelled
    colours = np.asarray(meta['skeleton_link_colors'], dtype=np.float64).reshape(-1, 3) / 255
    for (start, end), colour in zip(links, colours):
        if shown[start] and shown[end]:
            ends = [start, end]
            _line(ax, sample.labels[ends], LABEL, 0.8, 0.55)
            _line(ax, sample.keypoints[ends], colour, 1.6, 0.95)
    for start, end in zip(sample.labels[shown], sample.keypoints[shown]):
        _line(ax, np.stack([start, end]), ERROR, 1.3, 0.3)
    colours = np.asarray(meta['keypoint_colors'], dtype=np.float64) / 255
    for flag, marker, size in ((2, 'o', 24), (1, 's', 20)):
        points = sample.labels[sample.visibility == flag]
        for colour, width in (('black', 1.7), (LABEL, 0.9)):
            rim = dict(edgecolors=colour, linewidths=width, zorder=4)
            ax.scatter(*points.T, size, 'none', marker=marker, **rim)
    ax.scatter(
        *sample.keypoints[shown].T, 9, colours[shown], edgecolors='black', linewidths=0.4, zorder=5
    )


def _line(ax: Any, points: np.ndarray, colour: Any, width: float, edge: float) -> None:
    from matplotlib.patheffects import Normal, Stroke

    effects = [Stroke(linewidth=width + edge, foreground='black', alpha=0.7), Normal()]
    ax.plot(*points.T, color=colour, linewidth=width, path_effects=effects, solid_capstyle='round')


def _headline(run: PoseRun, samples: Sequence[Sample]) -> str:
    near = sum((sample.errors() < 0.05).sum() for sample in samples)
    labelled = sum(sample.labelled.sum() for sample in samples)
    name = f'{Path(run.config.filename or "model").stem}, {Path(run.checkpoint).name}'
    choice = f'{len(samples)} of {len(run.dataset)} val instances, evenly spaced'
    result = f'PCK@.05 {100 * near / labelled:.0f} % ({near} of {labelled} keypoints)'
    # Long names of configs are cut: the numbers matter more.
    room = WIDE - len(choice) - len(result)
    name = name if len(name) <= room else f'{name[: room - 1]}…'
    return f'{name}: {choice}; {result}'


def _legend(meta: dict) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patheffects import Normal, Stroke

    rim = [Stroke(linewidth=2.4, foreground='black'), Normal()]
    ring = dict(linestyle='none', markerfacecolor='none', markeredgecolor=LABEL, path_effects=rim)
    return [
        Line2D([], [], marker='o', markersize=5, label='label, visible', **ring),
        Line2D([], [], marker='s', markersize=4.5, label='label, occluded', **ring),
        *(
            Line2D([], [], color=colour, linewidth=2, marker='.', label=text)
            for text, colour in side_colours(meta).items()
        ),
        Line2D([], [], color=ERROR, linewidth=1.6, label='error'),
    ]


def side_colours(meta: dict) -> dict[str, Any]:
    """Return the legend of the predictions: a colour per side if the data set has one, else one."""
    names = [meta['keypoint_id2name'][index] for index in range(len(meta['keypoint_colors']))]
    colours = [tuple(np.asarray(colour) / 255) for colour in meta['keypoint_colors']]
    sides = {
        side: {colour for name, colour in zip(names, colours) if name.startswith(side)}
        for side in ('left', 'right')
    }
    # COCO paints both sides of the face in the colour of the nose.
    own = {'left': sides['left'] - sides['right'], 'right': sides['right'] - sides['left']}
    if all(len(found) == 1 for found in own.values()):
        return {f'prediction, {side}': found.pop() for side, found in own.items()}
    return {'prediction': colours[0]}
