"""Metrics of the built-in data sets."""

from mmloss_plugins.metrics.pixel_average_precision import PixelAveragePrecision

__all__ = ['PixelAveragePrecision']
