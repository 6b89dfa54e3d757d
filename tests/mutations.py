"""Break a copy of the package on purpose and see which laws of the contract suite turn red.

    python -m tests.mutations [WORD ...]

prints the table of the README of tests: one run of tests/contract, on one loss, for each mutation
whose name contains one of the words; without words all of them, and the unbroken copy.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
IGNORED = shutil.ignore_patterns('__pycache__', '.mim', '*.pyc')


class Mutation(NamedTuple):
    """Replace ``before``, which occurs once in ``file``, by ``after``; a law must notice.

    The laws are run on ``loss`` alone: all losses would take many times as long.
    """

    name: str
    file: str
    before: str
    after: str
    law: str
    loss: str = 'KLDiscretLoss'


MUTATIONS = (
    Mutation(
        'weight counts squared',
        'functional/reduction.py',
        'torch.where(weight != 0, loss * weight, 0)',
        'torch.where(weight != 0, loss * weight * weight, 0)',
        'test_half_a_weight_is_half_the_loss',
    ),
    Mutation(
        'weight multiplies without masking',
        'functional/reduction.py',
        'torch.where(weight != 0, loss * weight, 0)',
        'loss * weight',
        'test_an_element_switched_off_does_not_count',
    ),
    Mutation(
        'masked after the softmax: backward without the zero rows',
        'functional/simcc.py',
        'grad_logits.masked_fill_(grad == 0, 0)',
        '',
        'test_an_element_switched_off_does_not_count',
    ),
    Mutation(
        'weight applied in spite of use_target_weight=False',
        'losses/base.py',
        'if not self.use_target_weight:',
        'if False:',
        'test_use_target_weight_false_ignores_the_weight',
    ),
    Mutation(
        'NaN replaced by zero',
        'losses/base.py',
        'loss = self.elementwise(pred, target)\n',
        'loss = torch.nan_to_num(self.elementwise(pred, target))\n',
        'test_nan_and_inf_with_weight_are_visible',
    ),
    Mutation(
        'avg_factor 0 divides by 1.19e-7, as in MMDetection',
        'functional/reduction.py',
        'return avg_factor or 1',
        'return avg_factor + 1.1920929e-07',
        'test_avg_factor_zero_divides_by_one',
    ),
    Mutation(
        'arithmetic in half precision',
        'functional/simcc.py',
        'return x if x.dtype == torch.float64 else x.float()',
        'return x',
        'test_finite_where_every_input_is_extreme',
    ),
    Mutation(
        'gradient ignores grad_output',
        'functional/simcc.py',
        'grad = (grad * ctx.beta).unsqueeze(-1)',
        'grad = torch.full_like(grad, ctx.beta).unsqueeze(-1)',
        'test_gradcheck_of_the_unreduced_loss',
    ),
    Mutation(
        'valid elements counted on the own rank alone',
        'losses/base.py',
        "all_reduce(count, op='mean')",
        '',
        'test_as_one_process',
    ),
    Mutation(
        'number of valid elements read back with .item()',
        'losses/base.py',
        'return count.clamp(min=1 / get_world_size())',
        'return count.new_tensor(max(count.item(), 1 / get_world_size()))',
        'test_no_sync',
    ),
    Mutation(
        'loop over the samples of a batch',
        'functional/simcc.py',
        'log_p = torch.log_softmax(_scaled(logits, beta), dim=-1)',
        'log_p = _scaled(logits, beta).clone()\n'
        '        for row in log_p:\n'
        '            row.copy_(torch.log_softmax(row, dim=-1))',
        'test_no_loop_over_elements',
    ),
    Mutation(
        "PyTorch's own backward, which keeps the log-probabilities and more",
        'functional/simcc.py',
        'kl: Tensor = _SoftmaxKL.apply(logits, target, beta)',
        'kl: Tensor = torch.nn.functional.kl_div(\n'
        '        torch.log_softmax(_scaled(logits, beta), -1), target, reduction="none").sum(-1)',
        'test_at_most_one_tensor_of_the_input_is_kept_for_backward',
    ),
    Mutation(
        'target overwritten as scratch space',
        'functional/simcc.py',
        'log_t.sub_(log_p).mul_(target).sum(-1)',
        'target.mul_(log_t.sub_(log_p)).sum(-1)',
        'test_nothing_is_changed_in_place',
    ),
    Mutation(
        'constants in the checkpoint',
        'losses/simcc.py',
        'persistent=False',
        'persistent=True',
        'test_nothing_in_the_checkpoint',
    ),
    Mutation(
        'all configurations share one compiled function',
        'losses/base.py',
        'function = _compiled(function, key)',
        'function = _compiled(function, ())',
        'test_many_specialisations_in_one_process',
    ),
    Mutation(
        'misspelt arguments accepted',
        'losses/base.py',
        'refuse_unknown(name, unknown, _known_arguments(type(self)))',
        '',
        'test_a_typo_gets_the_right_word',
    ),
    Mutation(
        'closed form: slope of a silenced element let through',
        'functional/closed_form.py',
        'grad.masked_fill_(grad_output == 0, 0)',
        'pass',
        'test_an_element_switched_off_does_not_count',
        'SigmoidFocalLoss',
    ),
    Mutation(
        'closed form: slope beyond the range of float16',
        'functional/closed_form.py',
        'grad = grad.clamp_(-limit, limit)',
        'pass',
        'test_finite_where_every_input_is_extreme',
        'MSELoss',
    ),
    Mutation(
        'closed form: arithmetic in half precision',
        'functional/closed_form.py',
        'return torch.float64 if x.dtype == torch.float64 else torch.float32',
        'return x.dtype',
        'test_half_inputs_are_computed_in_float32',
        'SigmoidFocalLoss',
    ),
    Mutation(
        'DSNT: mean over all keypoints, invisible ones too',
        'losses/dsnt.py',
        "self, sigma_px: SigmaPx = 1.0, *, mean_over: str = 'valid', **base_options: Any",
        "self, sigma_px: SigmaPx = 1.0, *, mean_over: str = 'all', **base_options: Any",
        'test_reductions_are_those_of_mmdet',
        'HeatmapMSERegLoss',
    ),
    Mutation(
        'DSNT: Gaussian around the rounded cell, as in MMPose',
        'functional/_gaussian.py',
        'at = to_cells(mean, size)',
        'at = to_cells(mean, size).round()',
        'test_documented_zeros',
        'HeatmapMSERegLoss',
    ),
    Mutation(
        'centre loss: what is switched off stays in the norm of the batch',
        'losses/center.py',
        'target = torch.where(factor != 0, target, self.ignore_index)',
        'pass',
        'test_all_masked',
        'CenterLoss',
    ),
    Mutation(
        'label smoothing: gradient of the plain cross-entropy',
        'functional/label_smoothing.py',
        'slope.sub_(ctx.off)',
        'pass',
        'test_gradcheck_of_the_unreduced_loss',
        'LabelSmoothLoss',
    ),
)


def mutated(text: str, mutation: Mutation) -> str:
    """Return ``text`` with the mutation.

    Raises:
        ValueError: the line that it changes is gone.
    """
    found = text.count(mutation.before)
    if found != 1:
        raise ValueError(
            f'{mutation.name}: before must occur once in {mutation.file}, got {found} times. '
            'Adapt the mutation in tests/mutations.py to the code.'
        )
    return text.replace(mutation.before, mutation.after)


def copy_project(folder: Path) -> None:
    """Copy what the contract suite needs: an import there must not find the original."""
    for part in ('mmloss_plugins', 'tests/contract'):
        shutil.copytree(ROOT / part, folder / part, ignore=IGNORED)
    for file in (ROOT / 'pyproject.toml', *(ROOT / 'tests').glob('*.py')):
        shutil.copy(file, folder / file.relative_to(ROOT))


def red_tests(mutation: Mutation | None) -> tuple[list[str], int]:
    """Return (names of the tests that fail on a broken copy, number of tests)."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy_project(folder)
        if mutation is not None:
            file = folder / 'mmloss_plugins' / mutation.file
            file.write_text(mutated(file.read_text(), mutation))
        report = folder / 'report.xml'
        command = [sys.executable, '-m', 'pytest', 'tests/contract', '-q', '--tb=no']
        command += ['-p', 'no:cacheprovider', f'--junitxml={report}']
        if mutation is not None:
            command += ['-k', f'{mutation.loss}-']
        environment = {**os.environ, 'PYTHONPATH': str(folder), 'OMP_NUM_THREADS': '1'}
        run = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        if run.returncode not in (0, 1):
            raise RuntimeError(f'pytest did not run the suite:\n{run.stdout}\n{run.stderr}')
        return read_report(report)


