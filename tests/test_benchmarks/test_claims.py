"""The claims runner: a real two-step grid, resumed, reported."""

from __future__ import annotations

import dataclasses
import json
import re

import matplotlib.pyplot as plt
import pytest
from mmengine.config import Config

from benchmarks import claims
from benchmarks.claim_list import CLAIMS, ROOT, Claim
from benchmarks.claim_report import draw_chart, make_table, write_report
from benchmarks.train_one import fingerprint
from mmloss_plugins.datasets import digits as digit_files
from mmloss_plugins.datasets import figures as figure_files

MINI = ROOT / 'configs/pose/simcc/simcc_mini_tiny-res_figures-64x64.py'
SHORT = """
_base_ = '{base}'
train_cfg = dict(max_iters={steps}, val_interval={steps})
train_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False)
val_dataloader = dict(num_workers=0, persistent_workers=False)
default_hooks = dict(logger=dict(interval=1))
"""


@pytest.fixture
def grid(tmp_path, monkeypatch, figures):
    """A claim with one short config and its own folders for results and work."""
    readme = tmp_path / 'README.md'
    readme.write_text(
        'before\n<!-- claim short: begin -->\nold\n<!-- claim short: end -->\nafter\n'
    )
    config = tmp_path / 'short.py'
    config.write_text(SHORT.format(base=MINI, steps=2))
    claim = Claim(
        name='short',
        sentence='A sentence.',
        configs={'ours': str(config)},
        metrics={'PCK@.05': 'pck@.05/PCK'},
        decisive=('ours', 'ours'),
        readme=str(readme),
    )
    monkeypatch.setitem(claims.CLAIMS, 'short', claim)
    monkeypatch.setattr(claims, 'RESULTS', tmp_path / 'results')
    monkeypatch.setattr(claims, 'WORK_DIRS', tmp_path / 'work_dirs')
    monkeypatch.setenv('MMLOSS_DATA', str(figures.parent))
    return claim


def test_grid_trains_once_reports_and_notices_a_changed_config(grid, tmp_path, capsys):
    runs = claims.plan(['short'], quick=True, seeds=None)
    assert [(run.label, run.seed, run.is_done()) for run in runs] == [('ours', 0, False)]
    claims.train_all(runs, jobs=1)
    result = json.loads(runs[0].result.read_text())
    ((step, value),) = result['curves']['pck@.05/PCK']
    assert step == 2
    assert 0 <= value <= 1
    assert result['threads'] == '1'
    assert {'versions', 'commit'} <= set(result['environment'])

    capsys.readouterr()
    claims.train_all(runs, jobs=1)
    assert '1 runs, 1 done before' in capsys.readouterr().out

    write_report(grid, tmp_path / 'results' / 'short')
    text = (tmp_path / 'README.md').read_text()
    assert re.search(rf'^\| ours \| {100 * value:.1f} \| 1 \| 2 \| \d+ s \|$', text, re.MULTILINE)
    assert text.startswith('before\n')
    assert text.endswith('after\n')
    assert 'old' not in text
    assert (tmp_path / 'claim-short.png').stat().st_size > 5_000

    twin = dataclasses.replace(runs[0], claim='twin')
    assert not twin.is_done()
    assert claims.execute(twin) == 0.0
    assert json.loads(twin.result.read_text()) == result

    (tmp_path / 'short.py').write_text(SHORT.format(base=MINI, steps=3))
    assert not runs[0].is_done()
    assert not dataclasses.replace(runs[0], claim='third').adopt()


def test_failing_run_names_its_log(grid, tmp_path):
    (tmp_path / 'short.py').write_text(SHORT.format(base=MINI, steps=2) + 'model = dict(head=1)\n')
    runs = claims.plan(['short'], quick=True, seeds=None)
    with pytest.raises(RuntimeError, match=r'short seed 0 must end with status 0, got 1\. Read'):
        claims.train_all(runs, jobs=1)


def test_table_gives_mean_and_spread_over_seeds(grid):
    values = (0.5, 0.6, 0.7)
    results = [
        dict(curves={'pck@.05/PCK': [(1000, 0.1), (2000, value)]}, seconds=60.0) for value in values
    ]
    last = make_table(grid, {'ours': results}).splitlines()[-1]
    assert last == '| ours | 60.0 ± 10.0 | 3 | 2,000 | 60 s |'


def test_column_of_a_step_shows_the_value_there(grid):
    claim = dataclasses.replace(
        grid, metrics={'early': 'x/AP', 'AP': 'x/AP'}, steps={'early': 1000}
    )
    results = [
        dict(curves={'x/AP': [(1000, early), (2000, 0.9)]}, seconds=60.0) for early in (0.1, 0.3)
    ]
    last = make_table(claim, {'ours': results}).splitlines()[-1]
    assert last == '| ours | 20.0 ± 14.1 | 90.0 ± 0.0 | 2 | 2,000 | 60 s |'


