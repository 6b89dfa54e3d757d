"""What the generated sets share around their files: arguments, progress, errors, command line."""

from __future__ import annotations

import argparse
import errno
import operator
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mmloss_plugins.errors import message

from .generated_files import SPLITS, SplitFiles


def checked_integer(what: str, name: str, value: int, low: int, high: int) -> int:
    """Return ``value`` as an int.

    Raises:
        TypeError: it is not an integer.
        ValueError: it is outside ``low`` to ``high``.
    """
    rule = f'be an integer from {low} to {high}'
    if isinstance(value, bool) or not hasattr(value, '__index__'):
        raise TypeError(message(what, name, rule, repr(value), f'Pass {name} as an int'))
    number = operator.index(value)
    if not low <= number <= high:
        raise ValueError(message(what, name, rule, number, f'Choose {name} in this range'))
    return number


def write_splits(
    what: str, out: Path, splits: Sequence[SplitFiles], progress: bool, room: str
) -> None:
    """Write what is missing of the splits.

    Args:
        what: the function that the user called, for messages.
        out: folder of the set.
        splits: all splits of the set.
        progress: show a bar with the remaining time on stderr.
        room: what a set takes on the disk, as a phrase for the message on a full one.

    Raises:
        ValueError: the folder holds another set.
        OSError: the folder cannot be written, or the disk is full.
    """
    try:
        # Every split is looked at before one is written: a refused call changes nothing.
        plans = [(split, *split.state()) for split in splits]
        total = sum(len(todo) for _, _, todo in plans)
        with _progress(total, progress) as advance:
            for split, labels, todo in plans:
                split.complete(labels, todo, advance)
    except OSError as error:
        raise _unwritable(what, out, error, room) from error


def run_command(
    generate: Callable[..., Path],
    set_name: str,
    description: str,
    numbers: tuple[int, int],
    argv: list[str] | None,
) -> int:
    """Run the command line of a set; return the exit code.

    Args:
        generate: writes the set, called with the folder, the numbers of training and validation
            images, their side, the seed and whether to show progress.
        set_name: name of the module, and how the annotation files begin.
        description: for ``--help``.
        numbers: training and validation images by default.
        argv: arguments; None stands for those of the process.
    """
    parser = argparse.ArgumentParser(
        prog=f'python -m mmloss_plugins.datasets.{set_name}', description=description
    )
    parser.add_argument('out', help='folder of the set; made if it is missing')
    parser.add_argument('--num-train', type=int, default=numbers[0], metavar='N')
    parser.add_argument('--num-val', type=int, default=numbers[1], metavar='N')
    parser.add_argument('--image-size', type=int, default=128, metavar='PIXELS')
    parser.add_argument('--seed', type=int, default=0, metavar='N')
    parser.add_argument('--quiet', action='store_true', help='show no progress')
    args = parser.parse_args(argv)
    try:
        out = generate(
            args.out, args.num_train, args.num_val, args.image_size, args.seed, not args.quiet
        )
    except (ImportError, OSError, ValueError) as error:
        print(getattr(error, 'strerror', None) or error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('\nStopped. The same command goes on from here.', file=sys.stderr)
        return 130
    for name, num in zip(SPLITS, (args.num_train, args.num_val)):
        print(f'{name}: {num} images in {out / "images" / name}')
        print(f'{name}: labels in {out / "annotations" / f"{set_name}_{name}.json"}')
    return 0


@contextmanager
def _progress(total: int, shown: bool) -> Iterator[Callable[[], None]]:
    """Yield a function to call after each image; keeps OpenCV on one thread meanwhile."""
    if not total:
        yield lambda: None
        return
    import cv2

    threads = cv2.getNumThreads()
    # Small pictures: waking threads costs more than they save.
    cv2.setNumThreads(1)
    try:
        yield _bar(total) if shown else lambda: None
    finally:
        cv2.setNumThreads(threads)


def _bar(total: int) -> Callable[[], None]:
    """Return a function that moves MMEngine's bar: often on a terminal, seldom in a log."""
    from mmengine.utils import ProgressBar

    terminal = sys.stderr.isatty()
    pause, ending = (0.2, '') if terminal else (3.0, '\n')
    bar = None
    waiting, last = 0, time.monotonic()

    def advance() -> None:
        nonlocal bar, waiting, last
        # Not before the first image: a folder that cannot be written gets no bar.
        bar = bar or ProgressBar(total, bar_width=30, file=sys.stderr)
        waiting += 1
        finished = bar.completed + waiting >= total
        if not finished and time.monotonic() - last < pause:
            return
        bar.update(waiting)
        sys.stderr.write('\n' if finished else ending)
        sys.stderr.flush()
        waiting, last = 0, time.monotonic()

    return advance


def _unwritable(what: str, out: Path, error: OSError, room: str) -> OSError:
    got = f"'{out}' ({error.strerror or error})"
    step = (
        f'Free some space ({room}), set the rights or take '
        'another folder; the next call goes on where this one stopped'
    )
    text = message(what, 'out_dir', 'be a folder that can be written and has room', got, step)
    return OSError(error.errno or errno.EIO, text)