def read_report(report: Path) -> tuple[list[str], int]:
    """Return (names of the tests that failed, number of tests) of a JUnit report."""
    tests = list(ElementTree.parse(report).iter('testcase'))
    red = [test.get('name', '') for test in tests if test.find('failure') is not None]
    red += [test.get('name', '') for test in tests if test.find('error') is not None]
    return red, len(tests)


def laws_of(red: list[str]) -> list[str]:
    """Return the names of the laws, without their parameters, in the order of the suite."""
    return list(dict.fromkeys(re.sub(r'\[.*', '', name) for name in red))


def table_row(mutation: Mutation | None) -> str:
    """Return one row of the table in the README of tests."""
    red, total = red_tests(mutation)
    if mutation is None:
        return f'| none | | {len(red)} of {total} | {", ".join(laws_of(red))} |'
    others = len(laws_of(red)) - (mutation.law in laws_of(red))
    law = f'`{mutation.law}`' if mutation.law in laws_of(red) else '**not noticed**'
    more = f' and {others} more' if others else ''
    return f'| {mutation.name} | `{mutation.file}` | {len(red)} of {total} | {law}{more} |'


def main(words: list[str]) -> None:
    """Print the table."""
    chosen = [m for m in MUTATIONS if any(word in m.name for word in words)]
    chosen = chosen if words else [None, *MUTATIONS]
    print('| mutation | file | red tests | noticed by |\n| --- | --- | --- | --- |')
    start = time.monotonic()
    for done, mutation in enumerate(chosen):
        print(table_row(mutation), flush=True)
        passed = time.monotonic() - start
        left = passed / (done + 1) * (len(chosen) - done - 1)
        print(f'{done + 1}/{len(chosen)}, about {left:.0f} s left', file=sys.stderr)


if __name__ == '__main__':
    main(sys.argv[1:])
