"""Measures ours, its peers and the floor in one process, interleaved.

A row is one comparison on one set of inputs. Every round runs each contender once, in an order
drawn anew, so that a slow moment of the machine meets all of them; a ratio is taken within a
round and its median over the rounds. A contender runs several times per round where one call is
too short for the clock.
"""

from __future__ import annotations

import math
import os
import random
import resource
import statistics
import time
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from mmloss_plugins.errors import message

PARTS = ('forward', 'backward', 'total')
WARM_UP_CALLS = 5
AGREEMENT = 1e-3
Samples = dict[str, list[float]]


def _nothing() -> None:
    return None


@dataclass(frozen=True)
class Step:
    """What is timed: ``forward()``, then ``backward`` of what it returned.

    ``reset`` runs untimed after each step. ``counts_numpy`` says that memory is numpy's.
    """

    forward: Callable[[], Any]
    backward: Callable[[Any], Any] | None = None
    reset: Callable[[], None] = _nothing
    counts_numpy: bool = False


@dataclass(frozen=True)
class Contender:
    """One line of a row.

    Attributes:
        role: 'ours', 'peer' or 'floor'.
        build: makes the step; an ImportError becomes an absent line with its reason.
        factor: the value that ``forward`` returns over the value of the first contender that
            has a factor; checked before anything is timed. None: not compared.
    """

    role: str
    build: Callable[[], Step]
    factor: float | None = None


@dataclass(frozen=True)
class Bar:
    """``ours`` is to be at least ``at_least`` times as fast as ``peer``, forward and backward.

    With ``of='memory'`` its memory is to be at most 1 / ``at_least`` of that of ``peer``. A peer
    that is one of ours is compared with for the sake of the bar.
    """

    ours: str
    peer: str
    at_least: float
    of: str = 'total'


@dataclass(frozen=True)
class Limit:
    """``ours`` is to hold at most ``at_most`` bytes, those of its inputs included."""

    ours: str
    name: str
    at_most: int
    input_bytes: int


@dataclass(frozen=True)
class Row:
    """One comparison: ``contenders`` by name, on the same inputs.

    ``result_bytes`` of the peak are what every contender hands over, such as the gradient of
    the weights; they do not count in ratios of memory.
    """

    name: str
    title: str
    device: torch.device
    contenders: Mapping[str, Contender]
    bars: Sequence[Bar] = ()
    limits: Sequence[Limit] = ()
    result_bytes: int = 0


def measure(
    row: Row, rounds: int, sample_seconds: float, seed: int, report: Callable[[str], None]
) -> dict[str, Any]:
    """Return contenders and ratios of ``row``, ready for JSON.

    Args:
        row: what to compare.
        rounds: number of rounds.
        sample_seconds: each contender repeats its step until a sample lasts this long.
        seed: of the order within the rounds.
        report: called with a short text on progress.

    Raises:
        RuntimeError: two contenders that are to compute the same value do not.
    """
    # Past its limit of specialisations a compiled peer of an earlier row would run eagerly.
    torch.compiler.reset()
    steps, absent = _build(row, report)
    _check_agreement(row, steps)
    calls, peaks = {}, {}
    for name, step in steps.items():
        report(f'warm-up and memory: {name}')
        calls[name] = _warm_up(row.device, step, sample_seconds)
        peaks[name] = peak_bytes(row.device, step)
    samples, faults = _sample(row.device, steps, calls, rounds, seed, report)
    lines = {
        name: _describe(contender, samples.get(name), peaks.get(name), absent.get(name))
        for name, contender in row.contenders.items()
    }
    for name in steps:
        lines[name].update(calls_per_sample=calls[name], page_faults=faults[name])
    ratios = [*_ratios(row, samples, peaks), *_limits(row, peaks)]
    outcome = {'title': row.title, 'contenders': lines, 'ratios': ratios}
    return {**outcome, 'result_bytes': row.result_bytes} if row.result_bytes else outcome


def quartiles(values: Sequence[float]) -> list[float]:
    """Return lower quartile, median and upper quartile."""
    if len(values) == 1:
        return [values[0]] * 3
    return statistics.quantiles(values, n=4, method='inclusive')


