"""What a result was measured with: commit, versions, machine, load."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from mmloss_plugins import __version__
from mmloss_plugins.doctor import SHOWN, find_version

ROOT = Path(__file__).resolve().parent.parent


def describe_environment() -> dict[str, Any]:
    """Return what a result JSON says about where it comes from.

    Returns:
        ``commit`` (with '-dirty' where the code differs from it, None outside of git),
        ``versions`` by package (None: not installed), ``machine``, ``threads`` of torch and
        ``load``, the mean number of busy cores over the last minute. Nothing in it names the
        host, the user or a folder.
    """
    return {
        'commit': commit(),
        'versions': versions(),
        'machine': machine(),
        'threads': torch.get_num_threads(),
        'load': round(os.getloadavg()[0], 2),
    }


def commit() -> str | None:
    """Return the first 12 digits of HEAD; results and texts do not count as changes."""
    head = _git('rev-parse', '--short=12', 'HEAD')
    if head is None:
        return None
    changes = _git('status', '--porcelain', '--', '.', ':!benchmarks/results', ':!*.md')
    return f'{head}-dirty' if changes else head


def versions() -> dict[str, str | None]:
    """Return the versions that influence a result; ``python`` and ours included."""
    found = {name: find_version(names) for name, (names, _) in SHOWN.items()}
    if found['torch'] is not None:
        found['torch'] = torch.__version__  # with its build, such as +cpu or +cu130
    return {'python': platform.python_version(), **found, 'mmloss_plugins': __version__}


def machine() -> dict[str, Any]:
    """Return processor, cores, memory and, where there is one, the GPU."""
    pages, page = os.sysconf('SC_PHYS_PAGES'), os.sysconf('SC_PAGE_SIZE')
    found: dict[str, Any] = {
        'system': f'{platform.system()} {platform.machine()}',
        'cpu': _cpu_model(),
        'cores': os.cpu_count(),
        'memory_gib': round(pages * page / 2**30),
    }
    if torch.cuda.is_available():
        found['gpu'] = torch.cuda.get_device_name()
        found['cuda'] = torch.version.cuda
    return found


def source_hash(paths: Iterable[str]) -> str:
    """Return a hash of the Python files below ``paths``, relative to the repository.

    Tells a result of other code apart where the commit cannot: in a changed working tree, and on
    a machine that has a copy of the files alone.
    """
    digest = hashlib.sha256()
    for path in sorted(paths):
        top = ROOT / path
        for file in sorted(top.rglob('*.py')) if top.is_dir() else [top]:
            digest.update(file.relative_to(ROOT).as_posix().encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def _cpu_model() -> str:
    file = Path('/proc/cpuinfo')
    lines = file.read_text().splitlines() if file.is_file() else []
    models = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return models[0] if models else platform.processor()


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ['git', *arguments], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
