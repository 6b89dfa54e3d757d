"""The contract suite bites: each deliberate fault turns it red."""

from __future__ import annotations

import pytest

from tests import mutations
from tests.contract.subject import registered_losses


@pytest.mark.parametrize('mutation', mutations.MUTATIONS, ids=lambda mutation: mutation.name)
def test_mutation_applies_to_the_code(mutation):
    text = (mutations.ROOT / 'mmloss_plugins' / mutation.file).read_text()
    broken = mutations.mutated(text, mutation)
    assert broken != text
    compile(broken, mutation.file, 'exec')


@pytest.mark.parametrize('mutation', mutations.MUTATIONS, ids=lambda mutation: mutation.name)
def test_readme_shows_the_mutation(mutation):
    readme = (mutations.ROOT / 'tests' / 'README.md').read_text()
    assert f'| {mutation.name} |' in readme
    laws = (mutations.ROOT / 'tests' / 'contract').glob('test_*.py')
    assert any(f'def {mutation.law}(' in law.read_text() for law in laws)


@pytest.mark.slow
def test_unbroken_copy_is_green():
    red, total = mutations.red_tests(None)
    assert not red
    assert total > 100 * len(registered_losses())


@pytest.mark.slow
@pytest.mark.parametrize('mutation', mutations.MUTATIONS, ids=lambda mutation: mutation.name)
def test_mutation_turns_its_law_red(mutation):
    red, _ = mutations.red_tests(mutation)
    assert mutation.law in mutations.laws_of(red)
