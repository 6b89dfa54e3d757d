"""Loss, diagnostics and metrics of one run or several over the iterations, from MMEngine's logs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

from mmloss_plugins.errors import message
from mmloss_plugins.visualization import _figure

LOGS = '*/vis_data/scalars.json'
Row = dict[str, Any]
Runs = Union[str, Path, Mapping[str, Union[str, Path]]]
LOSS, RATIO = 'loss', 'simcc_ratio'
# The last words of the metrics to show, in this order.
METRICS = ('PCK', 'AP', 'bbox_mAP', 'bbox_mAP_50', 'top1')
MAX_METRICS = 3


@dataclass(frozen=True)
class Scalars:
    """What a run logged, in the order of its iterations; every row has its ``'step'``."""

    train: list[Row]
    val: list[Row]

    def series(self, name: str) -> tuple[list[int], list[float]]:
        """Return the steps and the values of ``name``; both empty if it was not logged."""
        rows = [row for row in (*self.train, *self.val) if name in row]
        return [row['step'] for row in rows], [row[name] for row in rows]

    def metrics(self) -> list[str]:
        """Return the names of up to three val metrics to show, such as ``'coco/AP'``."""
        names = list(dict.fromkeys(name for row in self.val for name in row))
        known = [name for word in METRICS for name in names if name.split('/')[-1] == word]
        return known[:MAX_METRICS]


def read_scalars(work_dir: str | Path) -> Scalars:
    """Read the ``vis_data/scalars.json`` files of a work folder and merge those of resumed runs.

    A run that starts again at step s replaces what the ones before it logged from s on. Val rows,
    whose step MMEngine counts in epochs, get the iteration of the training row before them. Logs
    without a training row, such as those of ``mim test``, are passed over.

    Raises:
        FileNotFoundError: ``work_dir`` has no such file with a training row in it.
        ValueError: a line is no JSON (a last line that was cut short is passed over).
    """
    train: list[Row] = []
    val: list[Row] = []
    for path in sorted(Path(work_dir).glob(LOGS)):
        begun = False
        for row in _read_rows(path):
            if 'iter' in row:
                begun, step = True, row['step']
                if train and step <= train[-1]['step']:
                    train = [old for old in train if old['step'] < step]
                    val = [old for old in val if old['step'] < step]
                train.append(row)
            elif begun:
                val.append(dict(row, step=max(row['step'], train[-1]['step'])))
    if train:
        return Scalars(train, val)
    next_step = 'Train with this work folder first, or name another one'
    raise FileNotFoundError(
        message('read_scalars', 'work_dir', f'hold {LOGS}', repr(str(work_dir)), next_step)
    )


def draw_curves(runs: Runs, out_file: str | Path) -> dict[str, Scalars]:
    """Draw training loss, ``simcc_ratio`` if it was logged, and val metrics over the iterations.

    Args:
        runs: work folder of a run, or several as ``{label: folder}``: one colour per metric for
            one run, one colour per run for several.
        out_file: PNG to write.

    Returns:
        What is drawn, by label.

    Raises:
        FileNotFoundError: a folder holds no training log.
        ModuleNotFoundError: matplotlib is not installed.
        ValueError: no run at all, or ``out_file`` is no PNG.
    """
    _figure.import_matplotlib()
    if not isinstance(runs, Mapping):
        runs = {Path(runs).name: runs}
    if not runs:
        next_step = 'Name the work folder of a run'
        raise ValueError(message('draw_curves', 'runs', 'hold at least one run', '0', next_step))
    scalars = {label: read_scalars(folder) for label, folder in runs.items()}
    with _figure.style():
        draw = _draw_one if len(scalars) == 1 else _draw_several
        _figure.save(draw(scalars), out_file)
    return scalars


def short_name(metric: str) -> str:
    """Return ``'AP'`` for ``'coco/AP'`` and ``'PCK@.05'`` for ``'pck@.05/PCK'``."""
    prefix, _, name = metric.rpartition('/')
    return prefix.upper() if name == 'PCK' and prefix.lower().startswith('pck@') else name


def _draw_one(scalars: Mapping[str, Scalars]) -> Any:
    (run,) = scalars.values()
    metrics = run.metrics()
    panels = [name for name in (LOSS, RATIO) if run.series(name)[0]]
    figure, axes = _panels([*panels, *metrics[:1]])
    for name in panels:
        _plot(axes[name], run.series(name), _figure.PALETTE[0])
    if LOSS in axes:
        losses = run.series(LOSS)[1]
        axes[LOSS].set_ylim(min(0, *losses), 1.05 * max(losses) if max(losses) > 0 else None)
    if not metrics:
        return figure
    ax = axes[metrics[0]]
    ax.set_title('metrics on the val set')
    for name, colour in zip(metrics, _figure.PALETTE[1:]):
        steps, values = run.series(name)
        _plot(ax, (steps, values), colour, f'{short_name(name)}, last {values[-1]:.3f}', 'o')
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside lower right', ncols=len(labels))
    return figure


def _draw_several(scalars: Mapping[str, Scalars]) -> Any:
    runs = list(scalars.values())
    panels = [name for name in (LOSS, RATIO) if any(run.series(name)[0] for run in runs)]
    metrics = list(dict.fromkeys(name for run in runs for name in run.metrics()))[:MAX_METRICS]
    figure, axes = _panels([*panels, *metrics])
    for place, (label, run) in enumerate(scalars.items()):
        colour = _figure.PALETTE[place % len(_figure.PALETTE)]
        for name in (*panels, *metrics):
            _plot(axes[name], run.series(name), colour, label, 'o' if name in metrics else '')
    losses = [value for run in runs for value in run.series(LOSS)[1]]
    if losses and min(losses) > 0:
        # Different losses lie decades apart.
        axes[LOSS].set_yscale('log')
    handles, labels = next(iter(axes.values())).get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside lower left', ncols=min(3, len(labels)))
    return figure


def _panels(names: Sequence[str]) -> tuple[Any, dict[str, Any]]:
    rows = 1 if len(names) <= 3 else 2
    figure = _figure.new_figure(8.4, 2.5 * rows)
    figure.get_layout_engine().set(wspace=0.04, hspace=0.06)
    grid = figure.subplots(rows, -(-len(names) // rows), squeeze=False)
    for ax in grid.flat[len(names) :]:
        ax.set_axis_off()
    axes = dict(zip(names, grid.flat))
    for name, ax in axes.items():
        ax.set_xlabel('iteration')
        ax.set_title(short_name(name) + ('' if name == LOSS else ' on the val set'))
        ax.set_ylim(0, 1)
    if LOSS in axes:
        axes[LOSS].set_title('training loss')
        axes[LOSS].set_ylim(auto=True)
    if RATIO in axes:
        _mark_collapse(axes[RATIO])
    return figure, axes


def _mark_collapse(ax: Any) -> None:
    ax.set_title('simcc_ratio')
    ax.set_ylim(0, 1.1)
    ax.axhline(1, color=_figure.MUTED, linewidth=1, linestyle=(0, (4, 3)))
    ax.text(
        0.98,
        0.985,
        'loss of a flat output',
        color=_figure.MUTED,
        fontsize=7.5,
        ha='right',
        va='top',
        transform=ax.get_yaxis_transform(),
    )


def _plot(
    ax: Any, series: tuple[list, list], colour: str, label: str | None = None, marker: str = ''
) -> None:
    if not series[0]:
        return
    ax.plot(*series, color=colour, linewidth=1.8, marker=marker, markersize=4, label=label)
    ax.set_xlim(left=0)


def _read_rows(path: Path) -> Iterator[Row]:
    lines = path.read_text(encoding='utf-8').splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            yield json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines):
                return  # the run was killed while it wrote
            got = f'{line[:60]!r} in line {number}'
            next_step = 'Delete that line, or name another work folder'
            raise ValueError(
                message('read_scalars', str(path), 'hold one JSON object per line', got, next_step)
            ) from error
