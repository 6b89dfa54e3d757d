"""Keypoint codecs: encode labels and decode predictions, in numpy, one sample at a time."""

from .dsnt_label import DSNTLabel
from .offset_heatmap import OffsetHeatmap
from .simcc_label import SimCCLabel

__all__ = ['DSNTLabel', 'OffsetHeatmap', 'SimCCLabel']
