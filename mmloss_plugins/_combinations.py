"""Combinations of versions that are known to fail, each with the message that doctor prints."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from mmloss_plugins.errors import message

# Key of the versions mapping that says whether the compiled part of mmcv loads.
OPS = 'mmcv ops'


class Problem(NamedTuple):
    """One finding: ``fatal`` ones keep the package from training."""

    text: str
    fatal: bool


class Versions:
    """Questions to a mapping of package names to version strings, None for not installed."""

    def __init__(self, versions: Mapping[str, str | None]) -> None:
        self.versions = versions

    def __getitem__(self, name: str) -> str:
        return self.versions.get(name) or 'none'

    def has(self, *names: str) -> bool:
        """Tell whether at least one of ``names`` is installed."""
        return any(self.versions.get(name) for name in names)

    def release(self, name: str) -> tuple[int, ...]:
        """Return the leading numbers of a version, empty if not installed."""
        found = re.match(r'\d+(?:\.\d+)*', self.versions.get(name) or '')
        return tuple(int(part) for part in found.group().split('.')) if found else ()

    def at_least(self, name: str, *release: int) -> bool:
        """Tell whether ``name`` is installed in ``release`` or later."""
        return self.has(name) and self.release(name) >= release

    def at_most(self, name: str, *release: int) -> bool:
        """Tell whether ``name`` is installed in ``release`` or earlier."""
        return self.has(name) and self.release(name) <= release

    def below(self, name: str, *release: int) -> bool:
        """Tell whether ``name`` is installed in an earlier release than ``release``."""
        return self.has(name) and self.release(name) < release

    def is_cpu_build(self, name: str) -> bool:
        """Tell whether the version carries the local part of a CPU-only build."""
        return self[name].endswith('+cpu')


class Rule(NamedTuple):
    """``applies`` finds the combination; the rest makes up the message."""

    applies: Callable[[Versions], bool]
    what: str
    argument: str
    rule: str
    got: str
    fix: str
    fatal: bool = True


def _torchvision_is_foreign(v: Versions) -> bool:
    torch, vision = v.release('torch')[:2], v.release('torchvision')[:2]
    if len(torch) < 2 or len(vision) < 2 or (torch[0], vision[0]) != (2, 0):
        return False
    # torchvision 0.15 came with torch 2.0, and both have counted up together since.
    return vision[1] != torch[1] + 15


BUILD_MMCV = (
    'Run MMCV_WITH_OPS=1 pip install mmcv==2.1.0 --no-build-isolation --no-deps, with a C++ '
    'compiler, torch, ninja and "setuptools<81" installed'
)
OLD_GENERATION = 'be of the OpenMMLab 2.x generation (mmcv 2, mmdet 3, mmpose 1)'
NO_PKG_RESOURCES = 'be below 81 (later releases drop pkg_resources, which {user} imports)'
NUMPY_BACK = 'Run pip install "numpy<2" "opencv-python<4.12"'

RULES: tuple[Rule, ...] = (
    Rule(lambda v: not v.has('torch'), 'torch', 'torch', 'be installed', 'none',
         'Run pip install torch torchvision'),
    Rule(lambda v: v.below('torch', 2, 0), 'torch', 'torch', 'be 2.0 or later', '{torch}',
         'Upgrade torch and torchvision together, then reinstall mmcv'),
    Rule(lambda v: not v.has('mmengine'), 'mmengine', 'mmengine', 'be installed', 'none',
         'Run pip install "mmengine>=0.10,<1.0"'),
    Rule(lambda v: v.below('mmengine', 0, 10) or v.at_least('mmengine', 1), 'mmengine',
         'mmengine', 'be at least 0.10 and below 1.0', '{mmengine}',
         'Run pip install "mmengine>=0.10,<1.0"'),
    Rule(lambda v: not v.has('mmpose', 'mmdet'), 'hosts', 'mmpose or mmdet', 'be installed',
         'none', 'Run pip install --no-deps mmpose==1.3.2 mmdet==3.3.0, see requirements/ for '
         'what they import'),
    Rule(lambda v: v.below('mmpose', 1), 'mmpose', 'mmpose', OLD_GENERATION, '{mmpose}',
         'Run pip install --no-deps mmpose==1.3.2'),
    Rule(lambda v: v.below('mmdet', 3), 'mmdet', 'mmdet', OLD_GENERATION, '{mmdet}',
         'Run pip install --no-deps mmdet==3.3.0'),
    Rule(lambda v: v.below('mmcv', 2), 'mmcv', 'mmcv', OLD_GENERATION, '{mmcv}',
         'Run pip uninstall mmcv mmcv-full. ' + BUILD_MMCV),
    Rule(lambda v: v.at_least('mmcv', 2, 2) and v.at_most('mmdet', 3, 3, 0), 'mmdet',
         'mmcv', 'be below 2.2.0 for mmdet {mmdet} (it refuses others when imported)', '{mmcv}',
         BUILD_MMCV),
    Rule(lambda v: v.has('mmcv-lite') and v.has('mmpose', 'mmdet'), 'mmcv', 'mmcv-lite',
         'not be installed (it has no compiled ops, which mmpose and mmdet import)',
         '{mmcv-lite}', 'Run pip uninstall mmcv-lite. ' + BUILD_MMCV),
    Rule(lambda v: v.has('mmpose', 'mmdet') and not v.has(OPS) and not v.has('mmcv-lite')
         and not v.at_least('torch', 2, 14), 'mmcv', 'mmcv',
         'have compiled ops that load (mmpose.models and mmdet.models import mmcv.ops)',
         'none that load', BUILD_MMCV),
    Rule(lambda v: v.at_least('torch', 2, 14) and not v.has(OPS), 'mmcv', 'torch',
         'be below 2.14 to compile mmcv 2.1.0 (later headers need C++20)', '{torch}',
         'Run pip install torch==2.12.1 torchvision==0.27.1. ' + BUILD_MMCV),
    Rule(_torchvision_is_foreign, 'torchvision', 'torchvision',
         'be the release made for torch {torch} (0.15 for 2.0, 0.27 for 2.12)', '{torchvision}',
         'Install both with one pip command'),
    Rule(lambda v: v.is_cpu_build('torch') and v.has('torchvision')
         and not v.is_cpu_build('torchvision'), 'torchvision', 'torchvision',
         'be a CPU-only build beside torch {torch} (another one does not load)', '{torchvision}',
         'Run pip install torch==2.12.1 torchvision==0.27.1, the builds of which match'),
    Rule(lambda v: v.at_least('numpy', 2) and v.at_most('xtcocotools', 1, 14, 3)
         and v.has('mmpose'), 'xtcocotools', 'numpy',
         'be below 2 for the wheel of xtcocotools {xtcocotools} ("numpy.dtype size changed")',
         '{numpy}', NUMPY_BACK + ', or compile xtcocotools with --no-binary xtcocotools'),
    Rule(lambda v: v.at_least('numpy', 2) and v.below('torch', 2, 3), 'torch', 'numpy',
         'be below 2 for torch {torch}', '{numpy}', NUMPY_BACK),
    Rule(lambda v: v.at_least('numpy', 2) and v.at_most('mmcv', 2, 1, 0), 'mmcv', 'numpy',
         'be below 2 with mmcv {mmcv} (not tested together)', '{numpy}', NUMPY_BACK, False),
    Rule(lambda v: v.at_least('setuptools', 82) and v.at_most('mmengine', 0, 10, 7), 'mmengine',
         'setuptools', NO_PKG_RESOURCES.format(user='mmengine {mmengine}'), '{setuptools}',
         'Run pip install "setuptools<81"'),
    Rule(lambda v: v.at_least('setuptools', 82) and v.at_most('openmim', 0, 3, 9), 'openmim',
         'setuptools', NO_PKG_RESOURCES.format(user='openmim {openmim}'), '{setuptools}',
         'Run pip install "setuptools<81"', False),
    Rule(lambda v: v.at_least('pandas', 3) and v.at_most('openmim', 0, 3, 9), 'openmim',
         'pandas', 'be below 3 with openmim {openmim} (not tested together)', '{pandas}',
         'Run pip install "pandas<3"', False),
    Rule(lambda v: v.at_least('mmpose', 1, 3) and not v.has('mmdet'), 'mmpose', 'mmdet',
         'be installed for mmpose {mmpose} (its RTMO head imports it, with any model)', 'none',
         'Run pip install --no-deps mmdet==3.3.0, its imports are in requirements/runtime.txt'),
    Rule(lambda v: v.below('mmpose', 1, 3) and not v.has('mmdet'), 'mmpose', 'mmdet',
         'be installed for configs that take a backbone from it (RTMPose)', 'none',
         'Run pip install --no-deps mmdet==3.3.0 if you use them', False),
    Rule(lambda v: v.at_least('torch', 2, 6) and v.at_most('mmengine', 0, 10, 7), 'mmengine',
         'resuming', 'go through mmloss_plugins.compat (mmengine {mmengine} cannot load its own '
         'checkpoints with this torch)', 'torch {torch}',
         "Our configs do it; in your own add 'mmloss_plugins.compat' to custom_imports", False),
    Rule(lambda v: not v.has('openmim'), 'openmim', 'openmim', 'be installed for `mim train`',
         'none', 'Run pip install --no-deps openmim==0.3.9, or use tools/train.py', False),
)  # fmt: skip


def diagnose(versions: Mapping[str, str | None]) -> list[Problem]:
    """Return what is known to fail with ``versions``, most basic first.

    Args:
        versions: package name to version, None or absent for not installed; the key
            ``'mmcv ops'`` is any text if the compiled ops of mmcv load and None if they do not.
    """
    v = Versions(versions)
    return [_describe(rule, v) for rule in RULES if rule.applies(v)]


def _describe(rule: Rule, v: Versions) -> Problem:
    def fill(text: str) -> str:
        return re.sub(r'\{([a-z-]+)\}', lambda found: v[found.group(1)], text)

    text = message(rule.what, rule.argument, fill(rule.rule), fill(rule.got), fill(rule.fix))
    return Problem(text, rule.fatal)
