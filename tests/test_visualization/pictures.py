"""What a picture must be like."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from mmloss_plugins.visualization._figure import MAX_BYTES


def check_picture(path: Path) -> None:
    """Check that a picture is wide enough for a README, small, and filled on both halves."""
    assert path.stat().st_size <= MAX_BYTES
    pixels = np.asarray(Image.open(path).convert('L'), dtype=np.float64)
    height, width = pixels.shape
    assert 700 <= width <= 1100
    assert 200 <= height <= 1200
    for half in np.array_split(pixels, 2, axis=1):
        assert half.std() > 10, 'a blank half'
        assert (half < 128).sum() > 500, 'no ink'
