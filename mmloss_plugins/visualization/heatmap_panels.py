"""Normalised heatmaps over the network's input: cells, mean, covariance ellipse and label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Union

import numpy as np
import torch
from torch import Tensor

from mmloss_plugins import functional as F
from mmloss_plugins.errors import check_choice, message
from mmloss_plugins.visualization import _figure

# Names or indices.
Keypoints = Sequence[Union[str, int]]
COLOUR_MAP = 'inferno'
LABEL, HALO = '#39d353', 'black'
# Inches of a picture by itself: a panel's height, the line above it, the gap beside it.
PANEL, TITLE, GAP = 2.0, 0.2, 0.06
# Half precision leaves the sum of 4096 cells this far from 1.
TOLERANCE = 1e-2


@dataclass(frozen=True)
class HeatmapPanel:
    """One keypoint of one instance; positions are (x, y) in px of the image.

    Attributes:
        title: the line above the panel: the keypoint, and its spread in px of the map.
        image: what the network got, shape (H, W, 3), RGB, uint8.
        heatmap: the keypoint's normalised map, shape (h, w), with the outer edges of the image.
        mean: of the map, shape (2,).
        covariance: of the map, shape (2, 2), px^2 of the image.
        label: shape (2,); NaN without a label.
    """

    title: str
    image: np.ndarray
    heatmap: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray
    label: np.ndarray


def heatmaps_of(result: Any) -> Tensor:
    """Return the maps (K, h, w) of a ``PoseDataSample`` whose head gives normalised ones.

    Raises:
        ValueError: it has no maps, or they do not sum to 1.
    """
    maps = getattr(result.get('pred_fields'), 'heatmaps', None)
    got = 'no heatmaps'
    if isinstance(maps, Tensor):
        maps = maps.detach().float().cpu()
        sums = maps.sum((1, 2))
        # A run that diverges is drawn as such.
        if not ((sums - 1).abs()[sums.isfinite()] > TOLERANCE).any():
            return maps
        got = f'sums from {sums.min():.3g} to {sums.max():.3g}'
    next_step = 'Use it with mmloss_plugins.DSNTHead, or with DSNTHead or IntegralRegressionHead'
    rule = 'give (K, H, W) heatmaps that sum to 1'
    raise ValueError(message('heatmap pictures', 'the head', rule, got, f'{next_step} of MMPose'))


def choose_keypoints(
    keypoints: Keypoints | int, total: int, names: Mapping[int, str] | None = None
) -> list[int]:
    """Return indices of keypoints.

    Args:
        keypoints: names or indices; a number takes that many, evenly spaced.
        total: how many there are.
        names: of the keypoints, by index.

    Raises:
        ValueError: no such keypoint.
    """
    if isinstance(keypoints, int):
        return evenly(keypoints, total)
    known = {name: index for index, name in (names or {}).items()}
    for keypoint in keypoints:
        if isinstance(keypoint, str):
            check_choice('heatmap pictures', 'keypoints', keypoint, known)
        elif not 0 <= keypoint < total:
            next_step = 'Take indices of that range, or names'
            rule = f'be from 0 to {total - 1}'
            raise ValueError(message('heatmap pictures', 'keypoints', rule, keypoint, next_step))
    return [known[each] if isinstance(each, str) else each for each in keypoints]


def evenly(num: int, total: int) -> list[int]:
    """Return up to ``num`` of the indices 0 to ``total`` - 1, evenly spaced, with both ends."""
    return np.linspace(0, total - 1, min(num, total)).round().astype(int).tolist()


def make_panels(
    result: Any, image: Tensor, keypoints: Sequence[int], names: Mapping[int, str] | None = None
) -> list[HeatmapPanel]:
    """Return the panels of one instance.

    Args:
        result: a ``PoseDataSample`` with ``pred_fields.heatmaps``.
        image: what the network got, shape (3, H, W) or (1, H, W), BGR, 0 to 255.
        keypoints: indices.
        names: of the keypoints, by index.

    Raises:
        ValueError: the sample has no normalised heatmaps.
    """
    heatmaps = heatmaps_of(result)
    picture = _to_rgb(image)
    labels = _label_positions(result, len(heatmaps))
    chosen = heatmaps[list(keypoints)]
    means, covariances, spreads = measure_in_px(chosen, picture.shape[1::-1])
    return [
        HeatmapPanel(
            title=f'{_name(joint, names)}  {spreads[place]:.2f} px',
            image=picture,
            heatmap=chosen[place].numpy(),
            mean=means[place],
            covariance=covariances[place],
            label=labels[joint],
        )
        for place, joint in enumerate(keypoints)
    ]


def measure_in_px(
    heatmaps: Tensor, size_wh: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return means and covariances of maps (K, h, w) in px of an image of the same outer edges.

    Returns:
        Means (K, 2), covariances (K, 2, 2), and the spreads sqrt(trace / 2), shape (K,), which are
        in px of the map and the sigma of a round Gaussian.
    """
    heatmaps = heatmaps[None].double()
    means, covariances = F.dsnt(heatmaps)[0].numpy(), F.heatmap_covariance(heatmaps)[0].numpy()
    spreads = np.sqrt(np.trace(covariances, axis1=-2, axis2=-1).clip(min=0) / 2)
    size = np.array(size_wh, dtype=np.float64)
    # A pixel of the map is this many pixels of the image wide and high.
    scale = size / heatmaps.shape[:1:-1]
    return (means + 1) / 2 * size - 0.5, covariances * np.outer(scale, scale), spreads


