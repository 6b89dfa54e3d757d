"""Draws embeddings of two dimensions: points, class means, class weights, directions."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import normalize

from mmloss_plugins.metrics.embedding_spread import class_means
from mmloss_plugins.visualization import _figure

# Inches: the side of a panel by the number of columns, the title above it, the text below it.
SIDES = {1: 4.6, 2: 3.8, 3: 2.9, 4: 2.17}
TITLE, TEXT, GAP = 0.3, 0.3, 0.08
# A line of the legend and of the note below it, and a letter of the note.
LEGEND, LINE, LETTER = 0.2, 0.14, 0.056
# Okabe and Ito's colours without the yellow, then four between them.
COLOURS = (
    *_figure.PALETTE, '#882255', '#7f8b2d', '#5b4b9e', '#6e7781',
)  # fmt: skip
# In lengths of the longest embedding: the circle, the ends of its ticks, the middle of names above
# and below it, the edge of the panel but for the width of names.
RING, TICKS, NAMES, EDGE = 1.06, 1.13, 1.23, 1.27
# Degrees from one name to the next; of more classes than fit into a circle none is named.
APART = 12
MAX_NAMED, MAX_LETTERS = 360 // APART, 10
NOTE = (
    'Angle: median to the mean direction of the class. '
    'Distance: mean to the class mean, over the mean from there to the nearest other one.'
)
SCALE = 'Each panel has its own scale.'
NOTE_ON_CIRCLE = ' Dark circle: the head compares directions alone, its distances are those on it.'


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of two dimensions of a set, with the classes they belong to.

    Attributes:
        features: as they are trained, before a head divides them by their length, (N, 2).
        labels: (N,), within 0...C-1.
        classes: the C names.
        weights: class weights, or sub-centres, (C, K, 2).
        centers: of a ``CenterLoss`` on these embeddings, (C, 2); None if there is none.
        on_circle: whether the head compares directions alone.
        accuracy: share of the samples that are predicted right, 0 to 1.
        angle: ``spread/angle`` of :class:`EmbeddingSpread`, degrees.
        distance: ``spread/distance`` of the same.
    """

    features: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    weights: np.ndarray
    centers: np.ndarray | None
    on_circle: bool
    accuracy: float
    angle: float
    distance: float


def draw_sheet(found: Sequence[Embeddings], labels: Sequence[str]) -> Any:
    """Return the figure: a panel for each of ``found``, its label above, its measures below."""
    columns = len(found) if len(found) <= 3 else min(4, math.ceil(len(found) / 2))
    rows, side = math.ceil(len(found) / columns), SIDES[columns]
    step = TITLE + side + TEXT
    width = columns * (side + GAP) + GAP
    note = _note(found, width)
    height = rows * step + (2 if columns == 1 else 1) * LEGEND + len(note) * LINE + 2 * GAP
    figure = _figure.new_figure(width, height, layout=None)
    for place, (embeddings, label) in enumerate(zip(found, labels)):
        row, column = divmod(place, columns)
        left, below = GAP + column * (side + GAP), height - row * step - TITLE - side
        ax = figure.add_axes((left / width, below / height, side / width, side / height))
        draw_panel(ax, embeddings, side)
        middle = dict(x=(left + side / 2) / width, ha='center')
        # A letter of 10.5 points is about 0.09 inches wide.
        size = min(10.5, 10.5 * side / (0.09 * max(len(label), 1)))
        title = dict(va='center', fontsize=size, fontweight='bold', s=label)
        figure.text(y=(below + side + TITLE / 2) / height, **middle, **title)
        text = dict(va='top', fontsize=8 if side > 2.5 else 6.5, s=describe(embeddings))
        figure.text(y=(below - 0.02) / height, **middle, **text)
    _explain(figure, found, columns, note)
    return figure


def render(embeddings: Embeddings, label: str) -> np.ndarray:
    """Return the sheet of one panel as a picture (height, width, 3), RGB, uint8."""
    _figure.import_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with _figure.style():
        canvas = FigureCanvasAgg(draw_sheet([embeddings], [label]))
        canvas.draw()
        return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])


def describe(embeddings: Embeddings) -> str:
    """Return the line of measures."""
    return '   '.join(
        (
            f'accuracy {100 * embeddings.accuracy:.1f} %',
            f'angle {embeddings.angle:.1f}°',
            f'distance {embeddings.distance:.2f}',
        )
    )


def draw_panel(ax: Any, embeddings: Embeddings, side: float = SIDES[3]) -> None:
    """Draw one panel on ``ax``, a square of ``side`` inches."""
    ax.set_axis_off()
    if not np.isfinite(embeddings.features).all():
        ax.text(0.5, 0.5, 'not finite', ha='center', transform=ax.transAxes)
        return
    # All embeddings at the origin: the panel still needs an extent.
    far = float(np.linalg.norm(embeddings.features, axis=1).max()) or 1.0
    letters, size = _name_size(embeddings.classes)
    names = 2 * letters * size / 72 * 0.7 / side
    edge = EDGE / (1 - names)
    ax.set(xlim=(-edge * far, edge * far), ylim=(-edge * far, edge * far), aspect='equal')
    _draw_points(ax, embeddings, far)
    if len(embeddings.classes) <= MAX_NAMED:
        _draw_names(ax, embeddings, far, (names * edge, size))


