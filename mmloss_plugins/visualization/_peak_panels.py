"""Draws heatmaps of centres and of extreme points over images, and the points grouped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from mmloss_plugins import functional as F
from mmloss_plugins.visualization import _figure
from mmloss_plugins.visualization._detection_panels import (
    COLUMNS,
    DASHES,
    HALO,
    LEGEND,
    RIGHT,
    TRUTH,
    WRONG,
    add_legend,
    aspect_of,
    box_legend,
    count,
    draw_box,
    draw_detections_on,
    legend_lines,
    name_row,
    new_sheet,
    short,
    show_image,
)
from mmloss_plugins.visualization._detection_run import SIDES, Detections, PeakMaps
from mmloss_plugins.visualization.heatmap_panels import dim, paint


class Sign(NamedTuple):
    """How points of one kind are marked: triangles lie in the object, their tips on the point."""

    marker: str | int
    word: str
    title: str


# Matplotlib's CARETUP, CARETLEFT, CARETDOWN and CARETRIGHT.
SIGNS = dict(
    top=Sign(6, 'top', 'top points'),
    left=Sign(4, 'left', 'left points'),
    bottom=Sign(7, 'bottom', 'bottom points'),
    right=Sign(5, 'right', 'right points'),
    center=Sign('+', 'centre', 'centres'),
)
GROUP_COLUMNS = 3
# Opacity of octagons.
SHADE = 0.3
# Inches: the scale of the colours.
SCALE = 1.0
# On a darker image than that of the groups a probability of 0.3 is seen.
DARKER = 0.6
# A typical image under its map.
GREY = 0.2


def draw_centers(
    samples: Sequence[Detections],
    maps: Sequence[PeakMaps],
    classes: Sequence[str],
    headline: str = '',
) -> Any:
    """Return a figure with the heatmap of centres of each image above its detections."""
    columns = min(COLUMNS, len(samples))
    blocks = math.ceil(len(samples) / columns)
    figure, axes = new_sheet(2 * blocks, columns, aspect_of(samples), True, headline, 1)
    for index, (sample, found) in enumerate(zip(samples, maps)):
        row, column = 2 * (index // columns), index % columns
        if column == 0:
            name_row(axes[row, 0], 'heatmap of centres')
            name_row(axes[row + 1, 0], 'detections')
        draw_heatmap(axes[row, column], sample, found, 'center')
        axes[row, column].set_title(f'peak {short(peak_of(found, "center"))}', fontsize=8, pad=3)
        draw_detections_on(axes[row + 1, column], sample, classes)
    add_legend(figure, box_legend())
    add_scale(figure)
    return figure


def draw_groups(
    sample: Detections, maps: PeakMaps, classes: Sequence[str], headline: str = ''
) -> Any:
    """Return a figure with the five heatmaps of an image and with the points grouped."""
    from matplotlib.patches import Patch

    figure, axes = new_sheet(2, GROUP_COLUMNS, aspect_of([sample]), False, headline, 1)
    *places, last = axes.ravel()
    for ax, (name, sign) in zip(places, SIGNS.items()):
        draw_heatmap(ax, sample, maps, name)
        title = f'{sign.title}, peak {short(peak_of(maps, name))}'
        ax.set_title(title, fontsize=8, pad=3)
        mark(ax, sample, name)
    draw_objects(last, sample, classes)
    octagon = Patch(facecolor=shade(RIGHT), edgecolor=RIGHT, label='octagon')
    add_legend(figure, [*box_legend(), octagon])
    add_scale(figure)
    figure.legend(
        handles=sign_legend(),
        ncols=len(SIGNS),
        loc='lower right',
        bbox_to_anchor=(1, LEGEND / figure.get_figheight()),
        borderaxespad=0.3,
    )
    return figure


def draw_heatmap(ax: Any, sample: Detections, maps: PeakMaps, name: str) -> None:
    """Draw one map over its image, with the labelled boxes."""
    left, top, right, bottom = maps.edges
    show_image(ax, DARKER * dim(sample.image), smooth=False)
    place = dict(extent=(left, right, bottom, top), interpolation='nearest')
    ax.imshow(paint(maps.maps[name], 1.0), **place)
    # The map may reach beyond the image.
    height, width = sample.image.shape[:2]
    ax.set(xlim=(0, width), ylim=(height, 0))
    for box in sample.truth:
        draw_box(ax, box, TRUTH, 0.9, DASHES)


def draw_objects(ax: Any, sample: Detections, classes: Sequence[str]) -> None:
    """Draw the image with boxes, and the extreme points, centres and octagons of detections."""
    from matplotlib.patches import Polygon

    matches = sample.match()
    draw_detections_on(ax, sample, classes, dim(sample.image))
    ax.set_title(f'grouped: {count(matches)}', fontsize=8, pad=3)
    octagons = F.octagons(torch.from_numpy(sample.extreme_points)).numpy()
    for index in np.flatnonzero(matches.right | matches.wrong):
        colour = RIGHT if matches.right[index] else WRONG
        look = dict(facecolor=shade(colour), edgecolor=colour, linewidth=1)
        ax.add_patch(Polygon(octagons[index], **look))
    for name in SIGNS:
        mark(ax, sample, name)


def points_of(sample: Detections, name: str) -> np.ndarray:
    """Return the points (M, 2) of the detections: of one side, or the middles of their boxes."""
    if name == 'center':
        return (sample.boxes[:, :2] + sample.boxes[:, 2:]) / 2
    return sample.extreme_points[:, SIDES.index(name)]


def mark(ax: Any, sample: Detections, name: str) -> None:
    """Mark the points of one kind, white with a dark edge."""
    points = points_of(sample, name)
    for colour, extra in ((HALO, 1.2), ('white', 0)):
        look = dict(markersize=5, markeredgewidth=0.8 + extra, color=colour, clip_on=False)
        ax.plot(*points.T, marker=SIGNS[name].marker, linestyle='none', **look)


def peak_of(maps: PeakMaps, name: str) -> float:
    """Return the largest probability of a map."""
    return float(maps.maps[name].max())


def shade(colour: str) -> tuple[float, ...]:
    """Return the colour of the inside of an octagon."""
    from matplotlib.colors import to_rgba

    return to_rgba(colour, SHADE)


def sign_legend() -> list[Any]:
    """Return what the signs of points mean."""
    from matplotlib.lines import Line2D

    look = dict(linestyle='none', markersize=5, color=_figure.INK)
    return [Line2D([], [], marker=sign.marker, label=sign.word, **look) for sign in SIGNS.values()]


def add_scale(figure: Any) -> None:
    """Draw the colours of probabilities from 0 to 1 above the legend."""
    width, height = figure.get_size_inches()
    low = (LEGEND * legend_lines(width) + 0.09) / height
    ax = figure.add_axes((0.08 / width, low, SCALE / width, 0.1 / height))
    ax.imshow(np.full((1, 64, 3), GREY), aspect='auto')
    ax.imshow(paint(np.linspace(0, 1, 64)[None], 1.0), aspect='auto')
    ax.set_axis_off()
    text = 'probability 0 to 1, largest of all classes'
    figure.text((0.16 + SCALE) / width, low - 0.02 / height, text, fontsize=7.5, va='bottom')
