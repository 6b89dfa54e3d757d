"""Lets MMEngine 0.10.7 load its own checkpoints on torch 2.6 and later.

Since 2.6 ``torch.load`` refuses every class that is not on an allow-list, and the log history that
MMEngine stores beside the weights is not on it: ``mim test`` and ``--resume`` stop. Importing this
module (``custom_imports=dict(imports=['mmloss_plugins', 'mmloss_plugins.compat'])``) puts exactly
the types of that history on the list. Files with anything else are still refused.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

from mmloss_plugins.errors import message

_STATISTICS = ('min', 'max', 'current', 'mean')
_DTYPES = ('bool', 'uint8', 'int32', 'int64', 'float32', 'float64')


def history_method(owner: Any, name: str) -> Any:
    """Stand in for ``getattr`` while unpickling: the four statistics of HistoryBuffer only.

    The pickles call ``getattr(HistoryBuffer, 'mean')``. Allowing the real ``getattr`` would let a
    crafted file walk from there to any attribute of any allowed class.

    Raises:
        ValueError: any other attribute of any other object.
    """
    if owner is HistoryBuffer and name in _STATISTICS:
        return getattr(HistoryBuffer, name)
    raise ValueError(
        message(
            'mmloss_plugins.compat',
            'attribute in the checkpoint',
            'be one of HistoryBuffer.' + ', HistoryBuffer.'.join(_STATISTICS),
            f'{owner!r}.{name}',
            'Do not load this file unless you trust its source',
        )
    )


def allow_mmengine_checkpoints() -> None:
    """Put the types of MMEngine's log history on torch's allow-list; harmless if repeated."""
    if not hasattr(torch.serialization, 'safe_globals'):
        return  # torch < 2.5 loads such files as they are
    reconstruct, scalar = np.zeros(1).__reduce__()[0], np.float64(0).__reduce__()[0]
    torch.serialization.add_safe_globals(
        [
            HistoryBuffer,
            np.ndarray,
            np.dtype,
            *{type(np.dtype(name)) for name in _DTYPES},
            (reconstruct, 'numpy.core.multiarray._reconstruct'),
            (reconstruct, 'numpy._core.multiarray._reconstruct'),
            (scalar, 'numpy.core.multiarray.scalar'),
            (scalar, 'numpy._core.multiarray.scalar'),
            (history_method, 'builtins.getattr'),
            (history_method, '__builtin__.getattr'),
        ]
    )


allow_mmengine_checkpoints()
