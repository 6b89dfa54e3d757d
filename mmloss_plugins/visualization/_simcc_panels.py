"""Draws SimCC's distributions: the image, x below it, y at its right, a table of the joints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmloss_plugins.visualization import _figure
from mmloss_plugins.visualization._run import Sample

COLOURS = ('#009e73', '#e07b00', '#d6277f')
DASHES = (0, (3, 2))
# Inches: a panel, its image, the margins with the distributions, the rows of its table.
PANEL, IMAGE, MARGIN, GAP, ROW = 2.8, 1.85, 0.55, 0.06, 0.165
LEFT, TOP, BOTTOM, AXIS = 0.22, 0.3, 0.3, 0.26


@dataclass(frozen=True)
class Distributions:
    """What a SimCC head says about one instance, in px and bins of the network's input.

    Attributes:
        sample: the instance, with ``labels`` and ``keypoints`` in px of the input and the input
            as its image.
        predicted: probabilities over the bins of x, shape (K, Wx), and of y, (K, Wy).
        target: the labels that the loss compares them with, same shapes; zeros without a label.
        ratio: bins per px.
    """

    sample: Sample
    predicted: tuple[np.ndarray, np.ndarray]
    target: tuple[np.ndarray, np.ndarray]
    ratio: float


def draw_panels(items: Sequence[Distributions], joints: Sequence[Sequence[int]], meta: dict) -> Any:
    """Return a figure with one panel per instance; ``joints`` are the indices to show in each."""
    rows = max(len(indices) for indices in joints) + 1
    height = TOP + IMAGE + GAP + MARGIN + AXIS + ROW * rows + BOTTOM
    figure = _figure.new_figure(PANEL * max(3, len(items)), height, layout=None)
    for place, (item, indices) in enumerate(zip(items, joints)):
        _Panel(figure, place * PANEL).draw(item, indices, meta)
    figure.legend(
        handles=_legend(), loc='lower left', ncols=5, bbox_to_anchor=(0, 0), borderaxespad=0.3
    )
    note = 'images picked for their largest errors'
    place = dict(ha='right', va='bottom', fontsize=7.5, color=_figure.MUTED)
    figure.text(0.99, 0.016, note, **place)
    return figure


def describe(sample: Sample, joint: int, meta: dict) -> tuple[str, str, str, str]:
    """Return the row of the table: name, decoded position, score, distance to the label."""
    name = meta['keypoint_id2name'][joint].replace('_', ' ')
    x, y = sample.keypoints[joint]
    error = np.linalg.norm(sample.keypoints[joint] - sample.labels[joint])
    off = f'{error:.1f}' if sample.labelled[joint] else 'no label'
    return (
        name,
        f'{x:.1f}, {y:.1f}',
        f'{sample.scores[joint]:.2f}',
        off,
    )


class _Panel:
    """The axes of one instance, ``left`` inches from the left of the figure."""

    def __init__(self, figure: Any, left: float) -> None:
        self.figure, self.left = figure, left
        self.height = figure.get_figheight()

    def draw(self, item: Distributions, joints: Sequence[int], meta: dict) -> None:
        height, width = item.sample.image.shape[:2]
        scale = IMAGE / max(height, width)
        size = (width * scale, height * scale)
        image = self._axes(LEFT, TOP, *size)
        below = self._axes(LEFT, TOP + size[1] + GAP, size[0], MARGIN, sharex=image)
        right = self._axes(LEFT + size[0] + GAP, TOP, MARGIN, size[1], sharey=image)
        image.imshow(item.sample.image, interpolation='nearest', aspect='auto')
        image.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
        image.grid(False)
        image.tick_params(labelbottom=False, bottom=False)
        image.set_title(item.sample.name, fontsize=8, pad=3)
        for joint, colour in zip(joints, COLOURS):
            _draw_position(image, item.sample, joint, colour)
            _draw_distributions((below, right), item, joint, colour)
        _label_margins(below, right)
        self._table(
            [describe(item.sample, joint, meta) for joint in joints],
            [item.sample.visibility[joint] == 1 for joint in joints],
        )

    def _axes(self, left: float, top: float, width: float, height: float, **options: Any) -> Any:
        whole = self.figure.get_figwidth(), self.height
        first = (self.left + left) / whole[0], 1 - (top + height) / whole[1]
        return self.figure.add_axes((*first, width / whole[0], height / whole[1]), **options)

    def _table(self, lines: Sequence[tuple[str, ...]], occluded: Sequence[bool]) -> None:
        columns = ((LEFT + 0.02, 'left'), (1.8, 'right'), (2.13, 'right'), (2.66, 'right'))
        head = ('', 'x, y, px', 'score', 'error, px')
        for row, line in enumerate((head, *lines)):
            y = 1 - (TOP + IMAGE + GAP + MARGIN + AXIS + ROW * row) / self.height
            if row > 0:
                # The shapes of the labels in the image: a circle, a square if occluded.
                shape = '\u25a0' if occluded[row - 1] else '\u25cf'
                self._text(LEFT - 0.12, y, shape, color=COLOURS[row - 1])
            for text, (x, align) in zip(line, columns):
                self._text(x, y, text, color=_figure.INK if row else _figure.MUTED, ha=align)

    def _text(self, left: float, y: float, text: str, **options: Any) -> None:
        x = (self.left + left) / self.figure.get_figwidth()
        self.figure.text(x, y, text, fontsize=7.5, va='top', **options)


def _draw_position(image: Any, sample: Sample, joint: int, colour: str) -> None:
    x, y = sample.keypoints[joint]
    image.axvline(x, color=colour, linewidth=0.9, linestyle=DASHES)
    image.axhline(y, color=colour, linewidth=0.9, linestyle=DASHES)
    if sample.labelled[joint]:
        marker = 's' if sample.visibility[joint] == 1 else 'o'
        for edge, width in (('black', 3.4), ('white', 2.4), (colour, 1.2)):
            rim = dict(edgecolors=edge, linewidths=width)
            image.scatter(*sample.labels[joint], 44, 'none', marker=marker, **rim)
    image.scatter(x, y, 22, colour, edgecolors='white', linewidths=0.9, zorder=3)


def _draw_distributions(margins: Any, item: Distributions, joint: int, colour: str) -> None:
    fill = dict(color=colour, alpha=0.3, linewidth=0)
    line = dict(color=colour, linewidth=1.3)
    dashed = dict(color=colour, linewidth=0.9, linestyle=DASHES)
    for axis, ax in enumerate(margins):
        predicted, target = item.predicted[axis][joint], item.target[axis][joint]
        px = np.arange(len(predicted)) / item.ratio
        position = item.sample.keypoints[joint, axis]
        if axis == 0:
            ax.fill_between(px, target, **fill)
            ax.plot(px, predicted, **line)
            ax.axvline(position, **dashed)
        else:
            ax.fill_betweenx(px, target, **fill)
            ax.plot(predicted, px, **line)
            ax.axhline(position, **dashed)


def _label_margins(below: Any, right: Any) -> None:
    top = max(below.get_ylim()[1], right.get_xlim()[1])
    below.set(ylim=(0, top), xlabel='')
    right.set(xlim=(0, top))
    right.tick_params(labelleft=False, left=False)
    for ax, axis in ((below, below.yaxis), (right, right.xaxis)):
        ax.grid(False)
        # One tick in round figures: the probability per bin, the same scale on both axes.
        axis.set_ticks([float(f'{0.8 * top:.1g}')])
    right.text(0.02, 1.0, 'p(y)', transform=right.transAxes, fontsize=7.5, va='bottom')
    below.text(1.03, 0.02, 'p(x)', transform=below.transAxes, fontsize=7.5)


def _legend() -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    ink = _figure.INK
    ring = dict(linestyle='none', markerfacecolor='none', markeredgecolor=ink, markersize=5)
    return [
        Patch(color=ink, alpha=0.3, linewidth=0, label='target'),
        Line2D([], [], color=ink, linewidth=1.3, label='predicted probability per bin'),
        Line2D([], [], color=ink, linestyle=DASHES, marker='o', markersize=4, label='decoded'),
        Line2D([], [], marker='o', label='label, visible', **ring),
        Line2D([], [], marker='s', label='label, occluded', **ring),
    ]
