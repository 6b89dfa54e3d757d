"""Metrics of embeddings and of the built-in data sets."""

from mmloss_plugins.metrics.calibration import CalibrationError
from mmloss_plugins.metrics.class_accuracy import ClassAccuracy
from mmloss_plugins.metrics.embedding_spread import EmbeddingSpread
from mmloss_plugins.metrics.pixel_average_precision import PixelAveragePrecision
from mmloss_plugins.metrics.search import SearchMetric
from mmloss_plugins.metrics.verification import VerificationMetric

__all__ = [
    'CalibrationError',
    'ClassAccuracy',
    'EmbeddingSpread',
    'PixelAveragePrecision',
    'SearchMetric',
    'VerificationMetric',
]
