"""Keypoint codecs: encode labels and decode predictions, in numpy, one sample at a time."""

from .simcc_label import SimCCLabel

__all__ = ['SimCCLabel']