def ratio_quartiles(peer: Sequence[float], ours: Sequence[float]) -> list[float]:
    """Return how many times as fast ours is: quartiles of the ratios within each round."""
    return quartiles([slow / fast for slow, fast in zip(peer, ours)])


def peak_bytes(device: torch.device, step: Step) -> int:
    """Return the most bytes of tensors that one step holds at a time, beyond its inputs.

    CUDA: the allocator's own peak. CPU: the sum over the allocations and frees of torch's CPU
    allocator, which the profiler records one by one; compiled code allocates there too, where a
    dispatch mode would not see it. numpy: tracemalloc, to which numpy reports its arrays.
    """
    if device.type == 'cuda':
        return _cuda_peak(device, step)
    return _numpy_peak(step) if step.counts_numpy else _cpu_peak(step)


def _cuda_peak(device: torch.device, step: Step) -> int:
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    _run(step)
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _cpu_peak(step: Step) -> int:
    # Read at the first profile; without it every one prints four lines of its own.
    os.environ.setdefault('KINETO_LOG_LEVEL', '99')
    activities = [ProfilerActivity.CPU]
    with profile(activities=activities, profile_memory=True, acc_events=True) as profiler:
        _run(step)
    events = profiler.profiler.kineto_results.events()
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        if event.name() == '[memory]':
            held += event.nbytes()
            peak = max(peak, held)
    return peak


def _numpy_peak(step: Step) -> int:
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    _run(step)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak - before


def _run(step: Step) -> None:
    output = step.forward()
    if step.backward is not None:
        step.backward(output)
    del output
    step.reset()


def _build(row: Row, report: Callable[[str], None]) -> tuple[dict[str, Step], dict[str, str]]:
    steps, absent = {}, {}
    for name, contender in row.contenders.items():
        report(f'building {name}')
        try:
            steps[name] = contender.build()
        except ImportError as error:
            absent[name] = f'{type(error).__name__}: {error}'.splitlines()[0]
    return steps, absent


def _check_agreement(row: Row, steps: Mapping[str, Step]) -> None:
    values = {}
    for name, step in steps.items():
        factor = row.contenders[name].factor
        if factor is not None:
            values[name] = float(torch.as_tensor(step.forward()).detach()) / factor
            step.reset()
    if not values:
        return
    expected = next(iter(values.values()))
    for name, value in values.items():
        if not math.isclose(value, expected, rel_tol=AGREEMENT):
            rule = f'agree with the first one, {expected:g}, after its factor'
            step_text = 'A peer that computes something else is no peer: check its call'
            raise RuntimeError(message(row.name, f'value of {name!r}', rule, value, step_text))


def _warm_up(device: torch.device, step: Step, sample_seconds: float) -> int:
    """Run ``step`` until it is compiled and cached; return its calls per sample."""
    for _ in range(WARM_UP_CALLS):
        _run(step)
    once = Stopwatch(device).time(step, 1)['total']
    return max(1, min(1000, math.ceil(sample_seconds / max(once, 1e-9))))


def _sample(
    device: torch.device,
    steps: Mapping[str, Step],
    calls: Mapping[str, int],
    rounds: int,
    seed: int,
    report: Callable[[str], None],
) -> tuple[dict[str, Samples], dict[str, float]]:
    stopwatch, order = Stopwatch(device), random.Random(seed)
    samples: dict[str, Samples] = {name: {part: [] for part in PARTS} for name in steps}
    faults: dict[str, list[float]] = {name: [] for name in steps}
    names, begin = list(steps), time.monotonic()
    for number in range(1, rounds + 1):
        order.shuffle(names)
        for name in names:
            before = _page_faults()
            for part, seconds in stopwatch.time(steps[name], calls[name]).items():
                samples[name][part].append(seconds)
            faults[name].append((_page_faults() - before) / calls[name])
        left = (time.monotonic() - begin) / number * (rounds - number)
        report(f'round {number} of {rounds}, about {left:.0f} s left in this row')
    return samples, {name: statistics.median(values) for name, values in faults.items()}


def _page_faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


