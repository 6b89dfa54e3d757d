"""Draws objects and detections over images: boxes, their labels, a sheet of both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmloss_plugins.visualization import _figure
from mmloss_plugins.visualization._detection_run import IOU_THR, Detections, Matches

COLUMNS = 4
# Inches: the figure, its smallest width, the gap beside an image, the line above it, the label
# beside a row, the line above all, a line of the legend below all.
WIDTH, NARROW, GAP, TITLE, LABEL, HEAD, LEGEND = 8.4, 5.0, 0.06, 0.2, 0.42, 0.24, 0.24
# Height over width; a larger one would leave no room for the others.
TALL = 1.5
# Px of an image that is narrower than its panel.
SMALL = 300
# Letters in the line above all.
LETTERS = 140
# Apart by lightness as well, and wrong ones have a cross: for colour-blind readers and grey print.
RIGHT, WRONG, TRUTH, MISSED = '#56b4e9', '#d55e00', 'white', '#f0e442'
HALO = 'black'
KEYS = (RIGHT, WRONG, MISSED)
DASHES = (0, (3, 2))
# Points; a letter is this much of it wide.
TEXT, LETTER = 6.5, 0.6


def draw_sheet(
    labels: Sequence[str],
    rows: Sequence[Sequence[Detections]],
    classes: Sequence[str],
    headline: str = '',
) -> Any:
    """Return a figure of one row of images per run; more images than fit start new rows.

    Args:
        labels: of the runs; written beside the rows if there are several.
        rows: for each run the same images.
        classes: their names.
        headline: the line above all.
    """
    columns = min(COLUMNS, len(rows[0]))
    blocks = math.ceil(len(rows[0]) / columns)
    several = len(rows) > 1
    figure, axes = new_sheet(len(rows) * blocks, columns, aspect_of(rows[0]), several, headline)
    for block in range(blocks):
        for run, (label, samples) in enumerate(zip(labels, rows)):
            line = axes[block * len(rows) + run]
            if several:
                name_row(line[0], label, summarise(samples))
            for ax, sample in zip(line, samples[block * columns : (block + 1) * columns]):
                draw_detections_on(ax, sample, classes)
    add_legend(figure, box_legend())
    return figure


def new_sheet(
    rows: int, columns: int, aspect: float, labelled: bool, headline: str, more_lines: int = 0
) -> tuple[Any, np.ndarray]:
    """Return a figure and its axes (rows, columns), without ticks and edges.

    Args:
        rows, columns: how many axes.
        aspect: their height over their width.
        labelled: leave room for labels beside the rows.
        headline: the line above all.
        more_lines: room above the legend of boxes.
    """
    left = LABEL if labelled else 0
    side = min((WIDTH - left) / columns, NARROW) - GAP
    width = left + columns * (side + GAP)
    tall = side * min(aspect, TALL)
    below = LEGEND * (legend_lines(width) + more_lines) + GAP
    height = HEAD + rows * (TITLE + tall) + below
    figure = _figure.new_figure(width, height, layout=None)
    axes = np.empty((rows, columns), dtype=object)
    for row, column in np.ndindex(rows, columns):
        x = left + GAP / 2 + column * (side + GAP)
        y = below + (rows - 1 - row) * (TITLE + tall)
        ax = figure.add_axes((x / width, y / height, side / width, tall / height))
        ax.set_axis_off()
        axes[row, column] = ax
    headline = cut(headline, int(LETTERS * width / WIDTH))
    figure.text(GAP / 2 / width, 1 - 0.05 / height, headline, va='top', fontsize=8)
    return figure, axes


def aspect_of(samples: Sequence[Detections]) -> float:
    """Return the largest height over width of the images."""
    return max(sample.image.shape[0] / sample.image.shape[1] for sample in samples)


def legend_lines(width: float) -> int:
    """Return how many lines the legend takes in a figure of ``width`` inches."""
    return 1 if width > WIDTH - 1 else 2


def add_legend(figure: Any, handles: Sequence[Any]) -> None:
    """Write the legend below all, in two lines if the figure is narrow."""
    columns = math.ceil(len(handles) / legend_lines(figure.get_figwidth()))
    figure.legend(handles=handles, loc='lower left', ncols=columns, borderaxespad=0.3)


def name_row(ax: Any, label: str, below: str = '') -> None:
    """Write the label of a row beside its first image ``ax``, upwards."""
    place = ax.get_position()
    y = (place.y0 + place.y1) / 2
    lines = [label, below] if below else [label]
    for index, line in enumerate(lines):
        x = place.x0 - (0.08 + 0.15 * (len(lines) - 1 - index)) / ax.figure.get_figwidth()
        size, colour = (8.5, _figure.INK) if index == 0 else (7.5, _figure.MUTED)
        # As many letters as are as long as the row.
        room = int(72 * place.height * ax.figure.get_figheight() / (LETTER * size))
        look = dict(rotation=90, ha='right', va='center', fontsize=size, color=colour)
        ax.figure.text(x, y, cut(line, room), **look)


def cut(text: str, room: int) -> str:
    """Return ``text`` in at most ``room`` letters."""
    return text if len(text) <= room else f'{text[: room - 1]}…'


def draw_detections_on(
    ax: Any, sample: Detections, classes: Sequence[str], image: np.ndarray | None = None
) -> None:
    """Draw an image, its objects and its detections on ``ax``, with their count above."""
    matches = sample.match()
    show_image(ax, sample.image if image is None else image, smooth=image is None)
    ax.set_title(count(matches), fontsize=8, pad=3)
    for box, found in zip(sample.truth, matches.found):
        draw_box(ax, box, TRUTH if found else MISSED, 0.9 if found else 1.5, DASHES)
    labels = []
    # The best ones last, above the others.
    for index in np.flatnonzero(matches.right | matches.wrong)[::-1]:
        colour, cross = (RIGHT, '') if matches.right[index] else (WRONG, '✗ ')
        draw_box(ax, sample.boxes[index], colour, 1.3)
        text = f'{cross}{classes[sample.labels[index]]} {short(sample.scores[index])}'
        labels.append((sample.boxes[index], text, colour))
    labels += [
        (sample.truth[index], f'{classes[sample.truth_labels[index]]} ?', MISSED)
        for index in np.flatnonzero(~matches.found)
    ]
    write_labels(ax, sample.image.shape[1::-1], labels)


def show_image(ax: Any, image: np.ndarray, smooth: bool = True) -> None:
    """Show an image on ``ax``, with pixel i at [i, i + 1)."""
    height, width = image.shape[:2]
    # A small image that is enlarged smoothly makes a file twice as large.
    interpolation = 'bicubic' if smooth or width > SMALL else 'nearest'
    ax.imshow(image, extent=(0, width, height, 0), interpolation=interpolation)
    ax.set(xlim=(0, width), ylim=(height, 0))


def draw_box(ax: Any, box: np.ndarray, colour: str, width: float, style: Any = '-') -> None:
    """Draw one box, x1, y1, x2, y2, with a dark edge that shows on any image."""
    from matplotlib.patheffects import Normal, Stroke

    x1, y1, x2, y2 = box
    ax.plot(
        (x1, x2, x2, x1, x1),
        (y1, y1, y2, y2, y1),
        color=colour,
        linewidth=width,
        linestyle=style,
        path_effects=[Stroke(linewidth=width + 0.9, foreground=HALO, alpha=0.75), Normal()],
    )


def write_labels(
    ax: Any, size_wh: Sequence[int], labels: Sequence[tuple[np.ndarray, str, str]]
) -> None:
    """Write labels (box, text, colour), each at the corner of its box where it covers least."""
    # Px of the image per point.
    scale = size_wh[0] / (72 * ax.get_position().width * ax.figure.get_figwidth())
    pad = 0.2 * TEXT * scale
    placed: list[tuple[float, float, float, float]] = []
    for box, text, colour in labels:
        size = LETTER * TEXT * scale * len(text) + 2 * pad, 1.3 * TEXT * scale
        place = place_label(box, size, size_wh, placed)
        placed.append(place)
        ax.text(
            place[0] + pad,
            (place[1] + place[3]) / 2,
            text,
            fontsize=TEXT,
            color='white' if colour == WRONG else 'black',
            va='center_baseline',
            bbox=dict(facecolor=colour, edgecolor='none', pad=0.6, alpha=0.9),
        )


def place_label(
    box: Sequence[float],
    size_wh: tuple[float, float],
    image_wh: Sequence[int],
    placed: Sequence[tuple[float, float, float, float]],
) -> tuple[float, float, float, float]:
    """Return x1, y1, x2, y2 of a label of ``size_wh`` at a corner of ``box``.

    Above or below the box, flush with its left or right side, the one that covers the least of
    the labels in ``placed``; moved into the image where it would stick out.
    """
    width, height = size_wh
    places = []
    for y in (box[1] - height, box[3], box[1], box[3] - height):
        for x in (box[0], box[2] - width):
            left = min(max(x, 0), max(image_wh[0] - width, 0))
            top = min(max(y, 0), max(image_wh[1] - height, 0))
            places.append((left, top, left + width, top + height))
    return min(places, key=lambda place: sum(_common(place, other) for other in placed))


def _common(first: Sequence[float], second: Sequence[float]) -> float:
    across = min(first[2], second[2]) - max(first[0], second[0])
    down = min(first[3], second[3]) - max(first[1], second[1])
    return max(across, 0) * max(down, 0)


def short(score: float) -> str:
    """Return a score in two digits, as .93; 1.0 where it rounds to 1."""
    text = f'{score:.2f}'
    return text[1:] if text.startswith('0') else text[:3]


def count(matches: Matches) -> str:
    """Return the line above an image."""
    text = f'{matches.found.sum()} of {len(matches.found)} found'
    return f'{text}, {matches.wrong.sum()} wrong' if matches.wrong.any() else text


def summarise(samples: Sequence[Detections]) -> str:
    """Return what is found in all of the images."""
    matches = [sample.match() for sample in samples]
    right = np.concatenate([each.right for each in matches])
    wrong = np.concatenate([each.wrong for each in matches])
    return count(Matches(right, wrong, np.concatenate([each.found for each in matches])))


def box_legend() -> list[Any]:
    """Return what the boxes mean."""
    return [
        legend_line(RIGHT, 2, f'right detection, class and score (IoU ≥ {IOU_THR:g})'),
        legend_line(WRONG, 2, '✗ wrong detection'),
        legend_line(TRUTH, 1, 'labelled object', DASHES),
        legend_line(MISSED, 1.6, '? not found', DASHES),
    ]


def legend_line(colour: str, width: float, label: str, style: Any = '-') -> Any:
    """Return an entry of the legend with the dark edge of the boxes."""
    from matplotlib.lines import Line2D
    from matplotlib.patheffects import Normal, Stroke

    rim = [Stroke(linewidth=width + 0.9, foreground=HALO), Normal()]
    return Line2D(
        [], [], color=colour, linewidth=width, linestyle=style, label=label, path_effects=rim
    )
