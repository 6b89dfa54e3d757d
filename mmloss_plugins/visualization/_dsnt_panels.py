"""Draws the figure of learned heatmaps: a row for each run, a column for each keypoint."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmloss_plugins.visualization import _figure
from mmloss_plugins.visualization.heatmap_panels import GAP, LABEL, HeatmapPanel, draw_panel

# Inches: the text at the left of a row, a panel, the line above it, the legend below all.
TEXT, SIDE, LINE, LEGEND = 1.9, 1.55, 0.2, 0.3
WRAP = 26  # letters beside a row


@dataclass(frozen=True)
class Spread:
    """How wide and how torn the maps of the labelled keypoints of a val set are.

    Attributes:
        maps: how many were measured.
        heatmap_size: width and height, px of the map.
        spread_mean: of sqrt(trace(covariance) / 2), px of the map; the sigma of a round Gaussian.
        spread_median: of the same.
        peaks_mean: local maxima among 8 neighbours above half of the map's peak, mean over maps.
    """

    maps: int
    heatmap_size: tuple[int, int]
    spread_mean: float
    spread_median: float
    peaks_mean: float


@dataclass(frozen=True)
class LearnedMaps:
    """One run of the figure: where it comes from, its panels, its spread."""

    label: str
    work_dir: str
    checkpoint: str
    seed: int | None
    panels: list[HeatmapPanel]
    spread: Spread


def draw_rows(found: Sequence[LearnedMaps]) -> Any:
    """Return the figure; runs of one label share a row."""
    rows: dict[str, list[LearnedMaps]] = {}
    for run in found:
        rows.setdefault(run.label, []).append(run)
    # Panels are equally high; inputs of several shapes share the columns of the widest.
    side = SIDE * max(_aspect(panel) for run in found for panel in run.panels)
    width = TEXT + max(len(run.panels) for run in found) * (side + GAP)
    height = len(rows) * (SIDE + LINE + GAP) + LEGEND
    figure = _figure.new_figure(width, height, layout=None)
    for row, runs in enumerate(rows.values()):
        top = height - row * (SIDE + LINE + GAP)
        figure.text(0.06 / width, (top - LINE) / height, _describe(runs), va='top', fontsize=8.5)
        for column, panel in enumerate(runs[0].panels):
            left, below = TEXT + column * (side + GAP), top - LINE - SIDE
            size = SIDE * _aspect(panel) / width, SIDE / height
            ax = figure.add_axes((left / width, below / height, *size))
            draw_panel(ax, panel)
            ax.set_title(panel.title, fontsize=8, pad=3)
    figure.legend(handles=_legend(), loc='lower left', ncols=4, borderaxespad=0.3)
    note = dict(ha='right', va='bottom', fontsize=7.5, color=_figure.MUTED)
    figure.text(1 - GAP / width, 0.09 / height, 'spreads in px of the map', **note)
    return figure


def _aspect(panel: HeatmapPanel) -> float:
    height, width = panel.image.shape[:2]
    return width / height


def _describe(runs: Sequence[LearnedMaps]) -> str:
    """Return the text beside a row: the label and what the val set says of its runs."""
    means = [run.spread.spread_mean for run in runs]
    spread = f'spread {np.mean(means):.2f} px'
    if len(runs) > 1:
        spread += f' ({min(means):.2f} to {max(means):.2f})'
    peaks = np.mean([run.spread.peaks_mean for run in runs])
    whole = 'val set' if len(runs) == 1 else f'val set, {len(runs)} runs'
    size = '{} x {} cells'.format(*runs[0].spread.heatmap_size)
    label = textwrap.wrap(runs[0].label, WRAP)
    return '\n'.join((*label, size, '', f'{whole}:', spread, f'{peaks:.2f} peaks per map'))


def _legend() -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    ink = _figure.INK
    ring = dict(linestyle='none', markerfacecolor='none', markeredgecolor=LABEL, markersize=7)
    return [
        Patch(color='#f57d15', label='map, brightest at its peak'),
        Line2D([], [], color=ink, marker='+', markersize=7, linestyle='none', label='mean'),
        Line2D([], [], color=ink, linewidth=1.1, label='1 and 2 standard deviations'),
        Line2D([], [], marker='o', label='label', markeredgewidth=1.6, **ring),
    ]
