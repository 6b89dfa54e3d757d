"""Compiles mmcv once per torch release and keeps the wheel."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from scripts import faults
from scripts.runner import NinjaProgress, PipProgress, Screen, run

VERSION = '2.1.0'
NAME = f'mmcv-{VERSION}'
KEEP_VARIABLE = 'MMLOSS_WHEELS'
MEMORY_PER_JOB = 1.5 * 2**30

# Runs in .venv after torch is there.
PROBE = """
import json, subprocess, sys, torch
from torch.utils.cpp_extension import CUDA_HOME
gpu = torch.cuda.is_available()
nvcc = None
if CUDA_HOME:
    try:
        nvcc = subprocess.run([CUDA_HOME + '/bin/nvcc', '--version'], capture_output=True,
                              text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        nvcc = None
print('PROBE' + json.dumps(dict(
    torch=torch.__version__, cuda=torch.version.cuda, gpu=gpu, nvcc=nvcc, cuda_home=CUDA_HOME,
    arch='%d.%d' % torch.cuda.get_device_capability() if gpu else None)))
"""


class Target(NamedTuple):
    """What to compile for: ``tag`` keys the kept wheel, ``env`` steers mmcv's setup.py."""

    tag: str
    env: dict[str, str]
    note: str


def fingerprint(driver: Path = Path('/proc/driver/nvidia/version')) -> str:
    """Return what decides between CPU and CUDA ops, without starting torch."""
    if not driver.exists():
        return 'no driver'
    home = os.environ.get('CUDA_HOME') or os.environ.get('CUDA_PATH') or ''
    nvcc = shutil.which('nvcc', path=f'{home}/bin') if home else shutil.which('nvcc')
    return f'driver, nvcc {Path(nvcc).resolve() if nvcc else "missing"}'


def cpu_target(torch: str, note: str) -> Target:
    """Return the target without CUDA kernels."""
    # mmcv's setup.py takes CUDA as soon as torch sees a GPU or FORCE_CUDA is set.
    env = {'CUDA_VISIBLE_DEVICES': '', 'FORCE_CUDA': '0'}
    return Target(f'torch{torch}-cp311-{platform.machine()}-cpu', env, note)


def choose_target(facts: Mapping[str, Any]) -> Target:
    """Return what to compile for on a machine with the ``facts`` that PROBE found."""
    torch, cuda = str(facts['torch']), facts['cuda']
    if not facts['gpu']:
        return cpu_target(torch, 'no NVIDIA GPU that torch can use: compiling the CPU ops')
    found = re.search(r'release (\d+)\.(\d+)', facts['nvcc'] or '')
    limits = "our configs run on the GPU with them, except those whose header says 'needs DCN'"
    if found is None:
        note = f'NVIDIA GPU, but no CUDA toolkit (nvcc): compiling the CPU ops; {limits}'
        return cpu_target(torch, f'{note}. For CUDA ops install CUDA toolkit {cuda}')
    if cuda is None or found.group(1) != cuda.split('.')[0]:
        note = f'torch is built for CUDA {cuda}, nvcc is {found.group(0)}: compiling the CPU ops'
        return cpu_target(torch, f'{note}; {limits}. For CUDA ops install CUDA toolkit {cuda}')
    arch = facts['arch']
    tag = f'torch{torch}-cp311-{platform.machine()}-cu{found.group(1)}{found.group(2)}-sm{arch}'
    env = {'FORCE_CUDA': '1', 'TORCH_CUDA_ARCH_LIST': str(arch), 'CUDA_HOME': facts['cuda_home']}
    return Target(tag, env, f'NVIDIA GPU and CUDA toolkit {cuda}: compiling the CUDA ops')


def count_jobs() -> int:
    """Return how many compilers to run: cores, but no more than fit into memory."""
    if os.environ.get('MAX_JOBS', '').isdigit():
        return max(1, int(os.environ['MAX_JOBS']))
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    return max(1, min(cores, int(memory // MEMORY_PER_JOB)))


class MmcvBuild:
    """Finds or compiles the mmcv wheel and installs it into ``python``'s environment."""

    def __init__(self, python: Path, state: Path, screen: Screen, env: Mapping[str, str]) -> None:
        self.python, self.state, self.screen, self.env = python, state, screen, dict(env)
        self.log = state / 'mmcv.log'
        keep = os.environ.get(KEEP_VARIABLE)
        self.keep = Path(keep).expanduser().resolve() if keep else state / 'wheels'

    def install(self) -> None:
        """Install mmcv with its ops, compiled on this machine or kept from an earlier time."""
        target = choose_target(self._probe())
        self.screen.say(target.note)
        if self._install_kept(target):
            return
        try:
            self._compile(target)
        except faults.SetupError as error:
            if target.env['FORCE_CUDA'] == '0':
                raise
            target = self._fall_back(error, target)
            if self._install_kept(target):
                return
            self._compile(target)
        if not self._install_kept(target):
            raise faults.SetupError(
                f'load the ops of {NAME}',
                'the compiled mmcv._ext must import, got an error (end of the log)',
                f'delete {self.state / "build"} and {self.keep / target.tag}, {faults.AGAIN}',
                str(self.log),
            )

    def kept_wheels(self, tag: str) -> list[Path]:
        """Return wheels kept for ``tag``, in MMLOSS_WHEELS or in .venv."""
        folders = {self.keep / tag, self.state / 'wheels' / tag}
        return [wheel for folder in folders for wheel in folder.glob(f'{NAME}-*.whl')]

    def _probe(self) -> dict[str, Any]:
        output = run('look at torch', [self.python, '-c', PROBE], self.log, self.screen)
        line = next(line for line in output.splitlines() if line.startswith('PROBE'))
        facts: dict[str, Any] = json.loads(line[len('PROBE') :])
        return facts

    def _install_kept(self, target: Target) -> bool:
        for wheel in self.kept_wheels(target.tag):
            pip = [self.python, '-m', 'pip', 'install', '--no-deps', '--force-reinstall', wheel]
            run(f'install {wheel.name}', pip, self.log, self.screen)
            try:
                load = [self.python, '-c', 'import torch, mmcv._ext, mmcv.ops']
                run(f'load the ops of {NAME}', load, self.log, self.screen)
            except faults.SetupError:
                # Kept on another machine, or for a torch of the same version built differently.
                self.screen.say(f'{wheel} does not load here: not used')
                continue
            self.screen.say(f'installed {wheel}')
            return True
        return False

    def _fall_back(self, error: faults.SetupError, target: Target) -> Target:
        self.screen.say(f'the CUDA ops do not compile here ({error.why}); log: {self.log}')
        torch = target.tag.split('-')[0][len('torch') :]
        note = 'compiling the CPU ops instead: our configs run on the GPU with them, except DCN'
        self.screen.say(note)
        return cpu_target(torch, note)

    def _compile(self, target: Target) -> None:
        source = self._unpack(self._download(), self.state / 'build' / target.tag)
        jobs = count_jobs()
        self.screen.say(
            f'compiling {NAME} with {jobs} processes: 5 to 15 minutes on 2 cores are normal; '
            'after an interruption it goes on where it was'
        )
        env = {**self.env, **target.env, 'MMCV_WITH_OPS': '1', 'MAX_JOBS': str(jobs)}
        # The wheel of an interrupted copy must not be taken for a finished one.
        shutil.rmtree(source / 'dist', ignore_errors=True)
        run(
            f'compile {NAME}',
            [self.python, 'setup.py', 'bdist_wheel'],
            self.log,
            self.screen,
            progress=NinjaProgress(),
            env=env,
            cwd=source,
        )
        self._keep(next((source / 'dist').glob('*.whl')), target.tag)
        shutil.rmtree(source.parent, ignore_errors=True)

    def _keep(self, wheel: Path, tag: str) -> None:
        folder = self.keep / tag
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f'{wheel.name}.part'
        shutil.copyfile(wheel, partial)
        partial.replace(folder / wheel.name)

    def _download(self) -> Path:
        folder = self.state / 'download'
        archive = folder / f'{NAME}.tar.gz'
        if not archive.exists():
            options = ['--no-deps', '--no-binary', 'mmcv', '--no-build-isolation']
            pip = [self.python, '-m', 'pip', 'download', *options, '--dest', folder]
            spec = f'mmcv=={VERSION}'
            what = f'download {NAME}'
            run(what, [*pip, spec], self.log, self.screen, progress=PipProgress())
        return archive

    def _unpack(self, archive: Path, folder: Path) -> Path:
        source = folder / NAME
        if source.exists():
            return source
        partial = folder.with_name(f'{folder.name}.part')
        shutil.rmtree(partial, ignore_errors=True)
        with tarfile.open(archive) as tar:
            tar.extractall(partial)
        partial.replace(folder)
        return source
