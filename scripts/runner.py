"""Runs one command of the set-up: output to a log, progress to the screen, Ctrl-C to the child."""

from __future__ import annotations

import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TextIO

from scripts import faults

QUIET_SECONDS = 20.0
# Each of these would send an installation somewhere else than into .venv.
MISLEADING = ('PYTHONHOME', 'PYTHONPATH', 'PIP_USER', 'PIP_TARGET', 'PIP_PREFIX', 'PIP_ROOT')


def child_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of the set-up's commands."""
    env = {name: value for name, value in os.environ.items() if name not in MISLEADING}
    # Translated compiler messages would not be recognised in faults.py.
    env.update(LC_ALL='C.UTF-8', PYTHONNOUSERSITE='1', PIP_NO_INPUT='1', PYTHONUNBUFFERED='1')
    env.update(extra or {})
    return env


def clock(seconds: float) -> str:
    """Return ``seconds`` as ``m:ss``."""
    minutes, rest = divmod(round(seconds), 60)
    return f'{minutes}:{rest:02d}'


class Screen:
    """One status line that renews itself on a terminal, a line now and then in a log."""

    def __init__(self, prefix: str, stream: TextIO | None = None) -> None:
        self.prefix, self.stream = prefix, stream or sys.stdout
        self.start = time.monotonic()
        self.shown_at, self.shown = 0.0, ''
        self.live = self.stream.isatty()

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self._clear()
        print(f'{self.prefix} {text}', file=self.stream, flush=True)

    def status(self, text: str) -> None:
        """Renew the status line; outside of a terminal at most every 20 seconds."""
        now = time.monotonic()
        line = f'{self.prefix} {clock(now - self.start)} {text}'
        if self.live:
            width = shutil.get_terminal_size().columns - 1
            print(f'\r{line[:width]:<{width}}', end='', file=self.stream, flush=True)
            self.shown = line
        elif now - max(self.shown_at, self.start) >= QUIET_SECONDS:
            print(line, file=self.stream, flush=True)
            self.shown_at = now

    def done(self, text: str = 'done') -> None:
        """Print how long it took."""
        self.say(f'{text} in {clock(time.monotonic() - self.start)}')

    def _clear(self) -> None:
        if self.live and self.shown:
            print('\r' + ' ' * (shutil.get_terminal_size().columns - 1), end='\r', file=self.stream)
            self.shown = ''


class PipProgress:
    """Turns pip's output into a short status text."""

    def __init__(self) -> None:
        self.text = 'starting'

    def __call__(self, line: str) -> str:
        raw = re.match(r'Progress (\d+) of (\d+)', line)
        if raw:
            done, total = (int(number) / 2**20 for number in raw.groups())
            return f'{self.text} {done:.0f} of {total:.0f} MB'
        named = re.match(r'\s*(Collecting|Downloading|Installing|Building|Using cached) (.*)', line)
        if named:
            verb, name = named.group(1), named.group(2).split(' ')[0]
            name = name.rsplit('/', 1)[-1]
            # torch-2.12.1-cp311-...whl: the platform would push the megabytes off the screen.
            short = '-'.join(name.split('-')[:2]) if name.endswith('.whl') else name
            self.text = f'{verb} {short}'
            if line.startswith('Installing collected'):
                self.text = f'Installing, number of packages: {line.count(",") + 1}'
        return self.text


class NinjaProgress:
    """Turns ninja's ``[k/n]`` into files done and time left."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.text, self.now = 'preparing', now
        self.first: float | None = None

    def __call__(self, line: str) -> str:
        found = re.match(r'\[(\d+)/(\d+)\]', line)
        if found is None:
            return self.text
        done, total = (int(number) for number in found.groups())
        if self.first is None:
            self.first = self.now()
        if done < 2:
            self.text = f'[{done}/{total}] files compiled'
            return self.text
        # ninja counts a file when it is done: the first one gives the start of the clock.
        left = (self.now() - self.first) / (done - 1) * (total - done)
        self.text = f'[{done}/{total}] files compiled, about {clock(left)} left'
        return self.text


def run(
    what: str,
    command: Sequence[str | Path],
    log: Path,
    screen: Screen,
    *,
    progress: Callable[[str], str] | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> str:
    """Run ``command`` and return its output, which is also appended to ``log``.

    Raises:
        SetupError: the command failed; carries the probable cause.
    """
    words = [str(word) for word in command]
    try:
        child = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=child_environment(env),
            cwd=cwd,
            # Own group: an interruption reaches compilers that pip or ninja started as well.
            start_new_session=True,
            # The lock is inherited: a set-up that starts after this one was killed waits for a
            # pip that is still writing.
            close_fds=False,
            encoding='utf-8',
            errors='replace',
        )
    except OSError as error:
        raise faults.SetupError(what, *faults.explain(str(error), 127), str(log)) from error
    try:
        output = _follow(child, words, log, screen, progress or (lambda line: what))
    except BaseException:
        stop(child)
        raise
    if child.returncode:
        free = shutil.disk_usage(log.parent).free
        cause = faults.explain(output, child.returncode, free)
        raise faults.SetupError(what, cause.why, cause.todo, str(log))
    return output


def stop(child: subprocess.Popen[str]) -> None:
    """End ``child`` and what it started: politely (ninja cleans up), then for good."""
    for name, patience in ((signal.SIGINT, 5), (signal.SIGKILL, 5)):
        try:
            os.killpg(child.pid, name)
            child.wait(patience)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def _follow(
    child: subprocess.Popen[str],
    words: Sequence[str],
    log: Path,
    screen: Screen,
    progress: Callable[[str], str],
) -> str:
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        assert child.stdout is not None
        for line in child.stdout:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    kept: list[str] = []
    text = progress('')
    with log.open('a', encoding='utf-8') as out:
        out.write(f'$ {" ".join(words)}\n')
        while True:
            try:
                line = lines.get(timeout=1.0)
            except queue.Empty:
                screen.status(text)
                continue
            if line is None:
                break
            text = progress(line)
            screen.status(text)
            if not line.startswith('Progress '):
                kept.append(line)
                out.write(line)
                out.flush()
        child.wait()
        out.write(f'exit status {child.returncode}\n')
    return ''.join(kept)
