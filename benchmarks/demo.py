"""``make demo`` after the set-up: make the data, train with ``mim train mmpose``, draw pictures.

Every step that is done is skipped, and an interrupted training goes on from its last checkpoint,
so the command can be stopped and started at will. The whole output is kept in log files; the
screen shows the lines with the progress.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.train_one import fingerprint
from mmloss_plugins.datasets.figures import generate_figures
from mmloss_plugins.visualization.curves import read_scalars, short_name
from scripts.runner import clock, stop

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / 'configs' / 'pose' / 'simcc'
CONFIG = CONFIGS / 'simcc_mini_tiny-res_figures-64x64.py'
BASELINE = CONFIGS / 'td-hm_mini_tiny-res_figures-64x64.py'
PICTURES = ('predictions.png', 'simcc.png', 'curves.png')
# What a reader of the screen wants of MMEngine's long lines.
SHOWN = re.compile(r'eta|loss|simcc_ratio|coco/AP|.*PCK')
FAST_ITERATIONS, FAST_IMAGES = 20, (64, 32)
FAST_OPTIONS = (
    f'train_cfg.max_iters={FAST_ITERATIONS}',
    'train_cfg.val_interval=10',
    'default_hooks.checkpoint.interval=10',
    'default_hooks.logger.interval=5',
)


class StepError(Exception):
    """A step failed: ``why``, the ``log`` with the whole story, and what to ``do``."""

    def __init__(self, why: str, do: str, log: Path | None = None) -> None:
        super().__init__(why)
        self.why, self.do, self.log = why, do, log

    def text(self, step: str) -> str:
        """Return the message; ``step`` names the step, for example ``step 2 of 3, training``."""
        lines = [f'demo stopped in {step}', f'  why: {self.why}']
        if self.log:
            lines.append(f'  log: {shown(self.log)}')
        return '\n'.join([*lines, f'  do:  {self.do}'])


@dataclass
class Demo:
    """Where the demo reads and writes, and how much it trains.

    Args:
        data: folder that holds, or gets, the data set ``figures``.
        out: folder for the run and the pictures.
        fast: 20 iterations on 64 images instead of the whole config.
    """

    data: Path
    out: Path
    fast: bool = False
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.data, self.out = self.data.resolve(), self.out.resolve()
        if self.fast:
            self.data = self.data / 'fast'
        # The fingerprint keeps a run from resuming the checkpoint of an older config.
        name = f'{CONFIG.stem}_{"fast_" if self.fast else ""}{fingerprint(str(CONFIG))}'
        self.work_dir = self.out / name

    def run(self) -> None:
        """Take the steps one after the other.

        Raises:
            StepError: one failed; the message on the screen says which.
        """
        steps = (('data', self.make_data), ('training', self.train), ('pictures', self.draw))
        for number, (name, step) in enumerate(steps, start=1):
            begin = time.monotonic()
            print(f'\n[{number}/{len(steps)}] {name}', flush=True)
            try:
                step()
            except StepError as error:
                print(error.text(f'step {number} of {len(steps)}, {name}'), file=sys.stderr)
                raise
            self.seconds[name] = time.monotonic() - begin
        print(self.summary(), flush=True)

    def make_data(self) -> None:
        """Write the figure set, or what is missing of it."""
        numbers = FAST_IMAGES if self.fast else ()
        try:
            folder = generate_figures(self.data / 'figures', *numbers)
        except (OSError, ValueError) as error:
            raise StepError(str(error), 'then run make demo again') from error
        print(f'generated human figures are in {shown(folder)}')

    def train(self) -> None:
        """Train with ``mim train mmpose``, from the last checkpoint if there is one."""
        if self.checkpoint() and self.checkpoint().stem == f'iter_{self.iterations()}':
            print(f'trained before: {shown(self.checkpoint())}')
            return
        begun = self.checkpoint()
        print(f'goes on from {shown(begun)}' if begun else f'{self.iterations()} iterations')
        words = ['train', 'mmpose', str(CONFIG), '--work-dir', str(self.work_dir), '--resume']
        options = ['--cfg-options', *FAST_OPTIONS] if self.fast else []
        call([tool('mim'), *words, *options], self.work_dir / 'train.log', self.environment())
        if not self.checkpoint():
            why = f'training must leave a checkpoint, got none in {shown(self.work_dir)}'
            raise StepError(why, 'read the log', self.work_dir / 'train.log')

    def draw(self) -> None:
        """Draw predictions, distributions and curves of the trained model."""
        words = ['-m', 'mmloss_plugins.visualization', str(CONFIG), str(self.checkpoint())]
        command = [sys.executable, *words, '--out', str(self.pictures())]
        call(command, self.work_dir / 'pictures.log', self.environment(), keep=is_picture)

    def checkpoint(self) -> Path | None:
        """Return the newest checkpoint, None before the first."""
        pointer = self.work_dir / 'last_checkpoint'
        if not pointer.is_file():
            return None
        # MMEngine stores an absolute path, which is wrong once the folder has been moved.
        path = self.work_dir / Path(pointer.read_text().strip()).name
        return path if path.is_file() else None

    def pictures(self) -> Path:
        """Return the folder of the pictures."""
        return self.out / ('pictures_fast' if self.fast else 'pictures')

    def iterations(self) -> int:
        """Return how many iterations the training has."""
        from mmengine.config import Config

        return FAST_ITERATIONS if self.fast else Config.fromfile(CONFIG).train_cfg.max_iters

    def environment(self) -> dict[str, str]:
        """Return the environment of the commands."""
        # Two OpenMP threads on a shared machine can be ten times slower than one.
        threads = os.environ.get('OMP_NUM_THREADS', '1')
        own = dict(MMLOSS_DATA=str(self.data), OMP_NUM_THREADS=threads, PYTHONUNBUFFERED='1')
        return {**os.environ, **own}

    def summary(self) -> str:
        """Return the last block of the screen: numbers, files, what to type next."""
        scalars = read_scalars(self.work_dir)
        steps = ', '.join(f'{name} {clock(taken)}' for name, taken in self.seconds.items())
        config, checkpoint = shown(CONFIG), shown(self.checkpoint())
        mim = shown(Path(tool('mim')))
        prefix = '' if self.data == ROOT / 'data' else f'MMLOSS_DATA={shown(self.data)} '
        lines = [f'\ndone in {clock(sum(self.seconds.values()))} ({steps})\n']
        for metric in scalars.metrics():
            found, values = scalars.series(metric)
            lines.append(f'  {short_name(metric):<12}{values[-1]:.3f}   val, iteration {found[-1]}')
        lines.append('')
        lines.append(f'  log         {shown(self.work_dir / "train.log")}')
        lines.append(f'  checkpoint  {checkpoint}')
        lines.extend(f'  picture     {shown(self.pictures() / name)}' for name in PICTURES)
        lines.append('\nnext, for example')
        lines.append(f'  {prefix}{mim} test mmpose {config} --checkpoint {checkpoint}')
        lines.append(f'  {prefix}{mim} train mmpose {shown(BASELINE)}   # the heatmap baseline')
        return '\n'.join(lines)


def call(
    command: Sequence[str],
    log: Path,
    env: Mapping[str, str],
    keep: Callable[[str], str] | None = None,
) -> None:
    """Run ``command`` with its output in ``log`` and the lines that ``keep`` gives on the screen.

    Raises:
        StepError: it cannot be started, or its exit status is not 0.
    """
    keep = keep or Progress()
    log.parent.mkdir(parents=True, exist_ok=True)
    # Not in this folder: neither the config nor the package may be found by accident.
    options = dict(env=dict(env), cwd=log.parent, start_new_session=True, encoding='utf-8')
    print('$', ' '.join(shown(word) for word in command), flush=True)
    last = 'no output'
    with log.open('a', encoding='utf-8') as out:
        out.write(f'$ {" ".join(command)}\n')
        try:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                errors='replace',
                **options,
            )
        except OSError as error:
            why = f'{command[0]} must start, got {error.strerror}'
            raise StepError(why, 'complete the set-up: make setup', log) from error
        try:
            for line in child.stdout:
                out.write(line)
                out.flush()
                text = keep(line.rstrip())
                if text:
                    print(text, flush=True)
                last = line.strip() or last
            child.wait()
        except BaseException:
            stop(child)
            raise
    if child.returncode:
        why = f'the command must exit with status 0, got {child.returncode} after: {last[:300]}'
        do = 'read the end of the log, repair what it names, run make demo again: it goes on here'
        raise StepError(why, do, log)


class Progress:
    """Picks the lines of a training that tell how far it is, and all of an error."""

    def __init__(self) -> None:
        self.failed = False

    def __call__(self, line: str) -> str:
        self.failed |= line.startswith('Traceback')
        if self.failed:
            return line
        text = re.sub(r'^.* - mmengine - \w+ - ', '', line)
        if text.startswith(('Iter(train)', 'Iter(val)')):
            return shorten(text)
        return text if text.startswith('resumed') else ''


def shorten(line: str) -> str:
    """Return a progress line of MMEngine without what only a log needs.

    Example:
        >>> shorten('Iter(train) [ 50/2000]  base_lr: 2.0e-03  eta: 0:01:10  loss: 3.9581')
        'Iter(train) [ 50/2000]  eta: 0:01:10  loss: 3.9581'
    """
    head, *fields = re.split(r'\s{2,}(?=\S+(?: \S+)?: )', line)
    return '  '.join(
        [head, *(item for item in fields if SHOWN.fullmatch(item.rpartition(': ')[0]))]
    )


def is_picture(line: str) -> str:
    """Return the line if it names a picture, or says why there is none."""
    return shown(line) if line.endswith('.png') or line.startswith('No ') else ''


def shown(path: str | Path) -> str:
    """Return ``path`` relative to the folder of the user if it lies in it."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def tool(name: str) -> str:
    """Return the command ``name`` of this Python's environment."""
    return str(Path(sys.executable).with_name(name))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo and return the exit status."""
    if not os.environ.get('MMLOSS_DATA'):
        os.environ.pop('MMLOSS_DATA', None)  # MMEngine takes an empty one for a missing one
    parser = argparse.ArgumentParser(prog='python -m benchmarks.demo', description=__doc__)
    parser.add_argument(
        '--data',
        type=Path,
        default=Path(os.environ.get('MMLOSS_DATA') or ROOT / 'data'),
        help='folder that holds, or gets, the data set; MMLOSS_DATA or data/ if not given',
    )
    parser.add_argument(
        '--out', type=Path, default=ROOT / 'work_dirs' / 'demo', help='folder of run and pictures'
    )
    parser.add_argument(
        '--fast', action='store_true', help='a few iterations on a few images: does it work at all?'
    )
    options = parser.parse_args(arguments)
    # A closed terminal must not leave a training behind that the next demo would race with.
    for name in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.default_int_handler)
    try:
        Demo(options.data, options.out, options.fast).run()
    except StepError:
        return 1
    except KeyboardInterrupt:
        print('\nstopped. The same command goes on from the last checkpoint.', file=sys.stderr)
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main())