class Stopwatch:
    """Seconds per call of a step.

    CUDA: events on the stream, so launch gaps count. CPU with one thread: the processor time of
    the process, which is the wall time of an otherwise idle machine, page faults included, and
    does not count what neighbours take. CPU with several threads: wall time.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        alone = torch.get_num_threads() == 1
        self.now = time.process_time if alone else time.perf_counter

    def time(self, step: Step, calls: int) -> dict[str, float]:
        """Return seconds per call of forward, backward and both."""
        run = self._time_cuda if self.device.type == 'cuda' else self._time_cpu
        forward, backward = run(step, calls)
        return {
            'forward': forward / calls,
            'backward': backward / calls,
            'total': (forward + backward) / calls,
        }

    def _time_cpu(self, step: Step, calls: int) -> tuple[float, float]:
        now, forward, backward = self.now, 0.0, 0.0
        for _ in range(calls):
            begin = now()
            output = step.forward()
            middle = now()
            if step.backward is not None:
                step.backward(output)
                backward += now() - middle
            forward += middle - begin
            del output
            step.reset()
        return forward, backward

    def _time_cuda(self, step: Step, calls: int) -> tuple[float, float]:
        marks = [[torch.cuda.Event(enable_timing=True) for _ in range(3)] for _ in range(calls)]
        torch.cuda.synchronize(self.device)
        for begin, middle, end in marks:
            begin.record()
            output = step.forward()
            middle.record()
            if step.backward is not None:
                step.backward(output)
            end.record()
            del output
            step.reset()
        torch.cuda.synchronize(self.device)
        forward = sum(begin.elapsed_time(middle) for begin, middle, _ in marks)
        backward = sum(middle.elapsed_time(end) for _, middle, end in marks)
        return forward / 1e3, backward / 1e3


def _describe(
    contender: Contender, samples: Samples | None, peak: int | None, absent: str | None
) -> dict[str, Any]:
    if samples is None:
        return {'role': contender.role, 'absent': absent}
    seconds = {part: quartiles(samples[part]) for part in PARTS}
    return {'role': contender.role, 'seconds': seconds, 'peak_bytes': peak}


def _ratios(
    row: Row, samples: Mapping[str, Samples], peaks: Mapping[str, int]
) -> list[dict[str, Any]]:
    """Return one entry per pair of ours and another contender, in the order of the row."""
    bars = {(bar.ours, bar.peer, bar.of): bar.at_least for bar in row.bars}
    asked = {(bar.ours, bar.peer) for bar in row.bars}
    roles = {name: contender.role for name, contender in row.contenders.items()}
    found = []
    for ours in (name for name in samples if roles[name] == 'ours'):
        for other in samples:
            if roles[other] == 'ours' and (ours, other) not in asked:
                continue
            pair: dict[str, Any] = {'ours': ours, 'other': other, 'role': roles[other]}
            for part in PARTS:
                timed = all(value > 0 for value in samples[ours][part] + samples[other][part])
                values = samples[other][part], samples[ours][part]
                pair[part] = ratio_quartiles(*values) if timed else None
            least = peaks[ours] - row.result_bytes
            pair['memory'] = (peaks[other] - row.result_bytes) / least if least > 0 else None
            pair['bar'] = bars.get((ours, other, 'total'))
            pair['met'] = None if pair['bar'] is None else pair['total'][1] >= pair['bar']
            found.append(pair | _memory_bar(pair['memory'], bars.get((ours, other, 'memory'))))
    return found


def _limits(row: Row, peaks: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return one entry per limit, of the form of a pair."""
    untimed: dict[str, Any] = {**dict.fromkeys(PARTS), 'bar': None, 'met': None}
    found = []
    for limit in row.limits:
        memory = limit.at_most / (peaks[limit.ours] + limit.input_bytes)
        pair = {'ours': limit.ours, 'other': limit.name, 'role': 'limit', 'memory': memory}
        found.append({**pair, **untimed, **_memory_bar(memory, 1.0)})
    return found


def _memory_bar(memory: float | None, bar: float | None) -> dict[str, Any]:
    met = None if bar is None else memory is not None and memory >= bar
    return {'memory_bar': bar, 'memory_met': met}
