"""The speed harness: what is measured, how ratios are taken, what is stored and resumed."""

from __future__ import annotations

import dataclasses
import importlib
import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from benchmarks import harness, speed, speed_table
from benchmarks.environment import ROOT, describe_environment
from benchmarks.harness import Bar, Contender, Row, Step
from benchmarks.rows import simcc

CPU = torch.device('cpu')
TINY = simcc.Sizes(2, 3, (8, 12))
MEGABYTE = 2**20


def tiny_loss_row(device=CPU, seed=0):
    """The row of the loss without what compiles, which takes most of the time."""
    row = simcc.loss_row('kl_discret', TINY, torch.float32, device, seed)
    eager = {name: c for name, c in row.contenders.items() if not name.endswith('compiled')}
    return dataclasses.replace(row, contenders=eager)


def tiny_rows(device, seed):
    return [
        tiny_loss_row(device, seed),
        simcc.encode_row(TINY, seed),
        simcc.decode_row(TINY, seed),
    ]


@pytest.fixture
def tiny_family(monkeypatch):
    """The family simcc in tiny sizes, and quick samples."""
    monkeypatch.setattr(simcc, 'make_rows', tiny_rows)
    monkeypatch.setattr(speed, 'SAMPLE_SECONDS', 0.0)


def silent(text):
    assert text


def step_of(forward, **options):
    return Contender('peer', lambda: Step(forward, **options))


class FakeStopwatch:
    """Gives each contender the time of a script, round by round."""

    script = {'ours': [1.0, 2.0, 10.0], 'peer': [2.0, 6.0, 10.0]}
    rounds: dict[str, int]

    def __init__(self, device):
        type(self).rounds = dict.fromkeys(self.script, -1)

    def time(self, step, calls):
        name = step.forward()
        self.rounds[name] += 1
        seconds = self.script[name][max(self.rounds[name], 0)]
        return {'forward': seconds, 'backward': seconds, 'total': 2 * seconds}


def test_a_tiny_grid_runs_end_to_end_and_writes_valid_json(tiny_family, tmp_path, capsys):
    assert speed.main(['--out', str(tmp_path), '--repeats', '2'], ['simcc']) == 0
    stored = json.loads((tmp_path / 'speed-simcc-cpu.json').read_text())
    assert stored['family'] == 'simcc'
    assert list(stored['rows']) == ['kl_discret_float32', 'encode', 'decode']
    assert list(tmp_path.iterdir()) == [tmp_path / 'speed-simcc-cpu.json']
    row = stored['rows']['kl_discret_float32']
    assert (
        row['settings'] | {'rounds': 2, 'seed': 0, 'device': 'cpu', 'threads': 1} == row['settings']
    )
    assert row['settings']['versions']['torch'] == torch.__version__
    assert len(row['load']) == 2
    assert row['command'] == (
        'python -m benchmarks.speed --device cpu --threads 1 --repeats 2 --seed 0'
    )
    for line in row['contenders'].values():
        low, middle, high = line['seconds']['total']
        assert 0 < low <= middle <= high
        assert line['peak_bytes'] > 0
    pairs = {(pair['ours'], pair['other']): pair['bar'] for pair in row['ratios']}
    assert pairs == {
        ('ours, eager', 'MMPose, eager'): 1.0,
        ('ours, eager', "authors' loop over joints"): 8.0,
        ('ours, eager', 'floor: clones'): None,
    }
    assert 'simcc/decode: done' in capsys.readouterr().out


def test_a_finished_row_is_kept_and_the_others_are_measured(tiny_family, tmp_path, monkeypatch):
    measured = []

    def measure(row, *arguments):
        measured.append(row.name)
        if row.name == 'decode' and len(measured) == 3:
            raise KeyboardInterrupt
        return {'title': row.title, 'contenders': {}, 'ratios': []}

    monkeypatch.setattr(speed, 'measure', measure)
    command = ['--out', str(tmp_path), '--repeats', '2']
    with pytest.raises(KeyboardInterrupt):
        speed.main(command, ['simcc'])
    assert speed.main(command, ['simcc']) == 0
    assert measured == ['kl_discret_float32', 'encode', 'decode', 'decode']
    assert speed.main([*command[:-1], '3'], ['simcc']) == 0
    assert measured[4:] == ['kl_discret_float32', 'encode', 'decode']


def test_changed_code_is_measured_again(tiny_family, tmp_path, monkeypatch):
    measured = []
    outcome = {'title': '', 'contenders': {}, 'ratios': []}
    monkeypatch.setattr(speed, 'measure', lambda row, *_: measured.append(row.name) or outcome)
    for source in ('a', 'a', 'b'):
        monkeypatch.setattr(speed, 'source_hash', lambda paths, source=source: source)
        speed.main(['simcc/encode', '--out', str(tmp_path)])
    assert measured == ['encode', 'encode']