def ellipse(mean: np.ndarray, covariance: np.ndarray, sigmas: float) -> np.ndarray:
    """Return points (97, 2) that lie ``sigmas`` standard deviations off the mean.

    A map in one cell, or in one row, has an ellipse without an extent in that direction.
    """
    values, vectors = np.linalg.eigh(covariance)
    # Rounding makes a variance of zero negative.
    axes = vectors * np.sqrt(values.clip(min=0))
    angles = np.linspace(0, 2 * np.pi, 97)
    return mean + sigmas * np.stack([np.cos(angles), np.sin(angles)], 1) @ axes.T


def draw_panel(ax: Any, panel: HeatmapPanel, sigmas: Sequence[float] = (1, 2)) -> None:
    """Draw one panel on ``ax``, with one ellipse for each of ``sigmas``."""
    height, width = panel.image.shape[:2]
    place = dict(extent=(-0.5, width - 0.5, height - 0.5, -0.5), aspect='auto')
    ax.imshow(dim(panel.image), **place)
    ax.imshow(paint(panel.heatmap, panel.heatmap.max()), interpolation='nearest', **place)
    ax.set(xlim=place['extent'][:2], ylim=place['extent'][2:])
    ax.set_axis_off()
    if np.isfinite(panel.label).all():
        _mark_label(ax, panel.label)
    if not (np.isfinite(panel.mean).all() and np.isfinite(panel.covariance).all()):
        ax.text(0.5, 0.5, 'not finite', color='white', ha='center', transform=ax.transAxes)
        return
    for radius in sigmas:
        points = ellipse(panel.mean, panel.covariance, radius).T
        ax.plot(*points, color=HALO, linewidth=2.4, alpha=0.6)
        ax.plot(*points, color='white', linewidth=1.1)
    for colour, size, line in ((HALO, 7.5, 2.8), ('white', 6.5, 1.3)):
        ax.plot(*panel.mean, '+', color=colour, markersize=size, markeredgewidth=line)


def render(panels: Sequence[HeatmapPanel], sigmas: Sequence[float] = (1, 2)) -> np.ndarray:
    """Return a row of panels as a picture (height, width, 3), RGB, uint8."""
    _figure.import_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with _figure.style():
        widths = [PANEL * panel.image.shape[1] / panel.image.shape[0] for panel in panels]
        total = sum(widths) + GAP * (len(panels) - 1)
        figure = _figure.new_figure(total, PANEL + TITLE, layout=None)
        left = 0.0
        for panel, width in zip(panels, widths):
            height = PANEL / (PANEL + TITLE)
            ax = figure.add_axes((left / total, 0, width / total, height))
            draw_panel(ax, panel, sigmas)
            ax.set_title(panel.title, fontsize=8, pad=3)
            left += width + GAP
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])


def _name(joint: int, names: Mapping[int, str] | None) -> str:
    return (names or {}).get(joint, str(joint)).replace('_', ' ')


def _to_rgb(image: Tensor) -> np.ndarray:
    picture = image.detach().cpu().float().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
    return np.ascontiguousarray(np.broadcast_to(picture[..., ::-1], (*picture.shape[:2], 3)))


def dim(image: np.ndarray) -> np.ndarray:
    """Return a dark grey image, on which the colours of the map are the only ones."""
    grey = image.astype(np.float64) @ (0.299, 0.587, 0.114) / 255
    return np.repeat((0.1 + 0.55 * grey)[..., None], 3, axis=2)


def paint(heatmap: np.ndarray, peak: float) -> np.ndarray:
    """Return the map as RGBA, from clear at 0 to the brightest colour at ``peak``."""
    colours = _figure.import_matplotlib().colormaps[COLOUR_MAP]
    share = heatmap / peak if np.isfinite(peak) and peak > 0 else np.zeros_like(heatmap)
    rgba = colours(0.15 + 0.85 * share)
    rgba[..., 3] = np.sqrt(share) * 0.85
    return rgba


def _mark_label(ax: Any, label: np.ndarray) -> None:
    for colour, width in ((HALO, 3.2), (LABEL, 1.6)):
        ax.scatter(*label, 60, 'none', edgecolors=colour, linewidths=width)


def _label_positions(result: Any, total: int) -> np.ndarray:
    """Return the labels (K, 2) in px of the input, as MMPose maps predictions back from there."""
    nowhere = np.full((total, 2), np.nan)
    truth = result.get('gt_instances')
    meta = result.metainfo
    if truth is None or 'keypoints' not in truth or 'input_center' not in meta:
        return nowhere
    labels = np.asarray(truth.keypoints[0], dtype=np.float64)[:, :2]
    visible = np.asarray(truth.get('keypoints_visible', np.ones((1, len(labels)))))[0]
    if len(labels) != total:
        return nowhere
    first = meta['input_center'] - 0.5 * np.asarray(meta['input_scale'])
    labels = (labels - first) / meta['input_scale'] * meta['input_size']
    visible = visible[:, 0] if visible.ndim == 2 else visible
    return np.where(visible[:, None] > 0, labels, np.nan)
