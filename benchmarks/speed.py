"""``python -m benchmarks.speed [NAME ...]``: time and memory of ours beside the hosts.

A NAME is a family (simcc) or one of its rows (simcc/encode); all families if none is given. Each
row is written when it is done, so that an interrupted run goes on with the next one; a row that
was measured with the same code, versions, device and settings is not measured again.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import json
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.environment import ROOT, describe_environment, source_hash
from benchmarks.harness import Row, measure
from benchmarks.rows import FAMILIES
from benchmarks.speed_table import README, update_readme
from mmloss_plugins.errors import check_choice
from scripts.runner import Screen, clock

RESULTS = ROOT / 'benchmarks' / 'results'
MEASURED_CODE = ('mmloss_plugins', 'benchmarks/harness.py', 'benchmarks/rows')
# Long against the clock's resolution and the cost of reading it.
SAMPLE_SECONDS = 2e-3
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3

Result = dict[str, Any]


def make_rows(family: str, device: torch.device, seed: int) -> list[Row]:
    """Return the rows of ``family`` for ``device``."""
    rows: list[Row] = importlib.import_module(f'benchmarks.rows.{family}').make_rows(device, seed)
    return rows


def select(
    names: Sequence[str], families: Sequence[str], device: torch.device, seed: int
) -> dict[str, list[Row]]:
    """Return the chosen rows by family.

    Raises:
        ValueError: a name is neither a family nor a row of one on this device.
    """
    rows = {family: make_rows(family, device, seed) for family in families}
    known = {f'{family}/{row.name}' for family in families for row in rows[family]}
    for name in names:
        check_choice('speed', 'NAME', name, [*families, *sorted(known)])
    if not names:
        return rows
    chosen = {
        family: [row for row in rows[family] if {family, f'{family}/{row.name}'} & set(names)]
        for family in families
    }
    return {family: kept for family, kept in chosen.items() if kept}


def settings_of(args: argparse.Namespace, environment: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a stored row must share with this run to be kept."""
    return {
        'source': source_hash(MEASURED_CODE),
        'versions': environment['versions'],
        'machine': environment['machine'],
        'device': args.device,
        'threads': args.threads,
        'rounds': args.repeats,
        'seed': args.seed,
        'keeps_pages': args.keep_pages,
    }


def run(chosen: Mapping[str, list[Row]], args: argparse.Namespace) -> list[Path]:
    """Measure what is not stored yet; return the result files."""
    screen = Screen('speed')
    todo = [(family, row) for family, rows in chosen.items() for row in rows]
    settings = settings_of(args, describe_environment())
    begin, measured = time.monotonic(), 0
    files = []
    for position, (family, row) in enumerate(todo, 1):
        file = result_file(args.out, family, args)
        files.append(file)
        label = f'[{position}/{len(todo)}] {family}/{row.name}'
        stored = load(file)
        if stored.get(row.name, {}).get('settings') == settings:
            screen.say(f'{label}: kept from an earlier run')
            continue
        environment = describe_environment()
        report = partial(report_status, screen, label)
        outcome = measure(row, args.repeats, SAMPLE_SECONDS, args.seed, report)
        stored[row.name] = {**outcome, 'settings': settings, **provenance(environment, args)}
        write(file, family, stored)
        measured += 1
        left = (time.monotonic() - begin) / measured * (len(todo) - position)
        screen.say(f'{label}: done, about {clock(left)} left')
        for line in summary(outcome):
            screen.say(f'    {line}')
    return list(dict.fromkeys(files))


def report_status(screen: Screen, label: str, text: str) -> None:
    screen.status(f'{label}: {text}')