def test_the_ratio_is_the_median_over_rounds_of_the_ratio_within_a_round(monkeypatch):
    monkeypatch.setattr(harness, 'Stopwatch', FakeStopwatch)
    monkeypatch.setattr(harness, '_warm_up', lambda *_: 1)
    row = Row(
        'row',
        'title',
        CPU,
        {
            'ours': Contender('ours', lambda: Step(lambda: 'ours')),
            'peer': Contender('peer', lambda: Step(lambda: 'peer')),
        },
        [Bar('ours', 'peer', 2.5)],
    )
    outcome = harness.measure(row, 3, 0.0, 0, silent)
    (pair,) = outcome['ratios']
    # Within the rounds 2/1, 6/2, 10/10; the ratio of the medians would be 6/2 = 3.
    assert pair['total'] == [1.5, 2.0, 2.5]
    assert pair['met'] is False
    assert outcome['contenders']['peer']['seconds']['forward'] == [4.0, 6.0, 8.0]


def test_every_round_runs_every_contender_once():
    calls = []
    contenders = {name: step_of(lambda name=name: calls.append(name)) for name in 'abc'}
    harness.measure(Row('row', 'title', CPU, contenders), 20, 0.0, 0, silent)
    rounds = [calls[start : start + 3] for start in range(len(calls) - 60, len(calls), 3)]
    assert all(sorted(names) == ['a', 'b', 'c'] for names in rounds)
    assert len({tuple(names) for names in rounds}) > 3


