"""Models of MMEngine alone, and backbones; a backbone needs its own host alone."""

from mmloss_plugins.models.embedding_classifier import EmbeddingClassifier
from mmloss_plugins.models.embedding_preprocessor import EmbeddingDataPreprocessor
from mmloss_plugins.models.lenet import LeNetPlusPlus
from mmloss_plugins.models.pixel_classifier import PixelClassifier
from mmloss_plugins.registry import HAS_MMDET, MMPOSE_CODECS

__all__ = ['EmbeddingClassifier', 'EmbeddingDataPreprocessor', 'LeNetPlusPlus', 'PixelClassifier']

if MMPOSE_CODECS is not None:
    from mmloss_plugins.models.dilated_resnet import DilatedResNet

    __all__ += ['DilatedResNet']

if HAS_MMDET:
    from mmloss_plugins.models.heatmap_detector import HeatmapDetector

    __all__ += ['HeatmapDetector']
