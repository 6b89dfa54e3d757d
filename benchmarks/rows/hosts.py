"""Imports of the hosts' classes that are measured beside ours."""

from __future__ import annotations

import importlib
import sys
import types
from pathlib import Path


def mmpose_losses() -> types.ModuleType:
    """Return ``mmpose.models.losses``, on machines without MMDetection and mmcv's ops too.

    All of ``mmpose.models`` is imported where that works. Otherwise its losses alone: they need
    neither, while heads and backbones beside them do.

    Raises:
        ImportError: MMPose, or something that its losses import, is not installed.
    """
    try:
        importlib.import_module('mmpose.models')
    except ImportError:
        mmpose = importlib.import_module('mmpose')
        package = types.ModuleType('mmpose.models')
        package.__path__ = [str(Path(str(mmpose.__file__)).parent / 'models')]
        sys.modules['mmpose.models'] = package
    return importlib.import_module('mmpose.models.losses')