def provenance(environment: Mapping[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """Return commit, command and load before and after the row."""
    loads = [environment['load'], describe_environment()['load']]
    return {'commit': environment['commit'], 'command': args.command, 'load': loads}


def summary(outcome: Mapping[str, Any]) -> list[str]:
    """Return one line per pair of ours and a peer, and the reason of each absent peer."""
    lines = [line for pair in outcome['ratios'] for line in summary_of_pair(pair)]
    for name, line in outcome['contenders'].items():
        if 'absent' in line:
            lines.append(f'{name}: absent, {line["absent"]}')
    return lines


def summary_of_pair(pair: Mapping[str, Any]) -> list[str]:
    """Return a line on time where there is one, and a line on memory where there is a bar."""
    texts = []
    if pair['total'] is not None:
        low, middle, high = pair['total']
        text = f'{middle:.3g} ({low:.3g} to {high:.3g}) x as fast as {pair["other"]}'
        texts.append((text, pair['bar'], pair['met']))
    if pair['memory_bar'] is not None:
        text = f'{pair["memory"]:.3g} x less memory than {pair["other"]}'
        texts.append((text, pair['memory_bar'], pair['memory_met']))
    return [
        f'{pair["ours"]}: {text}{"" if bar is None else f", bar {bar:g}"}'
        f'{" MISSED" if met is False else ""}'
        for text, bar, met in texts
    ]


def result_file(folder: Path, family: str, args: argparse.Namespace) -> Path:
    """Return the file of a family on one kind of device."""
    kept = '-keep-pages' if args.keep_pages else ''
    return folder / f'speed-{family}-{args.device}{kept}.json'


def load(file: Path) -> dict[str, Result]:
    """Return the stored rows by name, none where there is no file."""
    rows: dict[str, Result] = json.loads(file.read_text())['rows'] if file.is_file() else {}
    return rows


def write(file: Path, family: str, rows: Mapping[str, Result]) -> None:
    """Replace ``file`` as a whole: an interruption leaves the old one or the new one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix('.tmp')
    unfinished.write_text(json.dumps({'family': family, 'rows': rows}, indent=1) + '\n')
    unfinished.replace(file)


def keep_pages() -> None:
    """Let glibc keep freed memory instead of handing it back to the system.

    By default it may give the top of the heap back after every step and fault it in again in the
    next one, which depends on what else lies on the heap and costs most where most is allocated.

    Raises:
        OSError: the C library is not glibc.
    """
    try:
        mallopt = ctypes.CDLL('libc.so.6').mallopt
    except (OSError, AttributeError) as error:
        raise OSError('speed: --keep-pages must run on glibc, got another C library') from error
    mallopt(M_MMAP_THRESHOLD, 2**30)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m benchmarks.speed', description=__doc__)
    parser.add_argument('names', nargs='*', metavar='NAME', help='families or rows; all if none')
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
    parser.add_argument('--threads', type=int, default=1, help='threads of torch (default: 1)')
    parser.add_argument('--out', type=Path, default=RESULTS, help='folder of the result files')
    parser.add_argument('--repeats', type=int, default=60, help='rounds per row (default: 60)')
    parser.add_argument('--seed', type=int, default=0, help='of inputs and order (default: 0)')
    parser.add_argument('--keep-pages', action='store_true', help=first_line(keep_pages))
    parser.add_argument('--list', action='store_true', help='print the rows and stop')
    parser.add_argument(
        '--table', action='store_true', help=f'write {README.name} from the results and stop'
    )
    args = parser.parse_args(arguments)
    args.command = command_of(args)
    if args.device == 'cuda' and not torch.cuda.is_available():
        parser.error('--device cuda needs a torch that sees a GPU: install a CUDA build of torch')
    return args


def command_of(args: argparse.Namespace) -> str:
    """Return the command that repeats this run, without its folder."""
    numbers = f'--threads {args.threads} --repeats {args.repeats} --seed {args.seed}'
    words = ['python -m benchmarks.speed', *args.names, f'--device {args.device}', numbers]
    return ' '.join([*words, '--keep-pages'] if args.keep_pages else words)


def first_line(function: Any) -> str:
    return str(function.__doc__).splitlines()[0]


def main(arguments: Sequence[str] | None = None, families: Sequence[str] = FAMILIES) -> int:
    """Run the command line; return its exit status."""
    args = parse(arguments)
    if args.table:
        print(update_readme(args.out))
        return 0
    torch.set_num_threads(args.threads)
    chosen = select(args.names, families, torch.device(args.device), args.seed)
    if args.list:
        for family, rows in chosen.items():
            for row in rows:
                print(f'{family}/{row.name}: {row.title}')
        return 0
    if args.keep_pages:
        keep_pages()
    for file in run(chosen, args):
        print(f'speed: {file}')
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
