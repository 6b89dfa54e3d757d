"""Tables of benchmarks/README.md from the result files of ``benchmarks.speed``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.environment import ROOT

README = ROOT / 'benchmarks' / 'README.md'
MARKERS = '<!-- speed: begin -->', '<!-- speed: end -->'
HEADER = ('ours', 'against', 'total', 'forward', 'backward', 'memory', 'bar')
GPU_HEADER = ('ours', 'against', 'time of ours', *HEADER[2:])
MISSING = '-'


def update_readme(folder: Path, readme: Path = README) -> str:
    """Write the tables of all results in ``folder`` into ``readme``; return them."""
    block = '\n\n'.join(file_section(file) for file in sorted(folder.glob('speed-*.json')))
    text = readme.read_text()
    begin, end = MARKERS
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    readme.write_text(f'{before}{begin}\n{block}\n{end}{after}')
    return block


def file_section(file: Path) -> str:
    """Return the heading and tables of one result file."""
    content = json.loads(file.read_text())
    sections = [f'### {file.stem}']
    for row in content['rows'].values():
        sections.append(f'**{row["title"]}**')
        sections.append(row_table(row))
        sections.extend(absent_lines(row['contenders']))
        sections.append(origin(row))
    return '\n\n'.join(sections)


def row_table(row: Mapping[str, Any]) -> str:
    """Return the Markdown table of one row: a line per pair of ours and another contender."""
    gpu = row['settings']['device'] == 'cuda'
    header = GPU_HEADER if gpu else HEADER
    lines = [markdown(header), '|' + '---|' * len(header)]
    for pair in row['ratios']:
        cells = [pair['ours'], pair['other']]
        if gpu:
            seconds = row['contenders'][pair['ours']]['seconds']['total'][1]
            cells.append(f'{1e6 * seconds:.0f} us')
        cells += [spread(pair['total']), middle(pair['forward']), middle(pair['backward'])]
        cells += [MISSING if pair['memory'] is None else times(pair['memory']), bar(pair)]
        lines.append(markdown(cells))
    return '\n'.join(lines)


def absent_lines(contenders: Mapping[str, Any]) -> list[str]:
    """Return a line for each contender that could not be built."""
    return [f'{name}: absent ({c["absent"]})' for name, c in contenders.items() if 'absent' in c]


def origin(row: Mapping[str, Any]) -> str:
    """Return where a row comes from, in one line."""
    settings = row['settings']
    machine, versions = settings['machine'], settings['versions']
    processor = machine.get('gpu', machine['cpu'])
    shown = ', '.join(f'{name} {versions[name]}' for name in ('torch', 'mmpose') if versions[name])
    threads = f'{settings["threads"]} thread{"s" if settings["threads"] > 1 else ""}'
    load = ' to '.join(f'{value:g}' for value in row['load'])
    return (
        f'<sub>{processor}, {threads}, {shown}, commit {row["commit"]}, '
        f'{settings["rounds"]} rounds, load {load}: `{row["command"]}`</sub>'
    )


def bar(pair: Mapping[str, Any]) -> str:
    """Return the bars of a pair, of time and of memory, and whether they were met."""
    # Results from before there were bars of memory have none.
    asked = [('', pair['bar'], pair['met'])]
    asked.append(('memory ', pair.get('memory_bar'), pair.get('memory_met')))
    return ', '.join(
        f'{what}{times(value)}: {"met" if met else "**missed**"}'
        for what, value, met in asked
        if value is not None
    )


def spread(values: Sequence[float] | None) -> str:
    """Return median and quartiles."""
    if values is None:
        return MISSING
    return f'{times(values[1])} ({times(values[0])} to {times(values[2])})'


def middle(values: Sequence[float] | None) -> str:
    """Return the median."""
    return MISSING if values is None else times(values[1])


def times(value: float) -> str:
    """Return a ratio with three digits."""
    return f'{value:.3g}'


def markdown(cells: Sequence[str]) -> str:
    return '| ' + ' | '.join(cells) + ' |'
