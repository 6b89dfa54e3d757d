"""Built-in data sets; importing this package imports neither OpenCV nor a host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .figures import generate_figures, render_figure
    from .pixels import DotsDataset, StripesDataset

__all__ = ['DotsDataset', 'StripesDataset', 'generate_figures', 'render_figure']


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    # Not at the top: `python -m mmloss_plugins.datasets.figures` would import the module twice,
    # and the pixel sets bring PyTorch and MMEngine with them.
    if name.endswith('Dataset'):
        from . import pixels

        return getattr(pixels, name)
    from . import figures

    return getattr(figures, name)
