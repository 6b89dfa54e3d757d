"""The steps that turn an empty checkout into a working .venv; none is done twice."""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scripts import compiler, faults, mmcv_build
from scripts.develop import INSTALL, link_mim, mim_links
from scripts.distributions import drop_partial, installed, normalise, read_pins
from scripts.relocate import relocate
from scripts.runner import PipProgress, Screen, run

ROOT = Path(__file__).resolve().parent.parent
PYTHON_TAG = f'{sys.version_info.major}.{sys.version_info.minor}'
HOST_IMPORTS = ('mmcv.ops', 'mmpose.apis', 'mmdet.apis', 'mim', 'mmloss_plugins.registry')
NEEDED_BYTES = 9 * 2**30


@dataclass(frozen=True)
class Step:
    """One step: done when its key is on file, its pins are installed and its links stand."""

    name: str
    title: str
    inputs: str
    action: Callable[[Screen], None]
    pins: tuple[str, ...] = ()
    links: tuple[Path, ...] = ()

    @property
    def key(self) -> str:
        """Hash of everything that makes the step's result out of date."""
        return hashlib.sha256(f'{self.name}\n{PYTHON_TAG}\n{self.inputs}'.encode()).hexdigest()


class Environment:
    """The .venv of the checkout at ``root`` and the record of what was done in it."""

    def __init__(self, root: Path = ROOT) -> None:
        self.root, self.venv = root, root / '.venv'
        self.state = self.venv / '.setup'
        self.python = self.venv / 'bin' / 'python'
        self.site_packages = self.venv / 'lib' / f'python{PYTHON_TAG}' / 'site-packages'

    def steps(self, dev: bool) -> list[Step]:
        """Return all steps in order; ``dev`` adds what the tests and checks need."""
        torch = self._requirements('torch')
        release = self._text('mmloss_plugins/__init__.py')
        package = '\n'.join((str(self.root), self._text('setup.py'), release))
        steps = [
            Step('venv', 'virtual environment .venv', '', self._make_venv),
            self._pip_step('build', 'build tools'),
            self._pip_step('torch', 'torch and torchvision (a download of 2 to 3 GB)'),
            self._pip_step('runtime', 'what the hosts import'),
            Step(
                'mmcv',
                f'{mmcv_build.NAME} with its ops',
                f'{mmcv_build.NAME} {torch} {mmcv_build.fingerprint()}',
                self._install_mmcv,
                (f'mmcv=={mmcv_build.VERSION}',),
            ),
            self._pip_step('hosts', 'mmdet, mmpose, openmim', '--no-deps'),
        ]
        if dev:
            steps.append(self._pip_step('dev', 'test and lint tools'))
        links = tuple(mim_links(self.site_packages))
        step = Step('package', 'this checkout', package, self._install_package, links=links)
        steps.append(step)
        everything = '\n'.join(step.key for step in steps if step.name not in ('dev', 'package'))
        steps.append(Step('check', 'import the hosts', everything, self._check_imports))
        return steps

    def is_done(self, step: Step, present: set[str]) -> bool:
        """Tell whether ``step`` was done with the same inputs and its result is still there."""
        stamp = self.state / f'{step.name}.done'
        if not stamp.is_file() or stamp.read_text(encoding='utf-8') != step.key:
            return False
        links_stand = all(link.is_symlink() for link in step.links)
        return links_stand and all(normalise(pin) in present for pin in step.pins)

    def mark(self, step: Step) -> None:
        """Put on file that ``step`` is done."""
        (self.state / f'{step.name}.done').write_text(step.key, encoding='utf-8')

    def forget(self) -> None:
        """Drop the record of steps; kept wheels and downloads stay."""
        for stamp in self.state.glob('*.done'):
            stamp.unlink()

    def is_usable(self) -> bool:
        """Tell whether .venv has a running Python of the version that runs this script."""
        command = [str(self.python), '-c', 'import sys, pip; print("%d.%d" % sys.version_info[:2])']
        try:
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError):
            return False
        return output.strip() == PYTHON_TAG

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep a second set-up of the same checkout waiting until the first one is through."""
        self.state.mkdir(parents=True, exist_ok=True)
        with (self.state / 'lock').open('w') as handle:
            os.set_inheritable(handle.fileno(), True)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                print('set-up: another one is at work in this checkout, waiting for it', flush=True)
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def _text(self, name: str) -> str:
        path = self.root / name
        return path.read_text(encoding='utf-8') if path.is_file() else ''

    def _requirements(self, name: str) -> str:
        return '\n'.join(read_pins(self._text(f'requirements/{name}.txt')))

    def _pip_step(self, name: str, title: str, *options: str) -> Step:
        pins = self._requirements(name)

        def action(screen: Screen) -> None:
            self._pip(name, screen, [*options, '-r', f'requirements/{name}.txt'])

        inputs = ' '.join((*options, pins, self._requirements('constraints')))
        return Step(name, title, inputs, action, tuple(pins.splitlines()))

    def _pip(self, name: str, screen: Screen, words: Sequence[str]) -> None:
        drop_partial(self.site_packages)
        # The pip that a new environment starts with does not know `raw`.
        bar = 'off' if name == 'build' else 'raw'
        command = [self.python, '-m', 'pip', 'install', '--disable-pip-version-check']
        options = ['--progress-bar', bar, '-c', 'requirements/constraints.txt', *words]
        log = self.state / f'{name}.log'
        what = f'install requirements/{name}.txt'
        run(what, [*command, *options], log, screen, progress=PipProgress(), cwd=self.root)

    def _make_venv(self, screen: Screen) -> None:
        if self.is_usable():
            screen.say(f'using the environment that is there: {self.venv}')
            return
        for path in self.venv.iterdir():
            # The kept mmcv wheel lives in the record folder and outlasts the environment.
            if path != self.state:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        log = self.state / 'venv.log'
        run('create .venv', [sys.executable, '-m', 'venv', self.venv], log, screen)

    def _install_mmcv(self, screen: Screen) -> None:
        env = {'CXX': compiler.find() or 'g++'}
        mmcv_build.MmcvBuild(self.python, self.state, screen, env).install()

    def _install_package(self, screen: Screen) -> None:
        log = self.state / 'package.log'
        run('install this checkout', [self.python, *INSTALL], log, screen, cwd=self.root)
        link_mim(self.site_packages, self.root)

    def _check_imports(self, screen: Screen) -> None:
        log = self.state / 'check.log'
        for name in HOST_IMPORTS:
            screen.status(f'import {name}')
            try:
                run(f'import {name}', [self.python, '-c', f'import {name}'], log, screen)
            except faults.SetupError as error:
                error.todo = f'see what `make doctor` says; {error.todo}'
                raise


def check_machine(env: Environment, pending: Sequence[Step]) -> None:
    """Find in a second what would fail minutes later.

    Raises:
        SetupError: a tool that a pending step needs is missing.
    """
    names = {step.name for step in pending}
    if 'venv' in names and not env.is_usable():
        try:
            import ensurepip
            import venv  # noqa: F401
        except ImportError as error:
            raise faults.SetupError('create .venv', *faults.NO_ENSUREPIP) from error
        del ensurepip
    kept = os.environ.get(mmcv_build.KEEP_VARIABLE)
    folders = [env.state / 'wheels', *([Path(kept).expanduser()] if kept else [])]
    has_wheel = any(any(folder.glob(f'*/{mmcv_build.NAME}-*.whl')) for folder in folders)
    if 'mmcv' in names and not has_wheel:
        compiler.check()
    free = shutil.disk_usage(env.root).free
    if 'torch' in names and free < NEEDED_BYTES:
        print(f'set-up: {free / 2**30:.1f} GB free here, a first set-up needs about 9 GB')


def set_up(env: Environment, dev: bool) -> None:
    """Do every step that is not done yet."""
    relocate(env.venv)
    steps = env.steps(dev)
    if not env.is_usable():
        env.forget()
    present = installed(env.site_packages)
    pending = [step for step in steps if not env.is_done(step, present)]
    if not pending:
        return
    check_machine(env, pending)
    for step in pending:
        place = f'{steps.index(step) + 1}/{len(steps)}'
        screen = Screen(f'[{place}]')
        screen.say(step.title)
        try:
            step.action(screen)
        except faults.SetupError as error:
            screen.say('failed')
            raise SystemExit(error.text(f'step {place} ({step.title})')) from error
        except KeyboardInterrupt:
            screen.say('interrupted; the same command continues here')
            raise SystemExit(130) from None
        env.mark(step)
        screen.done()


def main(arguments: Sequence[str]) -> int:
    """Run the set-up from the command line."""
    parser = argparse.ArgumentParser(prog='bootstrap.py', description=__doc__)
    parser.add_argument('--dev', action='store_true', help='install test and lint tools as well')
    dev = parser.parse_args(arguments).dev
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    env = Environment()
    try:
        with env.lock():
            set_up(env, dev)
    except faults.SetupError as error:
        print(error.text('the look at this machine'), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        cause = faults.explain(str(error), 1)
        print(faults.SetupError('write in .venv', *cause).text('set-up'), file=sys.stderr)
        return 1
    return 0
