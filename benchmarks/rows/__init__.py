"""One module per family of losses; each has ``make_rows(device, seed) -> list[Row]``."""

from __future__ import annotations

FAMILIES = (
    'balanced_bce',
    'centernet',
    'class_counts',
    'dropins',
    'dsnt',
    'extremenet',
    'focal',
    'offset_heatmap',
    'recognition',
    'simcc',
)
