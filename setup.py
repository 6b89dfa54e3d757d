"""Builds a wheel that ``mim`` can use: configs, tools and model-index.yml travel in ``.mim``."""

from __future__ import annotations

import atexit
import re
import shutil
import tempfile
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
PACKAGE = 'mmloss_plugins'
MIM_ITEMS = ('configs', 'tools', 'model-index.yml')
# Both hosts refuse an mmcv outside of this range.
MMCV = 'mmcv>=2.0.0,<2.2.0'


class BuildWithMim(build_py):
    """Adds ``PACKAGE/.mim`` to what is built; an editable install gets links instead."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for name in MIM_ITEMS:
            copy_item(ROOT / name, Path(self.build_lib, PACKAGE, '.mim', name))


def copy_item(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_file():
        shutil.copyfile(source, target)
        return
    shutil.copytree(source, target, ignore=shutil.ignore_patterns('__pycache__', '*.pyc'))


def read_version() -> str:
    text = (ROOT / PACKAGE / '__init__.py').read_text(encoding='utf-8')
    found = re.search(r"^__version__ = '([^']+)'", text, re.MULTILINE)
    if found is None:
        raise RuntimeError(f'{PACKAGE}/__init__.py has no line __version__ = ...')
    return found.group(1)


def read_description() -> str:
    readme = ROOT / 'README.md'
    return readme.read_text(encoding='utf-8') if readme.is_file() else ''


def scratch_folder() -> str:
    # Built in the source tree, files deleted from it would return in the next wheel.
    folder = tempfile.mkdtemp(prefix='mmloss-build-')
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


SCRATCH = scratch_folder()

setup(
    name='mmloss-plugins',
    version=read_version(),
    description='Losses, heads and codecs for MMPose and MMDetection',
    long_description=read_description(),
    long_description_content_type='text/markdown',
    python_requires='>=3.9',
    packages=find_packages(include=[PACKAGE, f'{PACKAGE}.*']),
    # An explicit root makes `pip install -e .` a plain path entry, which scripts/develop.py needs.
    package_dir={'': '.'},
    include_package_data=False,
    zip_safe=False,
    install_requires=['torch>=2.0', 'mmengine>=0.10,<1.0', 'numpy'],
    extras_require={
        'mmpose': ['mmpose>=1.0,<2.0', MMCV],
        'mmdet': ['mmdet>=3.0,<4.0', MMCV],
        'claims': ['matplotlib', 'scikit-learn'],
        'dev': [
            *('dsntnn', 'hypothesis', 'mypy', 'onnx', 'onnxruntime', 'psutil'),
            'pytorch-metric-learning',
            *('pytest', 'pytest-timeout', 'ruff'),
        ],
    },
    cmdclass={'build_py': BuildWithMim},
    options={'build': {'build_base': SCRATCH}, 'egg_info': {'egg_base': SCRATCH}},
)
