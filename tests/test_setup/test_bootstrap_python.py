from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import bootstrap

SCRIPT = Path(bootstrap.__file__)


def write_executable(path, body):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\n{body}\n')
    path.chmod(0o755)
    return str(path)


def test_starts_on_python_3_6_to_say_which_one_is_needed():
    source = SCRIPT.read_text()
    assert ast.parse(source, feature_version=(3, 6)).body
    assert 'from __future__' not in source


def test_a_shim_that_fails_is_passed_over(tmp_path, monkeypatch):
    write_executable(tmp_path / 'shims' / 'python3.11', 'echo "version not active"; exit 127')
    good = write_executable(tmp_path / 'bin' / 'python3.11', f'exec {sys.executable} "$@"')
    monkeypatch.setenv('PATH', f'{tmp_path}/shims:{tmp_path}/bin')
    assert bootstrap.find_python() == good


def test_no_python_found_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', str(tmp_path))
    assert bootstrap.find_python() is None


def test_refusal_names_wanted_and_found_version_and_the_next_step():
    text = bootstrap.refuse('3.8.10')
    assert 'python must be Python 3.11' in text
    assert 'got 3.8.10' in text
    assert 'make test PYTHON=/path/to/python3.11' in text


def other_python():
    """Return a Python of another version than 3.11, or None."""
    names = ('python3.12', 'python3.10', 'python3.9', 'python3.13', 'python3.8')
    candidates = [*filter(None, map(shutil.which, names))]
    candidates += sorted(map(str, Path.home().glob('.pyenv/versions/3.*/bin/python3')))
    check = 'import sys; sys.exit(sys.version_info[:2] == (3, 11))'
    for candidate in candidates:
        if subprocess.run([candidate, '-c', check], capture_output=True).returncode == 0:
            return candidate
    return None


@pytest.mark.skipif(other_python() is None, reason='only one Python here')
def test_another_python_alone_is_refused(tmp_path):
    result = subprocess.run(
        [other_python(), str(SCRIPT)],
        env={**os.environ, 'PATH': str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert 'the wrong Python' in result.stderr
    assert 'Traceback' not in result.stderr
