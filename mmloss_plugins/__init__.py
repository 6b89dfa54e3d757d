"""Losses, heads and codecs for MMPose and MMDetection, registered as ``mmloss_plugins.X``."""

# Importing the package imports nothing heavy: MMEngine finds the classes through registry.py.
__version__ = '0.1.0'
