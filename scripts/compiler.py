"""Checks the C++ compiler before anything long starts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path

from scripts import faults

PROBE = """
#include <Python.h>
#include <optional>
int main() { return std::optional<int>(0).value(); }
"""


def find() -> str | None:
    """Return the C++ compiler to use: CXX if set, else g++ or c++ on PATH."""
    named = os.environ.get('CXX')
    for name in (named.split()[0],) if named else ('g++', 'c++'):
        if shutil.which(name):
            return named or name
    return None


def check() -> None:
    """Compile a small C++17 program against Python's headers.

    Raises:
        SetupError: no compiler, one without C++17, or no headers.
    """
    what = f'check the C++ compiler ({os.environ.get("CXX") or "g++"})'
    found = find()
    if found is None:
        raise faults.SetupError(what, *faults.NO_COMPILER)
    include = sysconfig.get_paths()['include']
    if not Path(include, 'Python.h').is_file():
        raise faults.SetupError(what, *faults.NO_HEADERS)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, 'probe.cpp')
        source.write_text(PROBE, encoding='utf-8')
        words = [*found.split(), '-std=c++17', f'-I{include}', '-c', str(source)]
        command = [*words, '-o', str(source.with_suffix('.o'))]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode == 0:
        return
    if 'c++17' in result.stderr or 'optional' in result.stderr:
        raise faults.SetupError(what, *faults.OLD_COMPILER)
    raise faults.SetupError(what, *faults.explain(result.stderr, result.returncode))
