"""Built-in data sets and transforms; importing this package imports neither OpenCV nor a host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .digits import generate_digits
    from .extreme_points import AddExtremePoints, PackExtremePoints
    from .figures import generate_figures, render_figure
    from .identities import IdentityFolders, Market1501
    from .labelled_images import DigitImages, OmniglotImages
    from .mnist import MnistImages
    from .pad_border import PadBorder
    from .pixels import DotsDataset, StripesDataset
    from .transforms import PlaceBBox

__all__ = [
    'AddExtremePoints',
    'DigitImages',
    'DotsDataset',
    'IdentityFolders',
    'Market1501',
    'MnistImages',
    'OmniglotImages',
    'PackExtremePoints',
    'PadBorder',
    'PlaceBBox',
    'StripesDataset',
    'generate_digits',
    'generate_figures',
    'render_figure',
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    # Not at the top: `python -m mmloss_plugins.datasets.figures` would import the module twice,
    # and the pixel sets bring PyTorch and MMEngine with them.
    if name.endswith('Dataset'):
        from . import pixels

        return getattr(pixels, name)
    if name in ('IdentityFolders', 'Market1501'):
        from . import identities

        return getattr(identities, name)
    if name == 'MnistImages':
        from . import mnist

        return mnist.MnistImages
    if name == 'PadBorder':
        from . import pad_border

        return pad_border.PadBorder
    if name.endswith('Images'):
        from . import labelled_images

        return getattr(labelled_images, name)
    if name.endswith('ExtremePoints'):
        from . import extreme_points

        return getattr(extreme_points, name)
    if name == 'PlaceBBox':
        from . import transforms

        return getattr(transforms, name)
    if name == 'generate_digits':
        from . import digits

        return digits.generate_digits
    from . import figures

    return getattr(figures, name)
