"""Every public function of ``functional`` has an example in its docstring, and it runs."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil

import pytest

from mmloss_plugins import functional

MODULES = [module.name for module in pkgutil.iter_modules(functional.__path__)]


@pytest.mark.parametrize('name', MODULES)
def test_examples_run(name):
    module = importlib.import_module(f'mmloss_plugins.functional.{name}')
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


def equations():
    """Return the public functions that compute a loss: they take a target."""
    functions = (getattr(functional, name) for name in functional.__all__)
    return [f for f in functions if 'target' in inspect.signature(f).parameters]


@pytest.mark.parametrize('function', equations(), ids=lambda function: function.__name__)
def test_docstring_has_every_part(function):
    text = inspect.getdoc(function)
    for part in ('Args:', 'Returns:', 'Raises:', 'Differs from:', 'Reference:', 'Example:'):
        assert part in text, f'{function.__name__} lacks {part}'
    assert '.. math::' in text
    assert '>>> ' in text
    for argument in inspect.signature(function).parameters:
        assert f'    {argument}: ' in text, f'{function.__name__} does not explain {argument}'
