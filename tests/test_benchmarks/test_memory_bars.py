"""Bars of memory, bars against our own variants and limits: measured, stored, shown."""

from __future__ import annotations

import torch

from benchmarks import harness, speed, speed_table
from benchmarks.harness import Bar, Contender, Limit, Row, Step

CPU = torch.device('cpu')
# Bytes at the peak of what each contender holds.
HELD = {'ours': 4000, 'ours, chunked': 2000, 'peer': 9000}


def row(**options):
    contenders = {
        name: Contender(
            'peer' if name == 'peer' else 'ours', lambda n=held: Step(lambda: torch.zeros(n // 4))
        )
        for name, held in HELD.items()
    }
    return Row('row', 'title', CPU, contenders, **options)


def pairs_of(row):
    outcome = harness.measure(row, 2, 0.0, 0, lambda text: None)
    return outcome, {(pair['ours'], pair['other']): pair for pair in outcome['ratios']}


def cells(pair):
    table = speed_table.row_table({'ratios': [pair], 'settings': {'device': 'cpu'}})
    return [cell.strip() for cell in table.splitlines()[-1].strip('|').split('|')]


def test_bars_of_memory_leave_out_what_everyone_hands_over():
    # (9000 - 1000) / (2000 - 1000) = 8 and (9000 - 1000) / (4000 - 1000) = 2.67.
    bars = [
        Bar('ours, chunked', 'peer', 8.0, of='memory'),
        Bar('ours', 'peer', 2.7, of='memory'),
        Bar('ours', 'peer', 1e-9),
    ]
    outcome, pairs = pairs_of(row(bars=bars, result_bytes=1000))
    assert list(pairs) == [('ours', 'peer'), ('ours, chunked', 'peer')]
    chunked, plain = pairs['ours, chunked', 'peer'], pairs['ours', 'peer']
    assert (chunked['memory'], chunked['memory_bar'], chunked['memory_met']) == (8.0, 8.0, True)
    assert (chunked['bar'], chunked['met']) == (None, None)
    assert (plain['memory'], plain['memory_met']) == (8 / 3, False)
    assert (plain['bar'], plain['met']) == (1e-9, True)
    assert outcome['result_bytes'] == 1000
    assert outcome['contenders']['peer']['peak_bytes'] == 9000
    assert cells(chunked)[-2:] == ['8', 'memory 8: met']
    assert cells(plain)[-2:] == ['2.67', '1e-09: met, memory 2.7: **missed**']
    assert speed.summary(outcome)[-1] == 'ours, chunked: 8 x less memory than peer, bar 8'
    assert 'ours: 2.67 x less memory than peer, bar 2.7 MISSED' in speed.summary(outcome)


def test_what_holds_no_more_than_it_hands_over_has_no_ratio():
    bars = [Bar('ours, chunked', 'peer', 1.0, of='memory')]
    _, pairs = pairs_of(row(bars=bars, result_bytes=2000))
    found = pairs['ours, chunked', 'peer']
    assert (found['memory'], found['memory_met']) == (None, False)


def test_a_bar_against_our_own_variant_shows_the_pair():
    _, pairs = pairs_of(row(bars=[Bar('ours, chunked', 'ours', 1e9)]))
    assert list(pairs) == [('ours', 'peer'), ('ours, chunked', 'ours'), ('ours, chunked', 'peer')]
    found = pairs['ours, chunked', 'ours']
    assert (found['role'], found['bar'], found['met']) == ('ours', 1e9, False)
    assert found['memory'] == 2.0


def test_a_limit_counts_the_inputs():
    limits = [Limit('ours', '1 KB', 1000, 1000), Limit('ours, chunked', '6 KB', 6000, 1000)]
    outcome, _ = pairs_of(row(limits=limits))
    first, second = outcome['ratios'][-2:]
    # 1000 / (4000 + 1000) and 6000 / (2000 + 1000)
    assert (first['memory'], first['memory_met']) == (0.2, False)
    assert (second['memory'], second['memory_met']) == (2.0, True)
    assert cells(first) == ['ours', '1 KB', '-', '-', '-', '0.2', 'memory 1: **missed**']
    assert cells(second)[-1] == 'memory 1: met'
    assert 'result_bytes' not in outcome
    assert speed.summary(outcome)[-1] == 'ours, chunked: 2 x less memory than 6 KB, bar 1'


def test_results_from_before_there_were_bars_of_memory_are_shown():
    pair = {'ours': 'ours', 'other': 'peer', 'total': [1.0, 2.0, 3.0], 'forward': None}
    pair |= {'backward': None, 'memory': 1.5, 'bar': 1.0, 'met': True}
    assert cells(pair) == ['ours', 'peer', '2 (1 to 3)', '-', '-', '1.5', '1: met']
    assert cells({**pair, 'bar': None, 'met': None})[-1] == ''
