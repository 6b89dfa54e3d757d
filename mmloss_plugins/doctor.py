"""``python -m mmloss_plugins doctor``: can this installation train with our losses?"""

from __future__ import annotations

import importlib
import platform
import sys
import traceback
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from mmloss_plugins import __version__
from mmloss_plugins._combinations import OPS, Problem, diagnose

# What is shown: the distributions that provide it, and what is imported to see whether it loads.
SHOWN = {
    'torch': (('torch',), 'torch'),
    'torchvision': (('torchvision',), 'torchvision'),
    'numpy': (('numpy',), 'numpy'),
    'mmengine': (('mmengine', 'mmengine-lite', 'onedl-mmengine'), 'mmengine.runner'),
    'mmcv': (('mmcv', 'mmcv-lite', 'onedl-mmcv'), 'mmcv'),
    'mmdet': (('mmdet', 'onedl-mmdetection'), 'mmdet.apis'),
    'mmpose': (('mmpose',), 'mmpose.apis'),
    'openmim': (('openmim', 'onedl-mim'), 'mim'),
}
# Not shown, but part of known bad combinations.
ASKED = ('setuptools', 'xtcocotools', 'pandas', 'opencv-python', 'mmcv-lite')
REGISTRIES = {
    'MODELS': 'models',
    'HOOKS': 'hooks',
    'DATASETS': 'data sets',
    'TRANSFORMS': 'transforms',
    'METRICS': 'metrics',
    'KEYPOINT_CODECS': 'keypoint codecs',
}


@dataclass
class Report:
    """What was found: versions, first causes of failed imports, registered names, problems."""

    versions: dict[str, str | None] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    registered: dict[str, list[str]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def loads(self, name: str) -> bool:
        """Tell whether ``name`` is there and imports."""
        return bool(self.versions.get(name)) and name not in self.failures

    def can_train(self) -> bool:
        """Tell whether our package could train: its needs and one host import."""
        needs = ('torch', 'mmengine', 'mmcv', OPS, 'mmloss_plugins')
        return all(self.loads(name) for name in needs) and bool(self.hosts())

    def hosts(self) -> list[str]:
        """Return the hosts that import."""
        return [name for name in ('mmpose', 'mmdet') if self.loads(name)]


def find_version(distributions: Iterable[str]) -> str | None:
    """Return the version of the first of ``distributions`` that is installed."""
    for name in distributions:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def first_cause(error: BaseException) -> str:
    """Return the error at the start of a chain of errors, with the line that raised it.

    The last one of the chain, which users usually see, often only says that an import failed.
    """
    seen = {id(error)}
    while True:
        hidden = error.__suppress_context__
        earlier = error.__cause__ or (None if hidden else error.__context__)
        if earlier is None or id(earlier) in seen:
            break
        error = earlier
        seen.add(id(error))
    text = (str(error).strip() or 'no text').splitlines()[0]
    frames = traceback.extract_tb(error.__traceback__)
    place = f' ({frames[-1].filename}:{frames[-1].lineno})' if frames else ''
    return f'{type(error).__name__}: {text}{place}'


def try_import(module: str) -> str | None:
    """Import ``module``; return None, or the first cause of the failure."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            importlib.import_module(module)
    except (Exception, SystemExit) as error:
        return first_cause(error)
    return None


def examine() -> Report:
    """Look at every package and registry; no failure of one keeps the others from being seen."""
    report = Report({name: find_version(names) for name, (names, _) in SHOWN.items()})
    report.versions.update({name: find_version([name]) for name in ASKED})
    for name, (_, module) in SHOWN.items():
        if report.versions[name]:
            _note_failure(report, name, module)
    report.versions[OPS] = report.versions['mmcv']
    if report.versions[OPS]:
        _note_failure(report, OPS, 'mmcv._ext')
    report.versions['mmloss_plugins'] = __version__
    _note_failure(report, 'mmloss_plugins', 'mmloss_plugins.registry')
    if report.loads('mmloss_plugins'):
        _list_registered(report)
    known = {**report.versions, OPS: 'yes' if report.loads(OPS) else None}
    report.problems = diagnose(known)
    return report


def render(report: Report) -> str:
    """Return ``report`` as the text that is printed."""
    lines = [
        f'mmloss_plugins {__version__} in {Path(__file__).resolve().parent}',
        f'Python {platform.python_version()} in {sys.prefix}',
        '',
    ]
    for name in SHOWN:
        lines.append(_row(report, name, report.versions[name] or 'not installed'))
        if name == 'mmcv':
            lines.append(_row(report, OPS, _describe_ops(report)))
    lines += ['', 'registered, in configs as type=mmloss_plugins.NAME']
    failure = report.failures.get('mmloss_plugins')
    for label in REGISTRIES.values():
        names = report.registered.get(label, [])
        failure_here = failure or report.failures.get(label)
        text = f'does not load: {failure_here}' if failure_here else ', '.join(names) or 'none'
        lines.append(f'  {label:<16} {text}')
    lines.append('')
    lines += [f'{"problem" if fatal else "note"}: {text}' for text, fatal in report.problems]
    lines.append(_conclude(report))
    return '\n'.join(lines)


def main(arguments: Sequence[str]) -> int:
    """Print the report; return 0 if our package could train here and 1 if not."""
    if arguments:
        print('usage: python -m mmloss_plugins doctor', file=sys.stderr)
        return 0 if arguments[0] in ('-h', '--help') else 2
    report = examine()
    print(render(report))
    return 0 if report.can_train() else 1


def _note_failure(report: Report, name: str, module: str) -> None:
    cause = try_import(module)
    if cause is not None:
        report.failures[name] = cause


def _list_registered(report: Report) -> None:
    module = importlib.import_module('mmloss_plugins.registry')
    for attribute, label in REGISTRIES.items():
        registry = getattr(module, attribute)
        try:
            registry.import_from_location()
        except Exception as error:
            report.failures[label] = first_cause(error)
            continue
        report.registered[label] = sorted(registry.module_dict)


def _row(report: Report, name: str, text: str) -> str:
    failure = report.failures.get(name)
    row = f'  {name:<16} {text}'
    return f'{row}, does not load: {failure}' if failure else row


def _describe_ops(report: Report) -> str:
    if not report.loads(OPS):
        return 'none'
    try:
        cuda = importlib.import_module('mmcv.ops').get_compiling_cuda_version()
    except Exception:
        return 'load'
    return 'load, CPU only' if cuda == 'not available' else f'load, CPU and CUDA {cuda}'


def _conclude(report: Report) -> str:
    if report.can_train():
        return f'result: can train with {" and ".join(report.hosts())}'
    missing = [
        name for name in ('torch', 'mmengine', OPS, 'mmloss_plugins') if not report.loads(name)
    ]
    if not report.hosts():
        missing.append('a host (mmpose or mmdet)')
    return f'result: cannot train, for want of {", ".join(missing)}'
