"""Run every law on every variant of every registered loss that has a case."""

from __future__ import annotations

from tests.contract.cases import CASES
from tests.contract.subject import Subject, registered_losses

FIXTURES = ('subject', 'separable', 'plain')


def pytest_generate_tests(metafunc):
    """Give each variant to a law.

    ``subject`` is every variant, ``separable`` every one whose elements do not depend on each
    other, ``plain`` the first of each loss.
    """
    fixture = next((name for name in FIXTURES if name in metafunc.fixturenames), None)
    if fixture is None:
        return
    rows = {}
    for name in registered_losses():
        if name not in CASES:
            continue  # test_cases.py says so, with what to do
        case = CASES[name]
        for row, variant in case.variants.items():
            if fixture == 'separable' and variant.coupled:
                continue
            rows[f'{name}-{row}'] = Subject(name, case, variant)
            if fixture == 'plain':
                break
    metafunc.parametrize(fixture, list(rows.values()), ids=list(rows))