def test_peak_memory_of_torch_counts_what_is_held_at_a_time():
    def forward():
        first = torch.zeros(MEGABYTE // 4)
        second = first + 1
        del first
        return second.exp()

    # Two megabytes at a time, three in all.
    assert harness.peak_bytes(CPU, Step(forward)) == pytest.approx(2 * MEGABYTE, rel=0.01)


def test_peak_memory_includes_the_gradient():
    pred = torch.zeros(MEGABYTE // 4, requires_grad=True)
    step = Step(lambda: torch.sum(2 * pred), lambda value: value.backward())
    assert harness.peak_bytes(CPU, step) == pytest.approx(MEGABYTE, rel=0.01)


def test_peak_memory_sees_what_compiled_code_allocates():
    source = torch.ones(MEGABYTE // 4)
    double = torch.compile(lambda x: 2 * x)
    double(source)
    peak = harness.peak_bytes(CPU, Step(lambda: double(source)))
    assert peak == pytest.approx(MEGABYTE, rel=0.01)


def test_peak_memory_of_numpy():
    step = Step(lambda: np.zeros(MEGABYTE, np.uint8), counts_numpy=True)
    assert harness.peak_bytes(CPU, step) == pytest.approx(MEGABYTE, rel=0.01)


def test_forward_and_backward_are_timed_apart():
    size = 300
    matrix = torch.ones(size, size)

    def work(times):
        for _ in range(times):
            matrix @ matrix
        return matrix

    step = Step(lambda: work(1), lambda _: work(8))
    times = harness.Stopwatch(CPU).time(step, 20)
    assert times['backward'] > 3 * times['forward']
    assert times['total'] == pytest.approx(times['forward'] + times['backward'])


def test_a_peer_that_computes_something_else_is_refused():
    contenders = {
        'ours': Contender('ours', lambda: Step(lambda: 2.0), 1.0),
        'peer': Contender('peer', lambda: Step(lambda: 64.0), 16.0),
    }
    with pytest.raises(RuntimeError, match=r"value of 'peer' must agree .* 2, .* got 4\.0"):
        harness.measure(Row('row', 'title', CPU, contenders), 1, 0.0, 0, silent)


def test_a_missing_host_is_recorded_with_the_reason(monkeypatch):
    monkeypatch.setitem(sys.modules, 'mmpose', None)
    monkeypatch.setitem(sys.modules, 'mmpose.models', None)
    outcome = harness.measure(tiny_loss_row(), 1, 0.0, 0, silent)
    absent = {name for name, line in outcome['contenders'].items() if 'absent' in line}
    assert absent == {'MMPose, eager'}
    assert 'mmpose' in outcome['contenders']['MMPose, eager']['absent']
    assert {pair['other'] for pair in outcome['ratios']} == {
        "authors' loop over joints",
        'floor: clones',
    }
    section = '\n'.join(speed_table.absent_lines(outcome['contenders']))
    assert section.startswith('MMPose, eager: absent (ModuleNotFoundError')


def test_mmpose_losses_import_without_mmdet_and_compiled_ops():
    code = (
        'import sys\n'
        'class Blocker:\n'
        '    def find_spec(self, name, path=None, target=None):\n'
        "        if name.split('.')[0] == 'mmdet' or name in ('mmcv.ops', 'mmcv._ext'):\n"
        '            raise ModuleNotFoundError(name)\n'
        'sys.meta_path.insert(0, Blocker())\n'
        'from benchmarks.rows.hosts import mmpose_losses\n'
        "assert 'KLDiscretLoss' in dir(mmpose_losses())\n"
    )
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_compiled_loss_is_a_contender_with_its_bar():
    row = simcc.loss_row('kl_discret', TINY, torch.float32, CPU, 0)
    compiled = row.contenders['ours, compiled'].build().forward().item()
    eager = row.contenders['ours, eager'].build().forward().item()
    assert compiled == pytest.approx(eager, rel=1e-5)
    assert Bar('ours, compiled', 'MMPose, eager', 5.0) in row.bars


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_the_loop_over_joints_gives_the_loss_of_mmpose_over_the_batch_size(dtype):
    row = simcc.loss_row('kl_discret', TINY, dtype, CPU, 3)
    values = {
        name: row.contenders[name].build().forward().item()
        for name in ('MMPose, eager', "authors' loop over joints")
    }
    expected = values['MMPose, eager'] / TINY.batch
    assert values["authors' loop over joints"] == pytest.approx(expected, rel=1e-5)


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match=r"'simcc/decod'.*Did you mean 'simcc/decode'\?"):
        speed.select(['simcc/decod'], ['simcc'], CPU, 0)


def test_list_prints_the_rows(tiny_family, capsys):
    assert speed.main(['--list', 'simcc/encode']) == 0
    printed = capsys.readouterr().out
    assert printed == 'simcc/encode: SimCCLabel.encode, (1, 3, 2), input (8, 12)\n'


def test_cuda_without_a_gpu_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(SystemExit):
        speed.main(['--device', 'cuda'])
    assert 'needs a torch that sees a GPU' in capsys.readouterr().err


def test_the_readme_shows_what_the_results_say(tiny_family, tmp_path):
    speed.main(['simcc/encode', '--out', str(tmp_path), '--repeats', '2'])
    readme = tmp_path / 'README.md'
    readme.write_text('before\n<!-- speed: begin -->\nold\n<!-- speed: end -->\nafter\n')
    speed_table.update_readme(tmp_path, readme)
    text = readme.read_text()
    stored = json.loads((tmp_path / 'speed-simcc-cpu.json').read_text())
    pair = stored['rows']['encode']['ratios'][0]
    met = 'met' if pair['met'] else '**missed**'
    low, middle, high = (f'{value:.3g}' for value in pair['total'])
    assert f'| ours | MMPose | {middle} ({low} to {high}) | {middle} | - |' in text
    assert f'| 1: {met} |' in text
    assert text.startswith('before\n<!-- speed: begin -->\n### speed-simcc-cpu\n')
    assert text.endswith('\n<!-- speed: end -->\nafter\n')
    assert 'old' not in text


def test_absolute_times_on_a_gpu_only():
    pair = {'ours': 'ours', 'other': 'peer', 'total': [1.0, 2.0, 3.0], 'forward': None}
    pair |= {'backward': None, 'memory': None, 'bar': None, 'met': None}
    row = {'ratios': [pair], 'contenders': {'ours': {'seconds': {'total': [1e-6, 2e-6, 3e-6]}}}}
    tables = {
        device: speed_table.row_table({**row, 'settings': {'device': device}})
        for device in ('cpu', 'cuda')
    }
    assert '2 us' in tables['cuda']
    assert ' us' not in tables['cpu']


def test_a_result_says_where_it_comes_from_and_names_no_host():
    found = describe_environment()
    assert set(found) == {'commit', 'versions', 'machine', 'threads', 'load'}
    assert found['threads'] == 1
    assert found['versions']['mmpose'] is not None
    assert set(found['machine']) >= {'system', 'cpu', 'cores', 'memory_gib'}
    text = json.dumps(found)
    import socket

    assert socket.gethostname() not in text
    assert str(ROOT) not in text


@pytest.mark.parametrize(
    'family', ['balanced_bce', 'centernet', 'dropins', 'focal', 'offset_heatmap']
)
def test_ours_and_the_peers_of_a_row_compute_the_same(family):
    rows = importlib.import_module(f'benchmarks.rows.{family}').make_rows(CPU, 0)
    assert len({row.name for row in rows}) == len(rows)
    for row in rows:
        assert {contender.role for contender in row.contenders.values()} >= {'ours', 'peer'}
        steps = {
            name: contender.build()
            for name, contender in row.contenders.items()
            if 'compiled' not in name
        }
        assert all(step.forward() is not None for step in steps.values())
        harness._check_agreement(row, steps)
