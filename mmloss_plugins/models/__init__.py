"""Models that need no host: BaseModels of MMEngine."""

from mmloss_plugins.models.pixel_classifier import PixelClassifier

__all__ = ['PixelClassifier']
