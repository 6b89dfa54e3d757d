"""Figures of one style, saved as small PNG files; the only module that imports matplotlib."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from mmloss_plugins.errors import message

DPI = 120
MAX_BYTES = 300_000
INK, MUTED = '#24292f', '#6e7781'
# Okabe and Ito's palette without its yellow: distinct for colour-blind readers, too.
PALETTE = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9')
STYLE = {
    'font.size': 8.5,
    'axes.titlesize': 9,
    'axes.titlelocation': 'left',
    'axes.edgecolor': '#8c959f',
    'axes.labelcolor': INK,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.linewidth': 0.8,
    'axes.grid': True,
    'grid.color': '#d8dee4',
    'grid.linewidth': 0.6,
    'axes.axisbelow': True,
    'xtick.color': INK,
    'ytick.color': INK,
    'xtick.labelsize': 7.5,
    'ytick.labelsize': 7.5,
    'legend.frameon': False,
    'legend.fontsize': 7.5,
    'text.color': INK,
}


def import_matplotlib() -> Any:
    """Return matplotlib.

    Raises:
        ModuleNotFoundError: it is not installed; says how to install it.
    """
    try:
        import matplotlib
        import matplotlib.figure
    except ModuleNotFoundError as error:
        if (error.name or '').split('.')[0] != 'matplotlib':
            raise
        next_step = 'Run: pip install mmloss-plugins[claims]'
        raise ModuleNotFoundError(
            message(
                'visualization', 'matplotlib', 'be installed to draw pictures', 'none', next_step
            ),
            name='matplotlib',
        ) from error
    return matplotlib


def style() -> AbstractContextManager[None]:
    """Return the context in which figures are made and saved."""
    return import_matplotlib().rc_context(STYLE)


def new_figure(width: float, height: float, layout: str | None = 'constrained') -> Any:
    """Return an empty figure of ``width`` x ``height`` inches that belongs to no window."""
    figure = import_matplotlib().figure.Figure(
        figsize=(width, height), dpi=DPI, layout=layout, facecolor='white'
    )
    if layout == 'constrained':
        figure.get_layout_engine().set(w_pad=0.04, h_pad=0.04, wspace=0, hspace=0)
    return figure


def save(figure: Any, out_file: str | Path, keep: Sequence[str] = ()) -> Path:
    """Write ``figure`` as a PNG of at most ``MAX_BYTES``, with fewer colours if need be.

    Args:
        figure: of matplotlib.
        out_file: PNG to write.
        keep: colours of a legend, as '#rrggbb', that have to stay what they are.

    Raises:
        ValueError: ``out_file`` does not end in .png.
    """
    path = Path(out_file)
    if path.suffix != '.png':
        raise ValueError(
            message(
                'visualization', 'out_file', 'end in .png', repr(str(path)), 'Change its ending'
            )
        )
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_shrink(buffer.getvalue(), keep))
    return path


def _shrink(png: bytes, keep: Sequence[str] = ()) -> bytes:
    from PIL import Image, ImageColor

    if len(png) <= MAX_BYTES:
        return png
    picture = Image.open(io.BytesIO(png)).convert('RGB')
    # k-means over all pixels would take seconds. NEAREST keeps the exact colours of thin lines.
    few = picture.resize((picture.width // 4, picture.height // 4), Image.Resampling.NEAREST)
    palette = few.quantize(256 - len(keep), kmeans=1)
    colours = _with_white(palette.getpalette()[: 3 * (256 - len(keep))])
    palette.putpalette([*colours, *(part for name in keep for part in ImageColor.getrgb(name))])
    # Dithering keeps shades apart but is noise to the compressor: it goes before the size does.
    attempts = itertools.product((1.0, 0.85, 0.7, 0.5, 0.35), ('FLOYDSTEINBERG', 'NONE'))
    for scale, dither in attempts:
        size = (round(picture.width * scale), round(picture.height * scale))
        small = picture.resize(size, Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        small.quantize(256, palette=palette, dither=Image.Dither[dither]).save(
            buffer, format='png', optimize=True
        )
        if buffer.tell() <= MAX_BYTES:
            break
    return buffer.getvalue()


def _with_white(parts: Sequence[int]) -> list[int]:
    """Return the colours of a palette, r, g, b, r, ..., with those next to white made white.

    Pillow looks colours up by boxes of 8 x 8 x 8: in the last one 252 is taken for the paper.
    """
    triples = zip(parts[::3], parts[1::3], parts[2::3])
    return [255 if min(triple) >= 248 else part for triple in triples for part in triple]
