"""Registered losses: configuration and reduction around ``mmloss_plugins.functional``."""

from mmloss_plugins.losses.base import BaseLoss
from mmloss_plugins.losses.simcc import KLDiscretLoss

__all__ = ['BaseLoss', 'KLDiscretLoss']
