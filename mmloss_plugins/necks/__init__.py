"""Necks of MMEngine alone."""

from mmloss_plugins.necks.arcface import ArcFaceNeck
from mmloss_plugins.necks.bnneck import BNNeck

__all__ = ['ArcFaceNeck', 'BNNeck']
