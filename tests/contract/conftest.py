"""Run every law on every variant of every registered loss that has a case."""

from __future__ import annotations

from tests.contract.cases import CASES
from tests.contract.subject import Subject, registered_losses


def pytest_generate_tests(metafunc):
    """Give ``subject`` to a law for each variant, ``plain`` for the first variant alone."""
    if not {'subject', 'plain'} & set(metafunc.fixturenames):
        return
    fixture = 'subject' if 'subject' in metafunc.fixturenames else 'plain'
    rows = {}
    for name in registered_losses():
        if name not in CASES:
            continue  # test_cases.py says so, with what to do
        case = CASES[name]
        for row, variant in case.variants.items():
            rows[f'{name}-{row}'] = Subject(name, case, variant)
            if fixture == 'plain':
                break
    metafunc.parametrize(fixture, list(rows.values()), ids=list(rows))
