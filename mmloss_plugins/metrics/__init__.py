"""Metrics of the built-in data sets."""
