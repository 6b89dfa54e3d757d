"""Repairs a .venv that moved together with its checkout."""

from __future__ import annotations

import re
from pathlib import Path

MAX_BYTES = 2**20
MAX_SHEBANG = 120


def recorded_place(venv: Path) -> str | None:
    """Return the folder for which ``venv`` was created, or None if it does not say."""
    settings = venv / 'pyvenv.cfg'
    if not settings.is_file():
        return None
    pattern = r'^command = .* -m venv (?:--\S+ )*(.+)$'
    found = re.search(pattern, settings.read_text(encoding='utf-8'), re.MULTILINE)
    return found.group(1) if found else None


def start_through_shell(script: bytes) -> bytes:
    """Return ``script`` so that it starts although the path of its Python is long or has spaces."""
    first, _, rest = script.partition(b'\n')
    python = first[2:].strip()
    if not first.startswith(b'#!/') or b'python' not in first:
        return script
    if b' ' not in python and len(python) < MAX_SHEBANG:
        return script
    # For the shell the second line is a command, for Python both are a string.
    return b"#!/bin/sh\n'''exec' \"" + python + b'" "$0" "$@"\n\' \'\'\'\n' + rest


def relocate(venv: Path) -> list[Path]:
    """Put the new place into scripts and settings that name the old one; return them.

    Without it every console script of a moved checkout (mim, pytest) starts a Python that is gone.
    """
    old, new = recorded_place(venv), str(venv)
    if old is None or not Path(old).is_absolute() or Path(old) == venv:
        return []
    changed = []
    for path in sorted([*venv.glob('bin/*'), venv / 'pyvenv.cfg']):
        if path.is_symlink() or not path.is_file() or path.stat().st_size > MAX_BYTES:
            continue
        before = path.read_bytes()
        after = before.replace(f'{old}/'.encode(), f'{new}/'.encode())
        after = re.sub(re.escape(old).encode() + rb'(?=["\'\s]|$)', new.encode(), after)
        after = start_through_shell(after)
        if b'\0' in before or after == before:
            continue
        path.write_bytes(after)
        changed.append(path)
    return changed
