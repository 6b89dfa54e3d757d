"""Table and chart of a claim from the result JSONs of its runs."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

from benchmarks.claim_list import ROOT, Claim

Result = dict[str, Any]


def load_result(file: Path) -> Result | None:
    """Return the result of a finished run, None where there is none."""
    return json.loads(file.read_text()) if file.is_file() else None


def results_by_label(claim: Claim, folder: Path) -> dict[str, list[Result]]:
    """Return label -> results of all its seeds, in the order of the claim."""
    by_label = {}
    for label, config in claim.configs.items():
        files = sorted(folder.glob(f'{Path(config).stem}_seed*.json'))
        by_label[label] = [json.loads(file.read_text()) for file in files]
    return by_label


def write_report(claim: Claim, folder: Path, update_readme: bool = True) -> str:
    """Return the table; with ``update_readme`` also write it and the chart beside the README."""
    by_label = results_by_label(claim, folder)
    table = make_table(claim, by_label)
    if update_readme and all(by_label.values()):
        draw_chart(claim, by_label, claim.chart)
        _replace_block(claim, f'{table}\n\n![{claim.name}]({claim.chart.name})')
    return f'{claim.sentence}\n\n{table}\n'


def make_table(claim: Claim, by_label: dict[str, list[Result]]) -> str:
    """Return a Markdown table: mean and standard deviation over seeds, in per cent or in units."""
    titles = [
        _with_unit(claim, title) if title in claim.units else title for title in claim.metrics
    ]
    lines = [
        '| method | ' + ' | '.join(titles) + ' | seeds | steps | time per run |',
        '|---' * (len(claim.metrics) + 4) + '|',
    ]
    for label, results in by_label.items():
        if not results:
            continue
        cells = [
            _mean_and_spread(results, key, claim.steps.get(title), title in claim.units)
            for title, key in claim.metrics.items()
        ]
        steps = results[0]['curves'][next(iter(claim.metrics.values()))][-1][0]
        seconds = statistics.median(result['seconds'] for result in results)
        budget = [str(len(results)), f'{steps:,}', f'{seconds:.0f} s']
        lines.append(f'| {label} | ' + ' | '.join(cells + budget) + ' |')
    return '\n'.join(lines)


def _mean_and_spread(results: list[Result], key: str, step: int | None, as_is: bool) -> str:
    factor, places = (1, 2) if as_is else (100, 1)
    values = [factor * _value_at(result['curves'][key], step) for result in results]
    if len(values) == 1:
        return f'{values[0]:.{places}f}'
    return f'{statistics.mean(values):.{places}f} ± {statistics.stdev(values):.{places}f}'


def _with_unit(claim: Claim, title: str) -> str:
    unit = claim.units.get(title, '%')
    return f'{title} ({unit})' if unit else title


def _value_at(curve: list[tuple[int, float]], step: int | None) -> float:
    return curve[-1][1] if step is None else dict(curve)[step]


def draw_chart(claim: Claim, by_label: dict[str, list[Result]], file: Path) -> None:
    """Draw each metric over training steps: a line per method, a band from min to max of seeds."""
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    panels = {title: key for title, key in claim.metrics.items() if title not in claim.steps}
    width = 3.6 * len(panels)
    per_row = max(1, int(width / (0.5 + 0.065 * max(len(label) for label in by_label))))
    height = 3.2 + 0.17 * math.ceil(len(by_label) / per_row)
    figure, axes = plt.subplots(
        1, len(panels), figsize=(width, height), squeeze=False, layout='constrained'
    )
    colours = matplotlib.colormaps['tab10' if len(by_label) <= 10 else 'tab20'].colors
    for axis, (title, key) in zip(axes[0], panels.items()):
        axis.set_prop_cycle(color=colours)
        for label, results in by_label.items():
            steps = [step for step, _ in results[0]['curves'][key]]
            factor = 1 if title in claim.units else 100
            values = [[factor * value for _, value in r['curves'][key]] for r in results]
            mean = [statistics.mean(column) for column in zip(*values)]
            (line,) = axis.plot(steps, mean, marker='o', markersize=3, label=label)
            low, high = zip(*((min(column), max(column)) for column in zip(*values)))
            axis.fill_between(steps, low, high, color=line.get_color(), alpha=0.2)
        axis.set(title=_with_unit(claim, title), xlabel='training step')
        axis.grid(alpha=0.3)
        for column, step in claim.steps.items():
            if claim.metrics[column] == key:
                axis.axvline(step, color='grey', linestyle=':', linewidth=1)
    handles, labels = axes[0][0].get_legend_handles_labels()
    # Below the panels: inside one it would hide a curve.
    per_row = min(len(labels), per_row)
    figure.legend(handles, labels, loc='outside lower center', ncols=per_row, fontsize=8)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def _replace_block(claim: Claim, block: str) -> None:
    readme = ROOT / claim.readme
    begin, end = (f'<!-- claim {claim.name}: {word} -->' for word in ('begin', 'end'))
    before, _, rest = readme.read_text().partition(begin)
    _, _, after = rest.partition(end)
    readme.write_text(f'{before}{begin}\n{block}\n{end}{after}')
