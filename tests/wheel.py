"""The wheel of this checkout, built once per session and installed into a folder of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PIP = [sys.executable, '-m', 'pip', '--disable-pip-version-check']


def listing():
    ignored = {'.git', '.venv', '__pycache__', '.pytest_cache', '.mypy_cache', '.ruff_cache'}
    ignored |= {'.hypothesis', 'work_dirs', 'data'}
    found = set()
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in ignored]
        found.update(str(Path(folder, name)) for name in [*files, *folders])
    return found


@pytest.fixture(scope='session')
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp('wheel')
    before = listing()
    build = ['wheel', '--no-deps', '--no-build-isolation', '--no-index', '-w', str(folder)]
    result = subprocess.run([*PIP, *build, str(ROOT)], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    garbage = {path for path in listing() - before if re.search(r'egg-info|build|\.mim', path)}
    assert garbage == set()
    return next(folder.glob('*.whl'))


@pytest.fixture(scope='session')
def installed_wheel(wheel, tmp_path_factory):
    target = tmp_path_factory.mktemp('site')
    options = ['install', '--no-deps', '--no-index', '--target', str(target)]
    subprocess.run([*PIP, *options, str(wheel)], check=True, capture_output=True)
    return target
