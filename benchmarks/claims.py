"""``python -m benchmarks.claims [NAME ...]``: show the papers' claims with the mini configs.

Trains a grid of configs x seeds, one process and one result JSON per run. Finished runs are kept,
an interrupted one goes on from its last checkpoint, so the command can be stopped and started at
will. Then the table and the chart of the README are written.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from benchmarks.claim_list import CLAIMS, ROOT, Claim
from benchmarks.claim_report import load_result, write_report
from benchmarks.train_one import fingerprint
from mmloss_plugins.errors import check_choice

RESULTS = ROOT / 'benchmarks' / 'results' / 'claims'
WORK_DIRS = ROOT / 'work_dirs' / 'claims'


@dataclass(frozen=True)
class Run:
    """One config with one seed of a claim."""

    claim: str
    label: str
    config: Path
    seed: int

    @property
    def result(self) -> Path:
        return RESULTS / self.claim / f'{self.config.stem}_seed{self.seed}.json'

    @property
    def work_dir(self) -> Path:
        # The fingerprint keeps a run from resuming the checkpoint of an older config.
        name = f'{self.config.stem}_seed{self.seed}_{fingerprint(str(self.config))}'
        # Two claims that show one config may run at the same time.
        return WORK_DIRS / self.claim / name

    def is_done(self) -> bool:
        return self._holds(self.result)

    def adopt(self) -> bool:
        """Take over the result that another claim has for this config and seed, if there is one."""
        for path in sorted(RESULTS.glob(f'*/{self.result.name}')):
            if self._holds(path):
                self.result.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, self.result)
                return True
        return False

    def _holds(self, path: Path) -> bool:
        result = load_result(path)
        return result is not None and result['fingerprint'] == fingerprint(str(self.config))

    def command(self) -> list[str]:
        options = ['--seed', str(self.seed), '--work-dir', str(self.work_dir)]
        module = [sys.executable, '-m', 'benchmarks.train_one']
        return [*module, str(self.config), *options, '--out', str(self.result)]


def plan(names: Sequence[str], quick: bool, seeds: int | None) -> list[Run]:
    """Return the runs of the claims ``names``, seed by seed so that a stop leaves whole seeds."""
    return [run for name in names for run in _runs(name, CLAIMS[name], quick, seeds)]


def _runs(name: str, claim: Claim, quick: bool, seeds: int | None) -> Iterator[Run]:
    count = seeds or (1 if quick else claim.seeds)
    for seed in range(count):
        for label, config in claim.configs.items():
            if not quick or label in claim.decisive:
                yield Run(name, label, ROOT / config, seed)


def execute(run: Run) -> float:
    """Train one run in its own process, unless another claim has; return its seconds.

    Raises:
        RuntimeError: the process failed; names its log.
    """
    begin = time.time()
    if run.adopt():
        return 0.0
    run.work_dir.mkdir(parents=True, exist_ok=True)
    log = run.work_dir / 'output.log'
    with log.open('a') as stream:
        code = subprocess.call(
            run.command(), cwd=ROOT, env=run_environment(), stdout=stream, stderr=stream
        )
    if code:
        raise RuntimeError(
            f'claims: run {run.config.stem} seed {run.seed} must end with status 0, got {code}. '
            f'Read {log}, then start the same command again: finished runs are kept.'
        )
    return time.time() - begin


def run_environment() -> dict[str, str]:
    """One OpenMP thread: on a shared machine two can be ten times slower than one."""
    return {**os.environ, 'OMP_NUM_THREADS': '1', 'MMLOSS_DATA': str(data_folder())}


def generate(name: str) -> None:
    """Write the generated set ``name`` unless it is there."""
    # Each imported for itself: the digits need scikit-learn.
    if name == 'figures':
        from mmloss_plugins.datasets.figures import generate_figures

        generate_figures(data_folder() / name)
        return
    from mmloss_plugins.datasets.digits import generate_digits

    generate_digits(data_folder() / name)


def has_data(claim: Claim) -> bool:
    """Tell whether the data set of ``claim`` can be had; say how to get it if not."""
    if claim.data is None or claim.data in os.environ:
        return True
    print(f'{claim.name}: skipped, set {claim.data} to the folder of its data set', flush=True)
    return False


def data_folder() -> Path:
    return Path(os.environ.get('MMLOSS_DATA', ROOT / 'data')).absolute()


def train_all(runs: Sequence[Run], jobs: int) -> None:
    """Train what is not done yet, ``jobs`` processes at a time, with an ETA after each."""
    todo = [run for run in runs if not run.is_done()]
    print(f'{len(runs)} runs, {len(runs) - len(todo)} done before, {jobs} at a time', flush=True)
    begin = time.time()
    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(execute, run): run for run in todo}
        for count, future in enumerate(as_completed(futures), 1):
            run = futures[future]
            try:
                seconds = future.result()
            except RuntimeError:
                pool.shutdown(cancel_futures=True)
                raise
            left = (time.time() - begin) / count * (len(todo) - count)
            print(
                f'[{count}/{len(todo)}] {run.config.stem} seed {run.seed}: {seconds:.0f} s, '
                f'ETA {left / 60:.0f} min',
                flush=True,
            )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('names', nargs='*', metavar='NAME', help='claims; all if none is given')
    parser.add_argument('--quick', action='store_true', help='one seed of the decisive two configs')
    parser.add_argument('--seeds', type=int, help='number of seeds instead of the full grid')
    parser.add_argument('--jobs', type=int, default=os.cpu_count() or 1, help='runs at a time')
    parser.add_argument('--list', action='store_true', help='print the claims and stop')
    parser.add_argument('--report-only', action='store_true', help='write tables and charts only')
    args = parser.parse_args(arguments)
    if args.list:
        for name, claim in CLAIMS.items():
            print(f'{name}: {claim.sentence}')
        return 0
    for name in args.names:
        check_choice('claims', 'NAME', name, CLAIMS)
    names = [name for name in args.names or CLAIMS if args.report_only or has_data(CLAIMS[name])]
    if not args.report_only:
        for generated in sorted({CLAIMS[name].generated for name in names} - {None}):
            generate(generated)
        train_all(plan(names, args.quick, args.seeds), args.jobs)
    for name in names:
        print(write_report(CLAIMS[name], RESULTS / name, update_readme=not args.quick))
    return 0


if __name__ == '__main__':
    try:
        sys.exit(main())
    except (RuntimeError, ValueError) as error:
        sys.exit(str(error))