def test_columns_with_a_unit_are_shown_as_they_are(grid, tmp_path, monkeypatch):
    claim = dataclasses.replace(
        grid,
        metrics={'angle': 'x/angle', 'ratio': 'x/ratio', 'AP': 'x/AP'},
        units={'angle': 'degrees', 'ratio': ''},
    )
    results = [
        dict(
            curves={'x/angle': [(9, angle)], 'x/ratio': [(9, 0.25)], 'x/AP': [(9, 0.5)]},
            seconds=60.0,
        )
        for angle in (2.0, 4.0)
    ]
    head, _, *rows = make_table(claim, {'ours': results}).splitlines()
    assert head == '| method | angle (degrees) | ratio | AP | seeds | steps | time per run |'
    assert rows == ['| ours | 3.00 ± 1.41 | 0.25 ± 0.00 | 50.0 ± 0.0 | 2 | 9 | 60 s |']
    (row,) = make_table(claim, {'ours': results[:1]}).splitlines()[2:]
    assert row == '| ours | 2.00 | 0.25 | 50.0 | 1 | 9 | 60 s |'

    monkeypatch.setattr(plt, 'close', lambda figure: None)
    draw_chart(claim, {'ours': results}, tmp_path / 'chart.png')
    axes = plt.gcf().axes
    assert [axis.get_title() for axis in axes] == ['angle (degrees)', 'ratio', 'AP (%)']
    assert [float(axis.lines[0].get_ydata()[-1]) for axis in axes] == [3.0, 0.25, 50.0]


@pytest.mark.parametrize(('name', 'module'), [('figures', figure_files), ('digits', digit_files)])
def test_sets_are_written_for_the_claims_that_read_them_alone(
    grid, tmp_path, monkeypatch, name, module
):
    monkeypatch.setenv('MMLOSS_DATA', str(tmp_path / 'data'))
    monkeypatch.setattr(claims, 'train_all', lambda runs, jobs: None)
    monkeypatch.setattr(module, f'generate_{name}', lambda folder: folder.mkdir(parents=True))
    monkeypatch.setitem(claims.CLAIMS, 'short', dataclasses.replace(grid, generated=None))
    assert claims.main(['short', '--quick']) == 0
    assert not (tmp_path / 'data').exists()
    monkeypatch.setitem(claims.CLAIMS, 'short', dataclasses.replace(grid, generated=name))
    assert claims.main(['short', '--quick']) == 0
    assert [path.name for path in (tmp_path / 'data').iterdir()] == [name]


def test_claim_without_its_data_is_skipped_with_a_reason(monkeypatch, capsys):
    monkeypatch.delenv('MIRROR_MOUSE', raising=False)
    assert not claims.has_data(CLAIMS['simcc-mouse'])
    text = 'simcc-mouse: skipped, set MIRROR_MOUSE to the folder of its data set'
    assert text in capsys.readouterr().out


def test_unknown_claim_is_refused():
    with pytest.raises(ValueError, match=r"claims: NAME must be one of 'simcc'.*got 'simmc'. Did"):
        claims.main(['simmc'])


def test_every_claim_names_existing_files_and_its_decisive_configs():
    for claim in CLAIMS.values():
        assert set(claim.decisive) <= set(claim.configs)
        assert all((ROOT / config).is_file() for config in claim.configs.values())
        # The chart has a panel per metric, the table a column for its last value.
        last = [key for title, key in claim.metrics.items() if title not in claim.steps]
        assert set(last) == set(claim.metrics.values())
        assert set(claim.steps) <= set(claim.metrics)
        assert set(claim.units) <= set(claim.metrics)
        text = (ROOT / claim.readme).read_text()
        assert text.index(f'<!-- claim {claim.name}: begin -->') < text.index(
            f'<!-- claim {claim.name}: end -->'
        )


def test_every_step_of_a_column_is_validated():
    for claim in CLAIMS.values():
        for config in claim.configs.values() if claim.steps else ():
            train = Config.fromfile(ROOT / config).train_cfg
            assert all(step % train.val_interval == 0 for step in claim.steps.values())
            assert max(claim.steps.values()) < train.max_iters


@pytest.mark.parametrize('name', ['bccd', 'omniglot', 'dsnt-mouse'])
def test_results_are_kept_where_the_data_lie_elsewhere(name, monkeypatch):
    claim = CLAIMS[name]
    found = []
    for place in ('/here', '/there'):
        monkeypatch.setenv(claim.data, place)
        found.append([fingerprint(str(ROOT / config)) for config in claim.configs.values()])
    assert found[0] == found[1]
    assert len(set(found[0])) == len(claim.configs)
