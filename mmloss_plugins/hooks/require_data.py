"""Stops a run at once, and with the way out, where its data set is not there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmengine.hooks import Hook

from mmloss_plugins.errors import message
from mmloss_plugins.registry import HOOKS


@HOOKS.register_module()
class RequireDataHook(Hook):
    """Check that a data set is in place while the runner is built, before any loader starts.

    Args:
        data_root: folder of the data set.
        files: files under ``data_root`` that must exist.
        next_step: what the user can do to get them.

    Raises:
        FileNotFoundError: ``data_root`` or one of ``files`` is missing.
    """

    def __init__(self, data_root: str, files: Sequence[str], next_step: str) -> None:
        root = Path(data_root)
        missing = [name for name in files if not (root / name).is_file()]
        if not missing:
            return
        got = (
            f'{root.absolute()} without {missing[0]}'
            if root.is_dir()
            else f'no folder {root.absolute()}'
        )
        rule = f'be a folder with {", ".join(files)}'
        raise FileNotFoundError(
            message('RequireDataHook', f'data_root={data_root!r}', rule, got, next_step)
        )