def _draw_points(ax: Any, embeddings: Embeddings, far: float) -> None:
    from matplotlib.collections import LineCollection
    from matplotlib.patches import Circle

    points, labels = embeddings.features, embeddings.labels
    colours = np.array(class_colours(len(embeddings.classes)))
    line = dict(edgecolor=_figure.INK, linewidth=1.1)
    if not embeddings.on_circle:
        line = dict(edgecolor='#c4ccd4', linewidth=0.8)
    ax.add_patch(Circle((0, 0), RING * far, fill=False, **line))
    weights = unit(embeddings.weights) * RING * far
    for rays, colour in zip(weights, colours):
        ends = np.stack([np.zeros_like(rays), rays], 1)
        ax.add_collection(LineCollection(ends, colors=colour, linewidths=0.8, alpha=0.55))
    units = unit(points) * far
    ticks = np.stack([units * RING, units * TICKS], 1)
    ax.add_collection(LineCollection(ticks, colors=colours[labels], linewidths=0.6, alpha=0.65))
    ax.scatter(*points.T, s=8, c=colours[labels], linewidths=0, alpha=0.6)
    present, means = means_of(points, labels)
    ax.scatter(*means.T, s=44, c=colours[present], edgecolors='white', linewidths=1.2, zorder=3)
    if embeddings.centers is not None:
        for colour, width in (('white', 2.6), (_figure.INK, 1.1)):
            style = dict(color=colour, markersize=6, markeredgewidth=width)
            ax.plot(*embeddings.centers[present].T, '+', zorder=4, **style)


def _draw_names(ax: Any, embeddings: Embeddings, far: float, name: tuple[float, float]) -> None:
    """Write the names of the classes outside of the circle, where their embeddings point to."""
    width, size = name
    present, means = means_of(unit(embeddings.features), embeddings.labels)
    colours = class_colours(len(embeddings.classes))
    angles = spread_out(np.degrees(np.arctan2(means[:, 1], means[:, 0])), APART)
    for label, angle in zip(present, np.radians(angles)):
        direction = np.array([math.cos(angle), math.sin(angle)])
        # The middle of the text: a long name reaches as far inwards as a short one.
        x, y = far * direction * NAMES + far * direction * (width / 2, 0)
        text = _shorten(embeddings.classes[label])
        style = dict(color=colours[label], fontsize=size, fontweight='bold')
        ax.text(x, y, text, ha='center', va='center', **style)


def _name_size(classes: Sequence[str]) -> tuple[int, float]:
    """Return the letters of the longest name and the size of the names in points."""
    if len(classes) > MAX_NAMED:
        return 0, 0.0
    letters = max(len(_shorten(name)) for name in classes)
    return letters, 10.0 if letters <= 2 else 7.0


def _shorten(name: str) -> str:
    return name if len(name) <= MAX_LETTERS else f'{name[: MAX_LETTERS - 1]}…'


def means_of(points: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the classes that are there, (P,), and the means of their points, (P, 2)."""
    present, index = np.unique(labels, return_inverse=True)
    means = class_means(torch.from_numpy(points), torch.from_numpy(index), len(present))
    return present, means.numpy()


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return vectors (..., 2) with length 1; zero stays zero."""
    return normalize(torch.from_numpy(vectors), dim=-1).numpy()


def spread_out(angles: np.ndarray, apart: float) -> np.ndarray:
    """Return angles on a circle in degrees, moved as little as it takes to be ``apart``.

    Args:
        angles: (N,), in any order; at most 360 / ``apart`` of them.
        apart: least distance of neighbours.
    """
    order = np.argsort(angles, kind='stable')
    placed = angles[order].astype(np.float64)
    if len(placed) < 2:
        return angles
    for _ in range(1000):
        gaps = np.diff(placed, append=placed[0] + 360)
        missing = (apart - gaps).clip(min=0)
        if missing.max() < 0.01:
            break
        # Each of two that are too near gives way by half.
        placed += (np.roll(missing, 1) - missing) / 2
    found = np.empty_like(placed)
    found[order] = placed
    return found


def class_colours(number: int) -> list[str]:
    """Return as many colours as '#rrggbb': ten that differ well, or a wheel of more."""
    if number <= len(COLOURS):
        return list(COLOURS[:number])
    from matplotlib.colors import to_hex

    wheel = _figure.import_matplotlib().colormaps['turbo']
    return [to_hex(wheel(0.03 + 0.94 * place / (number - 1))) for place in range(number)]


def _note(found: Sequence[Embeddings], width: float) -> list[str]:
    """Return the lines of the note of a figure of ``width`` inches."""
    on_circle = any(embeddings.on_circle for embeddings in found)
    parts = (NOTE, SCALE + NOTE_ON_CIRCLE if on_circle else SCALE)
    return [line for part in parts for line in textwrap.wrap(part, int(width / LETTER))]


def _explain(figure: Any, found: Sequence[Embeddings], columns: int, note: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    grey = _figure.MUTED
    dot = dict(marker='o', linestyle='none', color=grey)
    handles = [
        Line2D([], [], **dot, markersize=3.2, label='image'),
        Line2D([], [], **dot, markersize=6.2, label='mean of a class'),
        Line2D([], [], color=grey, linewidth=0.9, label='direction of class weights'),
        Line2D([], [], marker='|', linestyle='none', color=grey, label='direction of an image'),
    ]
    if any(embeddings.centers is not None for embeddings in found):
        cross = dict(marker='+', linestyle='none', color=_figure.INK, markersize=6)
        handles.append(Line2D([], [], **cross, label='centre of CenterLoss'))
    height = figure.get_figheight()
    below = (GAP + len(note) * LINE) / height
    place = dict(loc='lower center', bbox_to_anchor=(0.5, below), borderaxespad=0)
    spaces = dict(handletextpad=0.4, columnspacing=1.4, labelspacing=0.3, borderpad=0.2)
    figure.legend(handles=handles, ncols=3 if columns == 1 else len(handles), **place, **spaces)
    style = dict(ha='center', va='bottom', color=grey, fontsize=7, linespacing=1.25)
    figure.text(0.5, GAP / height, '\n'.join(note), **style)
