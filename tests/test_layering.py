"""Dependencies point one way: functional <- losses <- heads, models <- configs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / 'mmloss_plugins'
HOSTS = {'mmpose', 'mmdet', 'mmpretrain', 'mmcv'}
ANYTHING = None

BASIS = {'errors', 'functional', 'registry'}

# For each folder: the parts of the package it may import, and the third-party packages.
ALLOWED = {
    'functional': ({'errors', 'functional'}, {'torch'}),
    'losses': (BASIS | {'losses'}, {'torch', 'mmengine'}),
    'necks': (BASIS | {'necks'}, {'torch', 'mmengine'}),
    'codecs': (BASIS | {'codecs'}, ANYTHING),
    'heads': (BASIS | {'losses', 'necks', 'codecs', 'heads'}, ANYTHING),
    'models': (BASIS | {'losses', 'necks', 'codecs', 'heads', 'models'}, ANYTHING),
    'metrics': (BASIS | {'metrics'}, ANYTHING),
    'datasets': (BASIS | {'codecs', 'datasets'}, ANYTHING),
    'hooks': (BASIS | {'hooks', 'visualization'}, {'torch', 'mmengine'}),
    'visualization': (
        BASIS | {'losses', 'codecs', 'heads', 'models', 'metrics', 'compat', 'visualization'},
        ANYTHING,
    ),
}
# Folders that may import a host; 'visualization' inside functions, so that it imports without.
WITH_HOSTS = {'codecs', 'heads', 'models', 'datasets'}
WITH_LATE_HOSTS = {'visualization'}
FILES = [file for file in sorted(PACKAGE.rglob('*.py')) if '.mim' not in file.parts]


def imports_of(file: Path) -> list[tuple[str, set[type]]]:
    """Return (dotted name, kinds of statements around it) for every import of a file."""
    found = []

    def visit(node: ast.AST, around: set[type]) -> None:
        if isinstance(node, ast.Import):
            found.extend((alias.name, around) for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            found.extend((name, around) for name in from_names(file, node))
        for child in ast.iter_child_nodes(node):
            visit(child, around | {type(node)})

    visit(ast.parse(file.read_text()), set())
    return found


def from_names(file: Path, node: ast.ImportFrom) -> list[str]:
    """Return the dotted names of ``from x import a, b``, relative ones made absolute."""
    module = node.module or ''
    if node.level:
        package = ['mmloss_plugins', *file.relative_to(PACKAGE).parts[:-1]]
        parts = package[: len(package) - node.level + 1]
        module = '.'.join([*parts, module] if module else parts)
    # `from mmloss_plugins import functional` names a part of the package.
    return [f'{module}.{alias.name}' for alias in node.names]


def folder_of(file: Path) -> str:
    parts = file.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else ''


def may_import_host(file: Path, around: set[type]) -> bool:
    """Tell whether an import of a host may stand there."""
    folder = folder_of(file)
    if folder in WITH_LATE_HOSTS:
        return ast.FunctionDef in around
    if file == PACKAGE / 'registry.py':
        return ast.Try in around
    return folder in WITH_HOSTS


def violations(file: Path) -> list[str]:
    """Return the imports of a file that point the wrong way."""
    folder = folder_of(file)
    bad = []
    for name, around in imports_of(file):
        top, *rest = name.split('.')
        if top in HOSTS and not may_import_host(file, around):
            bad.append(f'{name}: only {", ".join(sorted(WITH_HOSTS))} may import a host')
        if folder not in ALLOWED or top in sys.stdlib_module_names:
            continue
        parts, packages = ALLOWED[folder]
        if top == 'mmloss_plugins' and rest[0] not in parts:
            bad.append(f'{name}: {folder} must not import {rest[0]}')
        if top != 'mmloss_plugins' and packages is not ANYTHING and top not in packages:
            bad.append(f'{name}: {folder} may import {", ".join(sorted(packages))} alone')
    return bad


@pytest.mark.parametrize('file', FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_point_one_way(file):
    assert violations(file) == []


def test_every_layer_that_exists_is_checked():
    folders = {folder_of(file) for file in FILES}
    assert {'functional', 'losses'} <= folders
    assert folders <= {'', *ALLOWED}, 'say in ALLOWED what the new folder may import'


@pytest.mark.parametrize(
    ('path', 'line'),
    [
        ('functional/bad.py', 'from mmloss_plugins.registry import MODELS'),
        ('functional/bad.py', 'from mmloss_plugins import registry'),
        ('functional/bad.py', 'from ..losses import base'),
        ('functional/bad.py', 'from .. import losses'),
        ('functional/bad.py', 'import numpy as np'),
        ('functional/bad.py', 'import mmengine.dist'),
        ('losses/bad.py', 'from mmpose.models import losses'),
        ('losses/bad.py', 'try:\n    import mmdet\nexcept ImportError:\n    pass'),
        ('losses/bad.py', 'def late():\n    from mmloss_plugins.heads import SomeHead'),
        ('heads/bad.py', 'from mmloss_plugins.models import SomeModel'),
        ('hooks/bad.py', 'def late():\n    import mmpose'),
        ('visualization/bad.py', 'import mmcv'),
        ('registry.py', 'from mmpose.registry import MODELS'),
    ],
)
def test_the_check_notices(tmp_path, monkeypatch, path, line):
    monkeypatch.setattr(sys.modules[__name__], 'PACKAGE', tmp_path)
    file = tmp_path / path
    file.parent.mkdir(exist_ok=True)
    file.write_text(line)
    assert len(violations(file)) >= 1


def test_functional_imports_torch_alone_and_losses_no_host():
    """What the files say is also what happens: no host and no MMEngine come in indirectly."""
    script = (
        'import sys\n'
        'sys.modules.update(dict.fromkeys(("mmpose", "mmdet", "mmcv")))\n'
        'import mmloss_plugins.functional\n'
        'assert "mmengine" not in sys.modules, "functional"\n'
        'assert "mmloss_plugins.registry" not in sys.modules, "registry"\n'
        'from mmengine.registry import MODELS\n'
        'loss = MODELS.build(dict(type="mmloss_plugins.KLDiscretLoss"))\n'
        'print(type(loss).__module__)\n'
    )
    run = subprocess.run(
        [sys.executable, '-c', script],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split()[-1] == 'mmloss_plugins.losses.simcc'
