"""Necks of MMEngine alone."""

from mmloss_plugins.necks.arcface import ArcFaceNeck

__all__ = ['ArcFaceNeck']
