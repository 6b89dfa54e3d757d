"""Models of MMEngine alone, and backbones; a backbone needs its own host alone."""

from mmloss_plugins.models.pixel_classifier import PixelClassifier
from mmloss_plugins.registry import MMPOSE_CODECS

__all__ = ['PixelClassifier']

if MMPOSE_CODECS is not None:
    from mmloss_plugins.models.dilated_resnet import DilatedResNet

    __all__ += ['DilatedResNet']
